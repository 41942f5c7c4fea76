"""Steps chosen row by row: closed forms, Captum, no influence of neighbours, and no more at once than allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients

from computed import path_of, run_of
from families import build, collated
from gradistill.attribution.adaptive_quadrature import integrated_to_tolerance
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.probe import Probe

LOGIT = Target("logit", "gold")


def set_up(family: str = "bert") -> tuple[Batch, torch.Tensor, Callable, Callable]:
    """A batch of a float64 model, its embedding output, and the model from there: for rows of any texts, for all."""
    model = build(family, labels=3, attention="eager", initializer_range=0.3).double().requires_grad_(False)
    batch, probe = Batch.of(collated()), Probe.find(model)
    with probe.tapped(model) as taps:
        model(**batch.inputs)
    return (
        batch,
        taps[0].detach(),
        run_of(model, probe, batch),
        lambda rows: run_of(model, probe, batch)(
            rows, torch.arange(len(batch)).repeat(len(rows) // len(batch))
        ),
    )


def steep(where: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A logit that rises within a 1/60 of the path, at another place for each row; embeddings are ones."""
    return lambda rows, places: ((rows.mean((1, 2)) - where[places]) * 60).sigmoid().unsqueeze(1)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_a_cubic_slope_takes_the_fewest_nodes(degree: int) -> None:
    """F = Σ c·e^degree: the slope along the path is a polynomial of degree − 1, exact to 3."""
    embedding, weight = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    embedding, weight = embedding.abs() + 0.1, weight.abs()
    found = integrated_to_tolerance(
        path_of(lambda rows, _: (rows**degree @ weight).sum(1, keepdim=True), embedding, LOGIT, None),
        tolerance=1e-9,
    )
    torch.testing.assert_close(found.attributions, embedding**degree * weight, rtol=1e-12, atol=1e-14)
    assert found.nodes.tolist() == [9, 9]
    assert found.residuals.abs().max() < 1e-12


def test_a_baseline_starts_the_path() -> None:
    embedding, origin = torch.randn(2, 2, 4, 3, dtype=torch.float64)
    found = integrated_to_tolerance(
        path_of(lambda rows, _: (rows**2).sum((1, 2)).unsqueeze(1), embedding, LOGIT, None, baseline=origin)
    )
    torch.testing.assert_close(found.attributions, embedding**2 - origin**2, rtol=1e-12, atol=1e-12)


def test_a_steep_stretch_is_found_wherever_it_is() -> None:
    """Nodes gather at the step: a uniform rule of as many would not even see it."""
    where = torch.tensor([0.11, 0.5, 0.77, 0.93], dtype=torch.float64)
    embedding = torch.ones(4, 2, 3, dtype=torch.float64)
    found = integrated_to_tolerance(path_of(steep(where), embedding, LOGIT, None), tolerance=1e-3)
    assert found.residuals.abs().max() <= 1e-3
    assert found.nodes.max() < 60
    # by symmetry every entry of a row has the same share of F(E) − F(0), to the tolerance
    change = (60 * (1 - where)).sigmoid() - (-60 * where).sigmoid()
    torch.testing.assert_close(
        found.attributions, (change / 6)[:, None, None].expand(4, 2, 3), rtol=1e-3, atol=0
    )


def test_what_cancels_in_the_sum_is_found() -> None:
    """Two entries that move against each other: F is a straight line on the path, complete at once; gradients turn."""
    embedding = torch.ones(1, 1, 2, dtype=torch.float64)

    def run(rows: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        turned = ((rows - 0.3) * 20).tanh()
        return rows[:, 0, :1] + turned[:, 0, :1] - turned[:, 0, 1:]

    found = integrated_to_tolerance(path_of(run, embedding, LOGIT, None))
    turn = torch.tensor([14.0, -6.0], dtype=torch.float64).tanh().diff().abs().item()
    exact = torch.tensor([[[1 + turn, -turn]]], dtype=torch.float64)
    assert (found.attributions - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2"])
def test_equals_captum_where_both_have_converged(family: str) -> None:
    batch, embedding, run, run_all = set_up(family)
    at = torch.tensor([1, 0, 2])
    baseline = embedding.roll(1, 0) * batch.mask.unsqueeze(
        -1
    )  # no zero, near which normalisation is singular
    found = integrated_to_tolerance(
        path_of(run, embedding, LOGIT, at, baseline=baseline), tolerance=1e-5, max_nodes=1000
    )
    theirs = IntegratedGradients(run_all).attribute(
        embedding, baseline, target=at, n_steps=200, method="gausslegendre"
    )
    scale = theirs.abs().max().item()
    # The tolerance bounds the error of the sum; single entries, which cancel in it, may be off by more.
    torch.testing.assert_close(found.attributions, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_neighbours_padding_and_grouping_change_nothing() -> None:
    batch, embedding, run, _ = set_up()
    together = integrated_to_tolerance(
        path_of(run, embedding, Target("log_odds", "own"), torch.tensor([1, 0, 2])), max_nodes=40
    )
    for row, at in enumerate((1, 0, 2)):
        length = int(batch.mask[row].sum())
        alone = integrated_to_tolerance(
            path_of(
                lambda rows, places, row=row, length=length: run(
                    torch.nn.functional.pad(rows, (0, 0, 0, embedding.shape[1] - length)), places + row
                ),
                embedding[row : row + 1, :length],
                Target("log_odds", "own"),
                torch.tensor([0, 0, 0])[:1] + at,
            ),
            max_nodes=40,
            rows_at_once=1,
        )
        assert alone.nodes[0] == together.nodes[row]
        torch.testing.assert_close(
            alone.attributions[0], together.attributions[row, :length], rtol=1e-9, atol=1e-12
        )
        assert not together.attributions[row, length:].any()


def test_no_more_rows_run_at_once_than_allowed_however_many_nodes_it_takes() -> None:
    where, sizes = torch.tensor([0.11, 0.5, 0.77], dtype=torch.float64), []
    run = steep(where)

    def counted(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():  # the value at the embedding itself is known beforehand
            sizes.append(len(rows))
        return run(rows, places)

    totals = []
    for tolerance in (1e-2, 1e-6):
        found = integrated_to_tolerance(
            path_of(counted, torch.ones(3, 2, 3, dtype=torch.float64), LOGIT, None),
            tolerance=tolerance,
            rows_at_once=7,
        )
        totals.append(int(found.nodes.sum()))
    assert max(sizes) == 7
    assert sum(sizes) == sum(totals)  # no gradient is taken twice, or for a row that is done
    assert totals[1] > 3 * totals[0]


def test_it_ends_at_the_most_nodes_and_names_what_is_missing() -> None:
    found = integrated_to_tolerance(
        path_of(steep(torch.tensor([0.11])), torch.ones(1, 2, 3), LOGIT, None), tolerance=0.0, max_nodes=20
    )
    assert found.nodes.tolist() == [19]  # an interval more would take two
    assert found.residuals[0] == pytest.approx((found.attributions.sum() - 1).item(), abs=2e-3)


def test_what_cannot_be_is_refused() -> None:
    embedding, run = torch.ones(1, 2, 3), lambda rows, _: rows.sum((1, 2)).unsqueeze(1).expand(-1, 3)
    with pytest.raises(RecipeError, match=r"3 views(.|\n)*one view"):
        integrated_to_tolerance(path_of(run, embedding, Target("logit", "all"), None))
    with pytest.raises(RecipeError, match="9 or more"):
        integrated_to_tolerance(path_of(run, embedding, LOGIT, torch.tensor([0])), max_nodes=8)
