"""What a model says is right: against other ways to the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from computed import computed, path_of, run_of
from families import build, collated
from gradistill.attribution.normalization import token_scores
from gradistill.attribution.quadrature import integrated_gradients
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
    States,
    compute_signals,
)

ALL, OWN, TEACHER = (Target("log_odds", view) for view in ("all", "own", "teacher"))


def test_the_teachers_view_is_that_of_the_labels_given() -> None:
    model = build("bert").double()
    labels = torch.tensor([2, 0, 1])
    answers = computed(model, InputGradient(ALL), InputGradient(TEACHER), teacher_labels=labels)
    (chosen,) = answers[InputGradient(TEACHER)].unbind(1)
    # float64; the same linear combination of the same two inner gradients
    torch.testing.assert_close(
        chosen, answers[InputGradient(ALL)][torch.arange(3), labels], rtol=1e-12, atol=0
    )


def test_without_teacher_labels_the_model_is_the_teacher() -> None:
    model = build("bert").double()
    answers = computed(model, Logits(), InputGradient(OWN), InputGradient(TEACHER))
    given = computed(model, InputGradient(TEACHER), teacher_labels=answers[Logits()].argmax(-1))
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
        ("qwen3", collated, [6, 4, 2]),
        ("qwen3", left_padded, [6, 6, 6]),
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
    answers = computed(model, *requests, batch=batch)
    states = model(**batch.inputs, output_hidden_states=True).hidden_states
    for row, position in enumerate(positions):
        expected = torch.stack([states[k][row, position] for k in (1, 3)])
        torch.testing.assert_close(answers[requests[0]][row], expected, rtol=0, atol=1e-6)  # float32 kernels
    assert answers[requests[2]].shape == (3, 1, 1, 16)
    assert answers[requests[2]].abs().amax((1, 2, 3)).min() > 0


def test_two_labels_have_one_view() -> None:
    model = build("bert", labels=2)
    answers = computed(model, InputGradient(ALL), AttributionScores(ALL))
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
    found = compute_signals(model, probe, batch, [request], create_graph=False)[request][:, 0]
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
                        run_of(model, probe, batch)(embedding + s * nudge, torch.arange(len(batch))),
                        batch.labels,
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
    (found,) = computed(model, request).values()
    with probe.tapped(model) as taps:
        own = model(**batch.inputs).logits.argmax(-1)
    path = path_of(run_of(model, probe, batch), taps[0], OWN, own)
    attributions = integrated_gradients(path, steps=4, rule="right_riemann")
    expected = token_scores(attributions, batch.mask.unsqueeze(1), keep=0.5)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)  # float64, the same operations
    assert (found[~batch.mask.unsqueeze(1)] == 0).all()


@pytest.mark.parametrize("trimmed", [False, True])
def test_states_and_attention_are_those_of_the_whole_model(trimmed: bool) -> None:
    """Also where another request alone would let the last block be trimmed."""
    model, batch = build("bert"), Batch.of(collated())
    asked = (States((0, 2, 3)), AttentionVectors("query", (3,)))
    answers = computed(model, *asked, *([InputGradient(OWN)] if trimmed else []), batch=batch)
    states = model(**batch.inputs, output_hidden_states=True).hidden_states
    assert torch.equal(answers[asked[0]], torch.stack([states[k] for k in (0, 2, 3)], 1))
    query = model.bert.encoder.layer[2].attention.self.query(states[2])
    assert torch.equal(answers[asked[1]], query.unflatten(-1, (2, 8)).unsqueeze(1))


def test_signed_scores_add_up_the_attributions() -> None:
    model, batch = build("bert"), Batch.of(collated())
    asked = (AttributionScores(OWN, signed=True), InputGradient(OWN))
    answers = computed(model, *asked, batch=batch)
    embedding = model.bert.embeddings(batch.inputs["input_ids"]).unsqueeze(1)
    expected = (embedding * answers[asked[1]]).sum(-1) * batch.mask.unsqueeze(1)
    torch.testing.assert_close(answers[asked[0]], expected)


def test_a_projected_view_is_the_signed_sum_of_all() -> None:
    from dataclasses import replace

    from gradistill.training.lazy_terms import drawn_for

    model, batch = build("bert"), Batch.of(collated())
    batch = replace(batch, drawn=drawn_for(batch, 3, 5))
    asked = [InputGradient(Target("logit", view)) for view in ("all", "projected")]
    answers = computed(model, *asked, batch=batch)
    expected = torch.einsum("bvtd,bv->btd", answers[asked[0]], batch.drawn.signs).unsqueeze(1)
    torch.testing.assert_close(answers[asked[1]], expected, rtol=1e-5, atol=1e-7)


def test_attention_that_cannot_be_looked_into_is_refused() -> None:
    from gradistill.errors import ModelError

    with pytest.raises(ModelError, match="self-attention of DebertaV2ForSequenceClassification cannot"):
        computed(build("deberta_v2"), AttentionVectors("query", (1,)))
