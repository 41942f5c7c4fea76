"""Terms that run on every k-th step: what runs when, how heavy it is, and what it changes elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gradistill.errors import RecipeError, TrainingError
from gradistill.models.probe import Probe
from gradistill.objectives import Term
from gradistill.objectives.attribution_map import AttributionMap
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.soft_label import SoftLabel
from slow import slow
from small import logged

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
Moved = Callable[..., dict[str, Tensor]]

pytestmark = pytest.mark.usefixtures("unchecked")


def lazily(every: int, weight: float = 1.0) -> list[Term]:
    return [Term(HardLabel()), Term(AttributionMap(), weight, every=every)]


def losses(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_a_term_that_never_runs_is_refused(kit: Any) -> None:
    student, model = kit.models()
    for start, refused in ((0.5, True), (0.0, False)):
        terms = [Term(HardLabel()), Term(AttributionMap(), every=100, start=start)]
        raising = pytest.raises(
            TrainingError, match="attribution_map would never run: every 100 steps, from 50%"
        )
        with raising if refused else nullcontext():
            kit.trainer(terms, (student, model), max_steps=7, options={"teacher_facts": Probe.find(model)})


@pytest.mark.parametrize(
    ("size", "accumulated", "dropped"),
    [(5, 1, True), (5, 1, False), (3, 2, True), (2, 3, True), (3, 1, True)],
)
def test_the_steps_are_those_that_are_trained(size: int, accumulated: int, dropped: bool, kit: Any) -> None:
    """Eight rows: a last batch that is dropped makes no step."""
    trainer = kit.trainer(
        [HardLabel()], max_steps=-1, num_train_epochs=1, per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated, dataloader_drop_last=dropped,
    )  # fmt: skip
    counted = trainer._steps()
    trainer.train()
    assert counted == trainer.state.global_step


@pytest.mark.parametrize(("every", "warned"), [(100, True), (7, False)])
def test_one_turn_that_is_heavier_than_its_stage_gets_a_warning(every: int, warned: bool, kit: Any) -> None:
    student, model = kit.models()
    terms = [Term(HardLabel()), Term(AttributionMap(), every=every)]
    with logged([]) as lines:
        kit.trainer(terms, (student, model), max_steps=7, options={"teacher_facts": Probe.find(model)})
    assert any(f"runs every {every} steps, and its stage has 7" in line for line in lines) is warned


def test_on_other_steps_nothing_is_computed(kit: Any, graphs: list[int]) -> None:
    """Seven steps of two accumulated batches, every third: the steps 0, 3 and 6, both batches of each."""
    student, model = kit.models()
    teacher = kit.noting(model)
    trainer = kit.trainer(
        [*lazily(3), Term(SoftLabel())], (student, teacher), max_steps=7, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, options={"teacher_facts": Probe.find(model)},
    )  # fmt: skip
    trainer.train()
    on = {"Logits", "AttributionScores"}
    assert teacher.asked == [on if step % 3 == 0 else {"Logits"} for step in range(7) for _ in range(2)]
    assert graphs == [2] * 6


def test_a_teacher_of_lazy_terms_only_is_left_alone_between_them(kit: Any) -> None:
    student, model = kit.models()
    teacher = kit.noting(model)
    options = {"teacher_facts": Probe.find(model)}
    kit.trainer(lazily(2), (student, teacher), max_steps=4, options=options).train()
    assert len(teacher.asked) == 2


@pytest.mark.parametrize("checkpoint", [slow(1), 2, slow(3)])
def test_a_resumed_run_keeps_the_rhythm(checkpoint: int, kit: Any, graphs: list[int]) -> None:
    found, counts = [], []
    for resume in (None, str(kit.folder / "run" / f"checkpoint-{checkpoint}")):
        models = kit.models(**DROPOUT)
        trainer = kit.trainer(
            lazily(3), models, max_steps=6, save_strategy="steps", save_steps=1, lr_scheduler_type="linear"
        )
        graphs.clear()
        trainer.train(resume_from_checkpoint=resume)
        counts.append(len(graphs))
        found.append({name: tensor.clone() for name, tensor in models[0].state_dict().items()})
    assert counts == [2, 1]
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name


def test_it_is_k_times_as_heavy_when_it_runs(kit: Any, moved: Moved) -> None:
    found = []
    for term in (Term(AttributionMap(), 1.5, every=4), Term(AttributionMap(), 6.0)):
        models = tuple(model.double() for model in kit.models())
        found.append(moved(kit.trainer([Term(HardLabel()), term], models, sgd=True, max_steps=1)))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_the_log_holds_means_over_the_steps_on_which_it_ran(kit: Any) -> None:
    runs = {}
    for logging_steps in (1, 4):
        trainer = kit.trainer(lazily(4, weight=3.0), max_steps=8, logging_steps=logging_steps)
        trainer.train()
        runs[logging_steps] = losses(trainer)
    each, grouped = runs[1], runs[4]
    assert [k for k, logs in enumerate(each) if "raw/attribution_map" in logs] == [0, 4]
    for k, logs in enumerate(grouped):
        of_steps = each[4 * k : 4 * k + 4]
        hard = sum(step["raw/hard_label"] for step in of_steps) / 4
        # float32
        assert logs["raw/hard_label"] == pytest.approx(hard, rel=1e-5)
        assert logs["raw/attribution_map"] == pytest.approx(of_steps[0]["raw/attribution_map"], rel=1e-5)
        assert logs["weighted/attribution_map"] == pytest.approx(3 * logs["raw/attribution_map"], rel=1e-5)
        # over a whole period the weighted terms add up to the loss, because the term is as much heavier as rarer
        total = logs["weighted/hard_label"] + logs["weighted/attribution_map"]
        assert logs["loss"] == pytest.approx(total, rel=1e-5)


def groups(trainer: Any) -> list[tuple[float, Any]]:
    """Peak learning rate and betas of each group of the optimizer."""
    return [(group["initial_lr"], group.get("betas")) for group in trainer.optimizer.param_groups]


@pytest.mark.parametrize("every", [slow(1), 4, slow(16)])
def test_adam_is_corrected_once(every: int, kit: Any) -> None:
    """Karras et al. 2020: rate times c, betas to the power c, c = k/(k + 1), here of the largest k."""
    c = every / (every + 1) if every > 1 else 1.0
    expected = (pytest.approx(1e-2 * c, rel=1e-12), pytest.approx((0.9**c, 0.999**c), rel=1e-12))
    terms = [*lazily(every), Term(SoftLabel(), every=min(every, 2))]
    trainer = kit.trainer(terms, save_strategy="steps", save_steps=1)
    trainer.train()
    assert groups(trainer) == [expected] * 2
    assert losses(trainer)[0]["learning_rate"] == expected[0]
    trainer.train()
    assert groups(trainer) == [expected] * 2
    resumed = kit.trainer(terms)
    resumed.train(resume_from_checkpoint=str(kit.folder / "run/checkpoint-1"))
    assert groups(resumed) == [expected] * 2


def test_an_optimizer_that_is_no_adam_or_not_ours_is_not_touched(kit: Any) -> None:
    models = kit.models()
    given = torch.optim.AdamW(models[0].parameters(), lr=1e-3)
    handed_in = kit.trainer(lazily(4), models, options={"optimizers": (given, None)})
    chosen = (torch.optim.AdamW, {"lr": 1e-3})
    by_class = kit.trainer(
        lazily(4), options={"optimizer_cls_and_kwargs": chosen, "optimizers": (None, None)}
    )
    plain = kit.trainer(lazily(4), optim="sgd")
    for trainer in (handed_in, by_class, plain):
        trainer.train()
    assert groups(handed_in) == [(1e-3, (0.9, 0.999))]
    assert groups(by_class) == [(1e-3, (0.9, 0.999))] * 2
    assert groups(plain) == [(1e-2, None)] * 2


def test_steps_on_which_nothing_runs_are_refused(kit: Any) -> None:
    with pytest.raises(RecipeError, match=r"attribution_map runs every 4 steps(.|\n)*every: 1"):
        kit.trainer([Term(AttributionMap(), every=4), Term(SoftLabel(), every=2)])


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_a_rhythm_is_a_positive_whole_number(every: Any) -> None:
    with pytest.raises(ValidationError, match="every"):
        replace(Term(HardLabel()), every=every)
