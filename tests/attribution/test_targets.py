"""Targets against closed forms and against what they replace."""

from __future__ import annotations

import math

import pytest
import torch

from gradistill.attribution.targets import Target
from gradistill.batch import RandomDraws
from gradistill.errors import RecipeError

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [1.0, 1.5, -0.5]], dtype=torch.float64)


def naive(kind: str, z: list[float], c: int) -> float:
    p = [math.exp(x) / sum(math.exp(y) for y in z) for x in z]
    return {
        "log_odds": math.log(p[c] / (1 - p[c])),
        "label_nll": -math.log(p[c]),
        "gold_loss": -math.log(p[c]),
        "confidence": p[c],
        "logit": z[c],
        "margin": z[c] - max(x for k, x in enumerate(z) if k != c),
    }[kind]


@pytest.mark.parametrize("kind", ["log_odds", "label_nll", "confidence", "logit", "margin"])
def test_every_label_equals_the_definition(kind: str) -> None:
    values = Target(kind, "all").values(LOGITS, None)
    for row, z in enumerate(LOGITS.tolist()):
        for c in range(3):
            assert values[row, c].item() == pytest.approx(naive(kind, z, c), abs=1e-12)


@pytest.mark.parametrize("kind", ["log_odds", "label_nll", "confidence", "gold_loss", "logit", "margin"])
def test_one_view_picks_the_gold_label(kind: str) -> None:
    target = Target(kind, "gold")
    at = target.resolve(LOGITS, torch.tensor([2, 0]), None)
    values = target.values(LOGITS, at)
    expected = [[naive(kind, LOGITS[0].tolist(), 2)], [naive(kind, LOGITS[1].tolist(), 0)]]
    assert values.tolist() == [pytest.approx(row, abs=1e-12) for row in expected]


def test_views_resolve_to_own_teacher_and_gold_labels() -> None:
    gold, teacher = torch.tensor([1, 0]), torch.tensor([0, 2])
    assert Target("log_odds", "own").resolve(LOGITS, gold, teacher).tolist() == [2, 1]
    assert Target("log_odds", "teacher").resolve(LOGITS, gold, teacher).tolist() == [0, 2]
    assert Target("log_odds", "gold").resolve(LOGITS, gold, teacher).tolist() == [1, 0]
    assert Target("log_odds", "all").resolve(LOGITS, gold, teacher) is None
    drawn = RandomDraws(torch.tensor([0, 1]), torch.tensor([2, 1]), torch.ones(2, 3))
    assert Target("log_odds", "sampled").resolve(LOGITS, gold, teacher, drawn).tolist() == [2, 1]


def test_regression_is_the_prediction_or_its_squared_error() -> None:
    score, gold = torch.tensor([[2.0], [3.0]]), torch.tensor([1.0, 5.0])
    for kind in ("log_odds", "confidence", "logit", "margin"):
        target = Target(kind, "own")
        assert torch.equal(target.values(score, target.resolve(score, gold, None)), score)
    target = Target("gold_loss", "gold")
    assert target.values(score, target.resolve(score, gold, None)).tolist() == [[1.0], [4.0]]


def test_log_odds_do_not_saturate_where_the_others_do() -> None:
    """At a margin of 60, p = 1 − 1e-26: float32 knows no difference to 1, and the log-odds still have slope 1."""
    for kind, slope in (("log_odds", 1.0), ("confidence", 0.0), ("label_nll", 0.0)):
        logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
        Target(kind, "all").values(logits, None)[0, 0].backward()
        assert abs(logits.grad[0, 0].item()) == pytest.approx(slope, abs=1e-20)


def test_second_derivatives_of_all_targets() -> None:
    for kind in ("log_odds", "label_nll", "confidence", "margin"):
        torch.autograd.gradgradcheck(
            lambda z, kind=kind: Target(kind, "all").values(z, None), LOGITS.clone().requires_grad_()
        )


def test_what_cannot_be_is_refused_with_a_way_out() -> None:
    with pytest.raises(RecipeError, match=r"label_nll.*regression(.|\n)*set target: log_odds"):
        Target("label_nll", "all").check(1)
    with pytest.raises(RecipeError, match="gold_loss(.|\n)*set view: gold"):
        Target("gold_loss", "all").check(3)
    with pytest.raises(RecipeError, match="needs the gold labels, and there are none"):
        Target("log_odds", "gold").resolve(LOGITS, None, None)
    for what in (
        lambda target: target.resolve(LOGITS, None, None),
        lambda target: target.sampling_factor(None),
    ):
        with pytest.raises(RecipeError, match="needs drawn labels(.|\n)*training"):
            what(Target("log_odds", "sampled"))
    with pytest.raises(RecipeError, match="gold_loss(.|\n)*set view: gold"):
        Target("gold_loss", "sampled").check(3)
