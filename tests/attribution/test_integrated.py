"""Integrated Gradients against Captum, closed forms and completeness."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients

from computed import path_of, run_of
from families import PAD, build, collated
from gradistill.attribution.quadrature import (
    completeness_residual,
    integrated_gradients,
    quadrature,
)
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.probe import Probe

LABEL = 1


def set_up(family: str = "bert") -> tuple[torch.nn.Module, Batch, torch.Tensor, Callable]:
    model = build(family, labels=3, attention="eager", initializer_range=0.3).double().requires_grad_(False)
    batch, probe = Batch.of(collated()), Probe.find(model)
    with probe.tapped(model) as taps:
        model(**batch.inputs)
    return (
        model,
        batch,
        taps[0].detach(),
        run_of(model, probe, batch),
    )


@pytest.mark.parametrize(
    ("rule", "captum_rule"), [("gauss_legendre", "gausslegendre"), ("right_riemann", "riemann_right")]
)
def test_equals_captum_at_the_embedding_output(rule: str, captum_rule: str) -> None:
    _, _, embedding, run = set_up()
    at = torch.full((len(embedding),), LABEL)
    ours = integrated_gradients(
        path_of(run, embedding, Target("logit", "gold"), at), steps=8, rule=rule, rows_at_once=6
    )
    theirs = IntegratedGradients(
        lambda rows: run(rows, torch.arange(len(embedding)).repeat(len(rows) // len(embedding)))
    ).attribute(embedding, target=LABEL, n_steps=8, method=captum_rule)
    torch.testing.assert_close(ours[:, 0], theirs, rtol=1e-5, atol=1e-7)


def test_equals_captums_layer_form_with_padding_tokens_as_baseline() -> None:
    model, batch, embedding, run = set_up()
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    with Probe.find(model).tapped(model) as taps, torch.no_grad():
        model(input_ids=torch.full_like(ids, PAD), attention_mask=mask)
    ours = integrated_gradients(
        path_of(run, embedding, Target("logit", "gold"), torch.full((len(ids),), LABEL), baseline=taps[0]),
        steps=20,
    )
    forward = lambda x, m: model(input_ids=x, attention_mask=m).logits  # noqa: E731
    theirs = LayerIntegratedGradients(forward, model.bert.embeddings).attribute(
        ids,
        torch.full_like(ids, PAD),
        target=LABEL,
        additional_forward_args=(mask,),
        n_steps=20,
        method="gausslegendre",
    )
    torch.testing.assert_close(ours[:, 0], theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "qwen3"])
def test_completeness(family: str) -> None:
    """From a baseline of padding tokens, where no normalisation divides by nearly nothing."""
    model, batch, embedding, run = set_up(family)
    with Probe.find(model).tapped(model) as taps, torch.no_grad():
        model(**{**batch.inputs, "input_ids": torch.full_like(batch.inputs["input_ids"], 1)})
    origin, target = taps[0], Target("log_odds", "all")
    here, there = (
        target.values(run(embedding, torch.arange(len(embedding))), None),
        target.values(run(origin, torch.arange(len(origin))), None),
    )
    residuals = [
        completeness_residual(
            integrated_gradients(path_of(run, embedding, target, None, baseline=origin), steps=steps),
            here,
            there,
        )
        .abs()
        .max()
        for steps in (3, 64)
    ]
    assert residuals[1] < 1e-3 * (here - there).abs().max()
    assert residuals[1] < residuals[0]


def test_one_right_riemann_step_is_gradient_times_input() -> None:
    _, _, embedding, run = set_up()
    embedding.requires_grad_()
    gradient = torch.autograd.grad(run(embedding, torch.arange(len(embedding)))[:, LABEL].sum(), embedding)[0]
    at = torch.full((len(embedding),), LABEL)
    found = integrated_gradients(
        path_of(run, embedding, Target("logit", "gold"), at), steps=1, rule="right_riemann"
    )
    torch.testing.assert_close(found[:, 0], embedding * gradient)


def test_grouping_of_nodes_changes_nothing() -> None:
    _, _, embedding, run = set_up()
    results = [
        integrated_gradients(path_of(run, embedding, Target(), None), steps=7, rows_at_once=rows)
        for rows in (1, 6, 100)
    ]
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-10, atol=1e-14)


def test_no_more_rows_run_at_once_than_allowed() -> None:
    """Peak memory does not grow with the number of steps: the largest forward pass does not."""
    _, _, embedding, run = set_up()
    sizes = []

    def counted(rows: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(rows))
        return run(rows, examples)

    for steps in (4, 40):
        integrated_gradients(path_of(counted, embedding, Target(), None), steps=steps, rows_at_once=7)
    assert max(sizes) == 6
    assert sum(sizes) == 44 * len(embedding)


def test_linear_model_is_exact_with_any_rule_and_step() -> None:
    weight = torch.randn(2, 3, dtype=torch.float64)
    embedding = torch.randn(2, 4, 3, dtype=torch.float64)
    for rule in ("right_riemann", "gauss_legendre"):
        for steps in (1, 3):
            found = integrated_gradients(
                path_of(lambda rows, _: rows.sum(1) @ weight.T, embedding, Target("logit", "all"), None),
                steps=steps,
                rule=rule,
            )
            torch.testing.assert_close(found, embedding[:, None] * weight[:, None], rtol=1e-12, atol=1e-14)


def test_differentiates_twice_through_several_steps() -> None:
    embedding = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def attributed(e: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return integrated_gradients(
            path_of(lambda rows, _: (rows.tanh() @ w.T).sum(1), e, Target(), None, create_graph=True), steps=3
        )

    assert torch.autograd.gradcheck(attributed, (embedding, weight))


def test_quadrature_integrates_polynomials_and_refuses_no_steps() -> None:
    nodes, weights = quadrature("gauss_legendre", 5)
    assert sum(weights * nodes**9) == pytest.approx(0.1, abs=1e-14)  # exact to degree 2m − 1
    with pytest.raises(RecipeError, match="0 integration steps"):
        quadrature("right_riemann", 0)
