"""Distances of explanations: each equals a naive loop in float64, to 1e-10."""

from __future__ import annotations

import pytest

from gradistill.errors import RecipeError
from gradistill.objectives import ModelFacts, Pair, all_objectives
from objectives.loops import (
    LENGTHS,
    NEAR,
    B,
    C,
    D,
    T,
    V,
    cosine,
    dot,
    measured,
    pair_of,
    softmax,
    squares,
    unit,
)


def test_explanation_similarity() -> None:
    student, teacher = pair_of({"scores": (B, V, T)})
    expected = [
        sum(
            1 - cosine(student["scores"][b, v, :real].tolist(), teacher["scores"][b, v, :real].tolist())
            for v in range(V)
        )
        for b, real in enumerate(LENGTHS)
    ]
    assert measured(all_objectives()["explanation_similarity"](), student, teacher) == pytest.approx(
        expected, **NEAR
    )


@pytest.mark.parametrize("directions", ["tokens", "tokens that matter", "text"])
@pytest.mark.parametrize("confidence", [False, True])
def test_rationale(directions: str, confidence: bool) -> None:
    focus, whole = directions == "tokens that matter", directions == "text"
    shapes = {"scores": (B, V, T), "gradient": (B, V, T, D), "signed": (B, V, T), "logits": (B, C)}
    student, teacher = pair_of(shapes)
    student, teacher = ({**signals, "scores": signals["scores"].abs()} for signals in (student, teacher))
    objective = all_objectives()["rationale"](
        magnitude=2.0,
        direction=3.0,
        sign=0.5,
        focus=focus,
        confidence=confidence,
        unit="text" if whole else "token",
    )
    expected = []
    for b, real in enumerate(LENGTHS):
        total = 0.0
        for v in range(V):
            ours, theirs = (unit(signals["scores"][b, v, :real].tolist()) for signals in (student, teacher))
            apart = [
                squares(
                    unit(student["gradient"][b, v, i].tolist()), unit(teacher["gradient"][b, v, i].tolist())
                )
                for i in range(real)
            ]
            shares = [a**2 for a in theirs] if focus else [1 / real] * real
            texts = [
                unit(signals["gradient"][b, v, :real].flatten().tolist()) for signals in (student, teacher)
            ]
            total += 2 * squares(ours, theirs) + 3 * (squares(*texts) if whole else dot(shares, apart))
            total += 0.5 * (
                1 - cosine(student["signed"][b, v, :real].tolist(), teacher["signed"][b, v, :real].tolist())
            )
        certain = (max(softmax(teacher["logits"][b].tolist())) * C - 1) / (C - 1)
        expected.append(total * (certain if confidence else 1))
    assert measured(objective, student, teacher) == pytest.approx(expected, **NEAR)


def test_tokens_that_matter_are_nothing_to_a_text_of_unit_length() -> None:
    facts = ModelFacts(3, 16, 3, 2, 16)
    with pytest.raises(RecipeError, match=r"(?s)focus.*unit: token"):
        all_objectives()["rationale"](focus=True, unit="text").check(Pair(facts, facts, True))
