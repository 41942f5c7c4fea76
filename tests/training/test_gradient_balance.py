"""Early batches show whether a gradient objective drowns the predictions, and it is warned of or capped."""

from __future__ import annotations

import logging
import re
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gradistill.objectives import AttributionMap, HardLabel, HiddenStates, Rationale, SoftLabel, Term
from gradistill.training import gradient_conflict
from gradistill.training.gradient_balance import DROWNING_RATIO, GradientBalance
from slow import slow

pytestmark = pytest.mark.usefixtures("unchecked")
COMPARED = (0, 5, 10)
SMALL, LARGE = 1e-2, 1e3
"""Weights of ``rationale`` with which the predictions count, and are drowned."""


def terms(weight: float) -> list[Term]:
    return [Term(HardLabel(), 0.3), Term(SoftLabel(), 0.7), Term(Rationale(), weight)]


def trained(kit: Any, rule: str, weight: float = LARGE, **arguments: Any) -> Any:
    """The trainer behind its 14 steps of Adam, with dropout."""
    models = kit.models(hidden_dropout_prob=0.1)
    arguments = {"max_steps": 14, "learning_rate": 1e-3, **arguments}
    trainer = kit.trainer(terms(weight), models, options=kit.rule(rule), **arguments)
    trainer.train()
    return trainer


def ratios(trainer: Any) -> list[float]:
    """Those that a trainer logs under a rule that takes both gradients apart."""
    return [
        logs["gradient_norm_ratio"] for logs in trainer.state.log_history if "gradient_norm_ratio" in logs
    ]


def assert_equal_weights(one: Any, other: Any) -> None:
    others = other.model.state_dict()
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, others[name]), name


def test_without_a_rule_the_median_ratio_is_warned_of_once_and_no_weight_changes(
    kit: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, logger=gradient_conflict.__name__)
    for weight in (SMALL, LARGE):
        logged = ratios(trained(kit, "log", weight))
        wanted = median(logged[step] for step in COMPARED)
        caplog.clear()  # under the rule log nothing is warned of, and nothing compared
        trainer = trained(kit, "off", weight)
        assert trainer.gradient_balance["ratio"] == pytest.approx(wanted, rel=0.05)
        assert trainer.gradient_balance["capped_from_step"] is None
        if weight == SMALL:
            assert wanted < DROWNING_RATIO
            assert not caplog.messages
    (message,) = caplog.messages
    (ratio,) = re.findall(r"the gradient of rationale is (\d+) times", message)
    assert float(ratio) == pytest.approx(wanted, rel=0.05)
    assert "try a tenth of objectives.rationale.weight, or compute.gradient_conflict: auto" in message
    monkeypatch.setattr(GradientBalance, "due", lambda *_: False)
    assert_equal_weights(trainer, trained(kit, "off"))


def test_auto_is_off_where_the_predictions_count(kit: Any) -> None:
    trainers = [trained(kit, rule, SMALL) for rule in ("off", "auto")]
    assert_equal_weights(*trainers)
    assert trainers[1].gradient_balance["capped_from_step"] is None
    assert not ratios(trainers[1])


@pytest.mark.parametrize("accumulated", [1, slow(2)])
def test_auto_caps_from_the_step_behind_the_last_comparison(
    accumulated: int, kit: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a training that is off for eleven steps, and then goes on from its checkpoint under cap."""
    caplog.set_level(logging.WARNING, logger=gradient_conflict.__name__)
    options = {
        "gradient_accumulation_steps": accumulated,
        "per_device_train_batch_size": 4 // accumulated,
    }
    trainer = trained(kit, "auto", **options)
    (message,) = caplog.messages
    assert "at most 1 times as long (compute.gradient_conflict: auto)" in message
    assert trainer.gradient_balance["capped_from_step"] == 11
    assert len(ratios(trainer)) == 14 - 11
    kit.folder /= "other"
    trained(kit, "off", **options, save_strategy="steps", save_steps=11)
    models = kit.models(hidden_dropout_prob=0.1)
    other = kit.trainer(
        terms(LARGE), models, options=kit.rule("cap"), max_steps=14, learning_rate=1e-3, **options
    )
    other.train(resume_from_checkpoint=str(kit.folder / "run" / "checkpoint-11"))
    assert_equal_weights(trainer, other)


@pytest.mark.parametrize("checkpoint", [slow(3), 9, slow(12)])
def test_a_run_that_goes_on_is_capped_as_one_that_was_not_interrupted(checkpoint: int, kit: Any) -> None:
    """Stopped before the second comparison, before the last, and behind it."""
    whole = trained(kit, "auto", save_strategy="steps", save_steps=checkpoint)
    models = kit.models(hidden_dropout_prob=0.1)
    other = kit.trainer(terms(LARGE), models, options=kit.rule("auto"), max_steps=14, learning_rate=1e-3)
    other.train(resume_from_checkpoint=str(kit.folder / "run" / f"checkpoint-{checkpoint}"))
    assert other.gradient_balance == whole.gradient_balance
    assert_equal_weights(whole, other)


def test_no_gradient_objective_or_no_predictions_is_nothing_to_compare(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=gradient_conflict.__name__)
    for some in (
        [Term(SoftLabel(), 1e-6), Term(HiddenStates(), 1e6)],
        [Term(Rationale(), 1e6)],
        [Term(SoftLabel(), 0.0), Term(Rationale(), 1e6)],
    ):
        for rule in ("off", "auto"):
            trainer = kit.trainer(some, kit.models(), max_steps=12, options=kit.rule(rule))
            trainer.train()
            assert trainer.gradient_balance is None
    assert not caplog.messages


def test_a_term_that_runs_rarely_is_compared_as_one_that_always_runs(kit: Any) -> None:
    """It is as many times heavier on its steps as it is rarer: one of them was taken for all."""
    found = []
    for every in (1, 5):
        term = Term(Rationale(), 0.5, every=every)
        trainer = kit.trainer([Term(SoftLabel()), term], kit.models(), max_steps=1, options=kit.rule("off"))
        trainer.train()
        found.append(trainer.gradient_balance["ratios"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("checkpoint", [slow(None), 12])
def test_an_objective_of_a_later_stage_is_compared_too(checkpoint: int | None, kit: Any) -> None:
    options = {"max_steps": 30, "learning_rate": 1e-4, "save_strategy": "steps", "save_steps": 12}
    staged = [Term(SoftLabel()), Term(Rationale(), 1e-3, end=0.5), Term(AttributionMap(), LARGE, start=0.5)]
    trainer = kit.trainer(staged, kit.models(), options=kit.rule("auto"), **options)
    trainer.train()
    assert trainer.gradient_balance["capped_from_step"] == 15 + 11
    if checkpoint:
        other = kit.trainer(staged, kit.models(), options=kit.rule("auto"), **options)
        other.train(resume_from_checkpoint=str(kit.folder / "run" / f"checkpoint-{checkpoint}"))
        assert other.gradient_balance == trainer.gradient_balance
        assert_equal_weights(trainer, other)


def test_steps_are_five_apart_whichever_is_the_first() -> None:
    plane = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    balance = GradientBalance()
    compared = []
    for step in (3, 3, 4, 7, 8, 16, 16, 21, 40):
        if balance.due(step, ["rationale"]):
            compared.append(step)
            balance.compare(step, plane.sum(), 200 * plane.sum(), [plane], ALONE)
    assert compared == [3, 8, 16]
    assert balance.drowning_ratio == balance.ratio == pytest.approx(200)


ALONE: Any = SimpleNamespace(reduce=lambda norms, _: norms)


def test_processes_agree_by_the_mean_of_their_norms() -> None:
    """Those of this process and of another, whose norms are 1 and 900."""

    def reduce(norms: Tensor, kind: str) -> Tensor:
        assert kind == "mean"
        return (norms + torch.tensor([1.0, 900.0])) / 2

    plane = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    balance, accelerator = GradientBalance(), SimpleNamespace(reduce=reduce)
    balance.compare(0, 3 * plane[0], 100 * plane[1], [plane], accelerator)  # pyright: ignore[reportArgumentType]
    assert balance.ratio == pytest.approx((100 + 900) / (3 + 1))


def test_steps_on_which_a_gradient_is_0_or_not_finite_count_for_nothing() -> None:
    plane = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    balance = GradientBalance()
    for predictions, objectives in ((0.0, 500.0), (2.0, 500.0), (float("inf"), 500.0), (2.0, 0.0)):
        balance.compare(0, predictions * plane.sum(), objectives * plane.sum(), [plane], ALONE)
    assert balance.ratios == pytest.approx([250])
