"""What a model says: from one forward pass and the fewest inner gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from computed import computed
from families import build, collated
from gradistill.attribution import gradients
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.models.probe import Probe
from gradistill.signals import (
    AttentionVectors,
    AttributionScores,
    ClsGradient,
    ClsStates,
    InputGradient,
    Logits,
    Signal,
    States,
    attribution_scores,
    compute_signals,
    forward_pass,
)

ALL, OWN, TEACHER = (Target("log_odds", view) for view in ("all", "own", "teacher"))
MANY: tuple[Signal, ...] = (
    Logits(),
    ClsStates((1, 3)),
    InputGradient(ALL),
    InputGradient(OWN),
    ClsGradient(ALL, (1,)),
    ClsGradient(TEACHER, (2, 1)),
    AttributionScores(ALL),
    AttributionScores(Target("confidence", "gold"), keep=0.5),
    AttributionScores(OWN, signed=True),
    States((0, 3)),
    AttentionVectors("key", (1, 3)),
)


@contextmanager
def forwards(model: Any) -> Iterator[list[int]]:
    """The number of rows of every forward pass inside the block."""
    rows: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        yield rows
    finally:
        handle.remove()


def hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("create_graph", [False, True])
def test_one_forward_pass_answers_any_number_of_requests(create_graph: bool) -> None:
    model = build("bert", attention="eager")
    probe, batch = Probe.find(model), Batch.of(collated())
    with forwards(model) as rows:
        answers = compute_signals(model, probe, batch, (*MANY, *MANY), create_graph=create_graph)
    assert rows == [3]
    assert set(answers) == set(MANY)


@pytest.mark.parametrize(("rows_at_once", "expected"), [(64, [3, 15]), (6, [3, 6, 6, 3]), (1, [3] * 6)])
def test_integrated_gradients_run_forward_in_groups(
    rows_at_once: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution_scores, "ROWS_AT_ONCE", rows_at_once)
    model, batch = build("bert"), Batch.of(collated())
    probe = Probe.find(model)
    request = AttributionScores(OWN, steps=5, rule="gauss_legendre")
    with forwards(model) as rows:
        compute_signals(model, probe, batch, [request], create_graph=False)
    assert rows == expected


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_c_minus_one_inner_gradients_serve_all_requests(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five views of targets and more, three sites: C − 1 passes back through the model, started by one call."""
    model = build("bert", labels=labels)
    calls: list[list[Tensor]] = []
    started: list[int] = []
    real_grad, real_gradients = torch.autograd.grad, forward_pass.view_gradients

    def counted(outputs: Tensor, inputs: Any, **options: Any) -> Any:
        calls.append(list(inputs))
        return real_grad(outputs, inputs, **options)

    def watched(values: Tensor, *arguments: Any, **options: Any) -> Any:
        started.append(values.shape[1])
        return real_gradients(values, *arguments, **options)

    probe = Probe.find(model)
    monkeypatch.setattr(gradients.torch.autograd, "grad", counted)
    monkeypatch.setattr(forward_pass, "view_gradients", watched)
    compute_signals(model, probe, Batch.of(collated(labels)), MANY, create_graph=False)
    assert started == [labels + 3]  # all; own, teacher and gold have one view each
    through_the_model = [inputs for inputs in calls if inputs[0].ndim == 3]
    assert [len(inputs) for inputs in through_the_model] == [3] * (labels - 1)  # E and the states 1 and 2


def test_a_target_that_is_not_shift_invariant_has_all_its_gradients() -> None:
    """Beside such a target nothing is shared, and the answers stay the same."""
    model = build("bert").double()
    alone = computed(model, InputGradient(ALL))[InputGradient(ALL)]
    beside = computed(model, InputGradient(ALL), InputGradient(Target("logit", "all")))
    # float64; the two ways add the same terms in another order
    torch.testing.assert_close(beside[InputGradient(ALL)], alone, rtol=1e-9, atol=1e-15)
    logit = beside[InputGradient(Target("logit", "all"))]
    assert logit.shape == (3, 3, 7, 16)
    assert logit.sum(1).abs().max() > 1e-3  # a sum that shift-invariant targets could not span


def test_without_create_graph_everything_is_detached() -> None:
    for tensor in computed(build("bert"), *MANY).values():
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


def test_without_targets_no_graph_is_built_at_all() -> None:
    model, batch = build("bert"), Batch.of(collated())
    probe, seen = Probe.find(model), []
    model.classifier.register_forward_hook(lambda _module, _args, output: seen.append(output.requires_grad))
    for requests in ((Logits(), ClsStates((1,))), (Logits(), InputGradient(OWN))):
        compute_signals(model, probe, batch, requests, create_graph=False)
    assert seen == [False, True]


def test_with_create_graph_every_answer_leads_back_to_the_weights() -> None:
    model = build("bert", attention="eager")
    weight = model.bert.encoder.layer[0].intermediate.dense.weight
    answers = computed(model, *MANY, create_graph=True)
    for request, tensor in answers.items():
        (gradient,) = torch.autograd.grad(tensor.square().sum(), weight, retain_graph=True)
        assert gradient.abs().max() > 0, request


@pytest.mark.parametrize("frozen", [False, True])
def test_the_graph_stands_on_frozen_embeddings_too(frozen: bool) -> None:
    model = build("bert", attention="eager")
    model.bert.embeddings.requires_grad_(not frozen)
    request = InputGradient(OWN)
    computed(model, request, create_graph=True)[request].square().sum().backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad.abs().max() > 0
    assert (model.bert.embeddings.word_embeddings.weight.grad is None) == frozen


@pytest.mark.parametrize(("steps", "breaks_at"), [(1, 3), (3, 9)], ids=["first pass", "on the path"])
def test_an_error_inside_the_model_leaves_no_hook(
    steps: int, breaks_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first forward pass of three rows, or in that of all nodes together."""
    model = build("bert", attention="eager")
    probe, real = Probe.find(model), model.classifier.forward
    before = hooks(model)  # transformers keeps some of its own

    def broken(features: Tensor) -> Tensor:
        if len(features) == breaks_at:
            raise ArithmeticError("the head is broken")
        return real(features)

    monkeypatch.setattr(model.classifier, "forward", broken)
    with pytest.raises(ArithmeticError, match="the head is broken"):
        compute_signals(
            model, probe, Batch.of(collated()), [AttributionScores(OWN, steps)], create_graph=True
        )
    assert hooks(model) == before


def test_no_signal_is_in_half_precision() -> None:
    """Targets and losses are never computed in it."""
    model = build("bert", initializer_range=0.2).to(torch.bfloat16)
    batch = Batch.of(collated())
    for signal, values in compute_signals(model, Probe.find(model), batch, MANY, create_graph=False).items():
        assert values.dtype == torch.float32, signal
