"""What a model says: from one forward pass and the fewest inner gradients, and what is said is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from families import build, collated
from gradistill.attribution import gradients
from gradistill.attribution.integrated import integrated_gradients
from gradistill.attribution.scores import token_scores
from gradistill.attribution.targets import Target
from gradistill.models.probe import Probe
from gradistill.objectives._contract import (
    AttentionVectors,
    AttributionScores,
    ClsGradient,
    ClsStates,
    InputGradient,
    Logits,
    Request,
    States,
)
from gradistill.signals import speak as room
from gradistill.signals.speak import from_embeddings, speak
from gradistill.types import Batch

ALL, OWN, TEACHER = (Target("log_odds", view) for view in ("all", "own", "teacher"))
MANY: tuple[Request, ...] = (
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


def said(model: Any, *requests: Request, batch: Batch | None = None, **options: Any) -> Any:
    batch = Batch.of(collated(model.config.num_labels)) if batch is None else batch
    return speak(model, Probe.find(model), batch, requests, **{"create_graph": False, **options})


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
        answers = speak(model, probe, batch, (*MANY, *MANY), create_graph=create_graph)
    assert rows == [3]
    assert set(answers) == set(MANY)


@pytest.mark.parametrize(("rows_at_once", "expected"), [(64, [3, 15]), (6, [3, 6, 6, 3]), (1, [3] * 6)])
def test_integrated_gradients_run_forward_in_groups(rows_at_once: int, expected: list[int]) -> None:
    model, batch = build("bert"), Batch.of(collated())
    probe = Probe.find(model)
    request = AttributionScores(OWN, steps=5, rule="gauss_legendre")
    with forwards(model) as rows:
        speak(model, probe, batch, [request], create_graph=False, rows_at_once=rows_at_once)
    assert rows == expected


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_c_minus_one_inner_gradients_serve_all_requests(labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five views of targets and more, three sites: C − 1 passes back through the model, started by one call."""
    model = build("bert", labels=labels)
    calls: list[list[Tensor]] = []
    started: list[int] = []
    real_grad, real_gradients = torch.autograd.grad, room.view_gradients

    def counted(outputs: Tensor, inputs: Any, **options: Any) -> Any:
        calls.append(list(inputs))
        return real_grad(outputs, inputs, **options)

    def watched(values: Tensor, *arguments: Any, **options: Any) -> Any:
        started.append(values.shape[1])
        return real_gradients(values, *arguments, **options)

    probe = Probe.find(model)
    monkeypatch.setattr(gradients.torch.autograd, "grad", counted)
    monkeypatch.setattr(room, "view_gradients", watched)
    speak(model, probe, Batch.of(collated(labels)), MANY, create_graph=False)
    assert started == [labels + 3]  # all; own, teacher and gold have one view each
    through_the_model = [inputs for inputs in calls if inputs[0].ndim == 3]
    assert [len(inputs) for inputs in through_the_model] == [3] * (labels - 1)  # E and the states 1 and 2


def test_a_target_that_is_not_shift_invariant_has_all_its_gradients() -> None:
    """Beside such a target nothing is shared, and the answers stay the same."""
    model = build("bert").double()
    alone = said(model, InputGradient(ALL))[InputGradient(ALL)]
    beside = said(model, InputGradient(ALL), InputGradient(Target("logit", "all")))
    # float64; the two ways add the same terms in another order
    torch.testing.assert_close(beside[InputGradient(ALL)], alone, rtol=1e-9, atol=1e-15)
    logit = beside[InputGradient(Target("logit", "all"))]
    assert logit.shape == (3, 3, 7, 16)
    assert logit.sum(1).abs().max() > 1e-3  # a sum that shift-invariant targets could not span


def test_without_create_graph_everything_is_detached() -> None:
    for tensor in said(build("bert"), *MANY).values():
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


def test_without_targets_no_graph_is_built_at_all() -> None:
    model, batch = build("bert"), Batch.of(collated())
    probe, seen = Probe.find(model), []
    model.classifier.register_forward_hook(lambda _module, _args, output: seen.append(output.requires_grad))
    for requests in ((Logits(), ClsStates((1,))), (Logits(), InputGradient(OWN))):
        speak(model, probe, batch, requests, create_graph=False)
    assert seen == [False, True]


def test_with_create_graph_every_answer_leads_back_to_the_weights() -> None:
    model = build("bert", attention="eager")
    weight = model.bert.encoder.layer[0].intermediate.dense.weight
    answers = said(model, *MANY, create_graph=True)
    for request, tensor in answers.items():
        (gradient,) = torch.autograd.grad(tensor.square().sum(), weight, retain_graph=True)
        assert gradient.abs().max() > 0, request


@pytest.mark.parametrize("frozen", [False, True])
def test_the_graph_stands_on_frozen_embeddings_too(frozen: bool) -> None:
    model = build("bert", attention="eager")
    model.bert.embeddings.requires_grad_(not frozen)
    request = InputGradient(OWN)
    said(model, request, create_graph=True)[request].square().sum().backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad.abs().max() > 0
    assert (model.bert.embeddings.word_embeddings.weight.grad is None) == frozen


def test_the_teachers_view_is_that_of_the_labels_given() -> None:
    model = build("bert").double()
    labels = torch.tensor([2, 0, 1])
    answers = said(model, InputGradient(ALL), InputGradient(TEACHER), teacher_labels=labels)
    (chosen,) = answers[InputGradient(TEACHER)].unbind(1)
    # float64; the same linear combination of the same two inner gradients
    torch.testing.assert_close(
        chosen, answers[InputGradient(ALL)][torch.arange(3), labels], rtol=1e-12, atol=0
    )


def test_without_teacher_labels_the_model_is_the_teacher() -> None:
    model = build("bert").double()
    answers = said(model, Logits(), InputGradient(OWN), InputGradient(TEACHER))
    given = said(model, InputGradient(TEACHER), teacher_labels=answers[Logits()].argmax(-1))
    assert torch.equal(answers[InputGradient(OWN)], answers[InputGradient(TEACHER)])
    # float64; one target instead of two makes the einsum add in another order
    torch.testing.assert_close(
        given[InputGradient(TEACHER)], answers[InputGradient(OWN)], rtol=1e-9, atol=1e-15
    )


def left_padded() -> dict[str, Tensor]:
    right = collated()
    shifts = (right["attention_mask"] == 0).sum(1)
    for key in ("input_ids", "attention_mask"):
        right[key] = torch.stack([row.roll(int(k)) for row, k in zip(right[key], shifts, strict=True)])
    return right


@pytest.mark.parametrize(
    ("family", "padded", "positions"),
    [
        ("bert", collated, [0, 0, 0]),
        ("bert", left_padded, [0, 2, 4]),
        ("llama", collated, [6, 4, 2]),
        ("llama", left_padded, [6, 6, 6]),
    ],
)
def test_states_are_those_of_the_token_that_stands_for_the_text(
    family: str, padded: Any, positions: list[int]
) -> None:
    """[CLS] is the first real token; a decoder's head reads the last one; lengths are 7, 5 and 3."""
    model, batch = build(family), Batch.of(padded())
    requests = (ClsStates((1, 3)), InputGradient(OWN), ClsGradient(OWN, (2,)))
    answers = said(model, *requests, batch=batch)
    states = model(**batch.inputs, output_hidden_states=True).hidden_states
    for row, position in enumerate(positions):
        expected = torch.stack([states[k][row, position] for k in (1, 3)])
        torch.testing.assert_close(answers[requests[0]][row], expected, rtol=0, atol=1e-6)  # float32 kernels
    assert answers[requests[2]].shape == (3, 1, 1, 16)
    assert answers[requests[2]].abs().amax((1, 2, 3)).min() > 0


def test_two_labels_say_one_thing() -> None:
    model = build("bert", labels=2)
    answers = said(model, InputGradient(ALL), AttributionScores(ALL))
    first, second = answers[InputGradient(ALL)].unbind(1)
    assert first.abs().max() > 0
    assert torch.equal(first, -second)
    assert torch.equal(*answers[AttributionScores(ALL)].unbind(1))


@pytest.mark.parametrize("kind", ["log_odds", "confidence", "gold_loss"])
def test_input_gradients_equal_finite_differences(kind: str) -> None:
    """Every entry of the embedding output, moved both ways, in float64."""
    model = build("bert", initializer_range=0.2).double()
    target = Target(kind, "gold")
    probe, batch = Probe.find(model), Batch.of(collated(rows=2, tokens=4))
    request = InputGradient(target)
    found = speak(model, probe, batch, [request], create_graph=False)[request][:, 0]
    with torch.no_grad(), probe.tapped(model) as taps:
        model(**batch.inputs)
        step, (embedding,) = 1e-5, taps
        expected = torch.zeros_like(embedding)
        for t in range(embedding.shape[1]):
            for d in range(embedding.shape[2]):
                nudge = torch.zeros_like(embedding)
                nudge[:, t, d] = step  # the rows of a batch do not see each other
                ahead, behind = (
                    target.values(
                        from_embeddings(model, probe, batch, embedding + s * nudge, 1), batch.labels
                    )
                    for s in (1, -1)
                )
                expected[:, t, d] = (ahead - behind)[:, 0] / (2 * step)
    # a central difference is off by step² times a third derivative, and by 1e-16 / step of rounding
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_scores_are_the_lengths_of_integrated_gradients() -> None:
    model = build("bert").double()
    probe, batch = Probe.find(model), Batch.of(collated())
    request = AttributionScores(OWN, steps=4, rule="right_riemann", keep=0.5)
    (found,) = said(model, request).values()
    with probe.tapped(model) as taps:
        own = model(**batch.inputs).logits.argmax(-1)
    attributions = integrated_gradients(
        lambda rows, times: from_embeddings(model, probe, batch, rows, times),
        taps[0], OWN, own, steps=4, rule="right_riemann",
    )  # fmt: skip
    expected = token_scores(attributions, batch.mask.unsqueeze(1), keep=0.5)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)  # float64, the same operations
    assert (found[~batch.mask.unsqueeze(1)] == 0).all()


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
        speak(model, probe, Batch.of(collated()), [AttributionScores(OWN, steps)], create_graph=True)
    assert hooks(model) == before


@pytest.mark.parametrize("trimmed", [False, True])
def test_states_and_attention_are_those_of_the_whole_model(trimmed: bool) -> None:
    """Also where another request alone would let the last block be trimmed."""
    model, batch = build("bert"), Batch.of(collated())
    asked = (States((0, 2, 3)), AttentionVectors("query", (3,)))
    answers = said(model, *asked, *([InputGradient(OWN)] if trimmed else []), batch=batch)
    states = model(**batch.inputs, output_hidden_states=True).hidden_states
    assert torch.equal(answers[asked[0]], torch.stack([states[k] for k in (0, 2, 3)], 1))
    query = model.bert.encoder.layer[2].attention.self.query(states[2])
    assert torch.equal(answers[asked[1]], query.unflatten(-1, (2, 8)).unsqueeze(1))


def test_signed_scores_add_up_the_attributions() -> None:
    model, batch = build("bert"), Batch.of(collated())
    asked = (AttributionScores(OWN, signed=True), InputGradient(OWN))
    answers = said(model, *asked, batch=batch)
    embedding = model.bert.embeddings(batch.inputs["input_ids"]).unsqueeze(1)
    expected = (embedding * answers[asked[1]]).sum(-1) * batch.mask.unsqueeze(1)
    torch.testing.assert_close(answers[asked[0]], expected)


def test_a_projected_view_is_the_signed_sum_of_all() -> None:
    from dataclasses import replace

    from gradistill.training.amortising import drawn_for

    model, batch = build("bert"), Batch.of(collated())
    batch = replace(batch, drawn=drawn_for(batch, 3, 5))
    asked = [InputGradient(Target("logit", view)) for view in ("all", "projected")]
    answers = said(model, *asked, batch=batch)
    expected = torch.einsum("bvtd,bv->btd", answers[asked[0]], batch.drawn.signs).unsqueeze(1)
    torch.testing.assert_close(answers[asked[1]], expected, rtol=1e-5, atol=1e-7)


def test_attention_that_cannot_be_looked_into_is_refused() -> None:
    from gradistill.errors import ModelError

    with pytest.raises(ModelError, match="self-attention of DebertaV2ForSequenceClassification cannot"):
        said(build("deberta_v2"), AttentionVectors("query", (1,)))
