"""Inner gradients: fewer of them, the same result, on linear models with closed forms and on a tiny BERT."""

from __future__ import annotations

import pytest
import torch

from families import build, collated
from gradistill.attribution import gradients
from gradistill.attribution.gradients import inner_gradients_needed, view_gradients
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import ModelError
from gradistill.models.probe import Probe


def one_by_one(values: torch.Tensor, site: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
    return torch.stack(
        [
            torch.autograd.grad(values[:, v].sum(), site, create_graph=create_graph, retain_graph=True)[0]
            for v in range(values.shape[1])
        ],
        dim=1,
    )


def bert_values(labels: int, kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    model = build("bert", labels=labels, attention="eager").double()
    probe = Probe.find(model)
    with probe.tapped(model) as taps:
        logits = model(**Batch.of(collated(labels)).inputs).logits
    return Target(kind, "all").values(logits, None), logits, taps[0]


@pytest.mark.parametrize("labels", [2, 3, 5])
@pytest.mark.parametrize("kind", ["log_odds", "label_nll", "confidence", "margin"])
def test_c_minus_one_inner_gradients_equal_c(labels: int, kind: str) -> None:
    values, logits, site = bert_values(labels, kind)
    (shared,) = view_gradients(values, logits, [site], create_graph=False)
    # float64; the two ways add the same terms in another order
    torch.testing.assert_close(shared, one_by_one(values, site), rtol=1e-10, atol=1e-14)


def test_a_regression_serves_all_views_with_one_inner_gradient() -> None:
    _, logits, site = bert_values(1, "log_odds")
    values = torch.cat([logits, logits.square(), logits], dim=1)
    (shared,) = view_gradients(values, logits, [site], create_graph=False)
    torch.testing.assert_close(shared, one_by_one(values, site), rtol=1e-10, atol=1e-14)


def test_the_shared_way_keeps_the_second_derivative() -> None:
    """∂/∂θ of a function of the gradients is the same by either way, the weights' own dependence included."""
    results = []
    for shift_invariant in (True, False):
        torch.manual_seed(0)
        model = build("bert", labels=3, attention="eager").double()
        probe = Probe.find(model)
        with probe.tapped(model) as taps:
            logits = model(**Batch.of(collated()).inputs).logits
        values = Target("label_nll", "all").values(logits, None)
        (found,) = view_gradients(
            values, logits, [taps[0]], create_graph=True, shift_invariant=shift_invariant
        )
        parameter = model.bert.encoder.layer[1].output.dense.weight
        results.append(torch.autograd.grad(found.square().sum(), parameter)[0])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize(
    ("views", "labels", "needed"), [(1, 5, 1), (2, 2, 1), (3, 3, 2), (4, 3, 2), (1, 1, 1), (3, 1, 1)]
)
def test_count_of_inner_gradients(
    monkeypatch: pytest.MonkeyPatch, views: int, labels: int, needed: int
) -> None:
    assert inner_gradients_needed(views, labels, shift_invariant=True) == needed
    calls = []
    real = torch.autograd.grad

    def counted(outputs: torch.Tensor, inputs: object, **options: object) -> object:
        calls.append(inputs)
        return real(outputs, inputs, **options)

    monkeypatch.setattr(gradients.torch.autograd, "grad", counted)
    site = torch.randn(2, 4, requires_grad=True)
    logits = site @ torch.randn(4, labels)
    values = torch.cat([logits - logits.mean(-1, keepdim=True)] * 3, dim=1)[:, :views]
    view_gradients(values, logits, [site], create_graph=False)
    assert sum(site is found for inputs in calls for found in inputs) == needed


def test_two_label_views_coincide() -> None:
    values, logits, site = bert_values(2, "log_odds")
    (found,) = view_gradients(values, logits, [site], create_graph=False)
    torch.testing.assert_close(found[:, 0], -found[:, 1], rtol=0, atol=0)


def test_linear_model_has_its_closed_form() -> None:
    """For logits W·e the log-odds of two labels have gradient ±(w_1 − w_0) at every token."""
    weight = torch.randn(2, 3, dtype=torch.float64)
    site = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    logits = site.sum(1) @ weight.T
    (found,) = view_gradients(Target().values(logits, None), logits, [site], create_graph=False)
    expected = (weight[1] - weight[0]).expand(4, 5, 3)
    torch.testing.assert_close(found[:, 1], expected, rtol=1e-12, atol=0)


def test_a_site_beside_the_graph_is_named() -> None:
    site = torch.randn(2, 3, requires_grad=True)
    logits = site @ torch.randn(3, 2)
    with pytest.raises(ModelError, match="site 1 of the model does not reach its logits"):
        view_gradients(logits, logits, [site, torch.randn(2, 3, requires_grad=True)], create_graph=False)
