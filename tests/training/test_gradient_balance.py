"""The first batch shows whether a gradient objective drowns the predictions."""

from __future__ import annotations

import logging
import re
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from gradistill.objectives import HardLabel, HiddenStates, Rationale, SoftLabel, Term
from gradistill.training import gradient_balance
from gradistill.training.gradient_balance import DROWNS, LOOKED_AT, GradientBalance

pytestmark = pytest.mark.usefixtures("unchecked")


def terms(weight: float) -> list[Term]:
    return [Term(HardLabel(), 0.3), Term(SoftLabel(), 0.7), Term(Rationale(), weight)]


def trained(kit: Any, weight: float) -> tuple[dict[str, Tensor], list[float]]:
    """The weights, and the trainer's own ratios of the steps that are looked at, by the rule ``log``."""
    weights, ratios = [], list[float]()
    for options in ({}, kit.rule("log")):
        student, teacher = kit.models()
        trainer = kit.trainer(terms(weight), (student, teacher), max_steps=12, options=options)
        trainer.train()
        weights.append(student.state_dict())
        ratios = [log.get("gradient_norm_ratio", 0.0) for log in trainer.state.log_history]
    return weights[0], [ratios[step] for step in LOOKED_AT]


def test_the_median_ratio_is_warned_of_once_and_nothing_else_changes(
    kit: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger=gradient_balance.__name__)
    _, ratios = trained(kit, 1e-2)
    assert median(ratios) < DROWNS
    assert not caplog.messages
    weights, ratios = trained(kit, 1e3)
    (message,) = caplog.messages  # under the rule log the two are apart: nothing to warn of
    (ratio,) = re.findall(r"the gradient of rationale is (\d+) times", message)
    assert float(ratio) == pytest.approx(median(ratios), rel=0.05)
    assert float(ratio) > DROWNS
    assert "try a tenth of objectives.rationale.weight, or compute.gradient_conflict: cap" in message
    monkeypatch.setattr(GradientBalance, "compare", lambda *_: None)
    for name, weight in trained(kit, 1e3)[0].items():
        assert torch.equal(weight, weights[name]), name


def test_no_gradient_objective_or_no_predictions_is_nothing_to_compare(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=gradient_balance.__name__)
    for some in (
        [Term(SoftLabel(), 1e-6), Term(HiddenStates(), 1e6)],
        [Term(Rationale(), 1e6)],
        [Term(SoftLabel(), 0.0), Term(Rationale(), 1e6)],
    ):
        kit.trainer(some, kit.models(), max_steps=12).train()
    assert not caplog.messages


def test_a_run_that_goes_on_looks_at_the_steps_that_are_left() -> None:
    balance = GradientBalance()
    assert [step for step in (3, 3, 4, 5, 6, 12, 13) if balance.wants(step)] == [3, 5, 12]
