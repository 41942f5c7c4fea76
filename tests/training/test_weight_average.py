"""The mean of weights at the end of training: what it is of, where it stands, and that it outlives interruptions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer, TrainerCallback

from gradistill.errors import RecipeError, TrainingError
from gradistill.objectives import HardLabel, HiddenStates, Term
from gradistill.recipe import load_recipe
from gradistill.training.arguments import MetricNames, check_training, training_arguments
from gradistill.training.weight_average import FILE, WeightAverage

TERMS = [Term(HardLabel())]
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
OFTEN = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear", "max_steps": 6}


class Noting(TrainerCallback):
    """The weights behind each step; stops training behind the step ``last``."""

    def __init__(self, last: int = -1) -> None:
        self.last = last
        self.weights: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        self.weights.append({name: w.clone() for name, w in rest["model"].state_dict().items()})
        control.should_training_stop = state.global_step == self.last
        return control


def averaged(kit: Any, share: float, *more: TrainerCallback, models: Any = None, **arguments: Any) -> Any:
    """A trainer of six steps."""
    options = {"callbacks": [WeightAverage(share), *more]}
    return kit.trainer(
        TERMS, models or kit.models(**DROPOUT), options=options, **{"max_steps": 6, **arguments}
    )


def mean_of(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name].double() for each in weights]).mean(0) for name in weights[0]}


@pytest.mark.parametrize(("share", "counted"), [(0.4, 2), (0.01, 1), (1.0, 6)])
def test_the_student_ends_as_the_mean_of_its_last_weights(share: float, counted: int, kit: Any) -> None:
    noting = Noting()
    trainer = averaged(kit, share, noting, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    trainer.train()
    wanted = mean_of(noting.weights[-counted:])
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight.double(), wanted[name], rtol=1e-6, atol=1e-8)
    if counted > 1:
        last = noting.weights[-1]["bert.pooler.dense.weight"]
        assert not torch.allclose(wanted["bert.pooler.dense.weight"], last.double(), rtol=1e-4)


def test_a_student_in_bf16_has_a_mean_in_float32(kit: Any) -> None:
    noting = Noting()
    student, teacher = kit.models()
    trainer = averaged(kit, 1.0, noting, models=(student.bfloat16(), teacher), learning_rate=1e-1)
    trainer.train()
    wanted = mean_of(noting.weights)
    for name, weight in student.state_dict().items():
        half_a_unit = 2.0**-8 * 1.001 * wanted[name].abs()  # of the last place: rounded once, at the end
        assert bool(((weight.double() - wanted[name]).abs() <= half_a_unit).all()), name


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kit: Any) -> None:
    """To the last bit, from before the averaged part (steps 4 to 6), within it, and behind its last step. Checkpoints
    hold current weights, and the mean so far."""
    noting = Noting()
    trainer = averaged(kit, 0.5, noting, **OFTEN)
    trainer.train()
    folder = kit.folder / "run"
    for checkpoint in (3, 5, 6):
        again = averaged(kit, 0.5, **OFTEN, output_dir=str(kit.folder / "again"))
        again.train(resume_from_checkpoint=str(folder / f"checkpoint-{checkpoint}"))
        for name, weight in trainer.model.state_dict().items():
            assert torch.equal(weight, again.model.state_dict()[name]), (checkpoint, name)
    assert [(folder / f"checkpoint-{k}" / FILE).is_file() for k in range(1, 7)] == [False] * 3 + [True] * 3
    current, mean = (load_file(folder / "checkpoint-6" / name) for name in ("model.safetensors", FILE))
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(current[name], noting.weights[-1][name]), name
        assert torch.equal(mean[name], weight), name


@pytest.mark.parametrize(("last", "counted"), [(5, 2), (2, 0)])
def test_training_that_stops_early_ends_with_the_mean_so_far(
    last: int, counted: int, kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    noting = Noting(last)
    trainer = averaged(kit, 0.5, noting)
    with caplog.at_level(logging.WARNING, "gradistill"):
        trainer.train()
    wanted = mean_of(noting.weights[-max(counted, 1) :])
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(weight.double(), wanted[name], rtol=1e-6, atol=1e-8)
    assert ("has its last weights, not an average" in caplog.text) == (not counted)


def test_a_second_training_starts_its_mean_anew(kit: Any) -> None:
    noting = Noting()
    trainer = averaged(kit, 0.5, noting, max_steps=2)
    trainer.train()
    trainer.train()
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, noting.weights[3][name]), name


def test_frozen_weights_and_projections_are_no_hindrance(kit: Any) -> None:
    student, teacher = kit.models(frozen=True)
    before = student.bert.embeddings.word_embeddings.weight.clone()
    terms, options = [*TERMS, Term(HiddenStates())], {"callbacks": [WeightAverage(0.5)]}
    kit.trainer(terms, (student, teacher), options=options, **OFTEN).train()
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, before)
    assert "bert.embeddings.word_embeddings.weight" not in load_file(kit.folder / "run/checkpoint-6" / FILE)


def test_a_checkpoint_without_the_mean_is_refused(kit: Any) -> None:
    averaged(kit, 0.5, **OFTEN).train()
    (kit.folder / "run" / "checkpoint-5" / FILE).unlink()
    with pytest.raises(TrainingError, match=r"(?s)step 5 holds the mean of the weights of 0 steps.*of 2"):
        averaged(kit, 0.5, **OFTEN).train(resume_from_checkpoint=str(kit.folder / "run" / "checkpoint-5"))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(TrainingError, match="more than 0, and 1 at most"):
        WeightAverage(share)


def test_the_best_checkpoint_and_the_mean_exclude_each_other(kit: Any) -> None:
    often = {**OFTEN, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    options = {"eval_dataset": kit.rows(3), "callbacks": [WeightAverage(0.5)]}
    with pytest.raises(TrainingError, match="load_best_model_at_end is True with a WeightAverage"):
        kit.trainer(TERMS, options=options, **often)
    trainer = kit.trainer(TERMS, options={"eval_dataset": kit.rows(3)}, **often)
    trainer.add_callback(WeightAverage(0.5))
    with pytest.raises(TrainingError, match="load_best_model_at_end is True with a WeightAverage"):
        trainer.train()


def test_sharded_weights_are_refused(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = averaged(kit, 0.5)
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    monkeypatch.setattr(Trainer, "_inner_training_loop", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(TrainingError, match="FSDP or DeepSpeed is enabled with a WeightAverage"):
        trainer.train()


def test_a_recipe_that_averages_keeps_no_best_checkpoint(tmp_path: Path) -> None:
    measured = MetricNames("accuracy", ("accuracy",))
    for share, best in ((0.0, True), (0.3, False)):
        recipe = load_recipe("kd", changes=[f"training.average_weights={share}"])
        assert training_arguments(recipe.training, tmp_path, measured).load_best_model_at_end is best
    assert load_recipe("kd").training.average_weights == 0
    asked = ["training.average_weights=0.3", "training.arguments.load_best_model_at_end=true"]
    with pytest.raises(
        RecipeError, match=r"load_best_model_at_end is True, and training\.average_weights is"
    ):
        check_training(load_recipe("kd", changes=asked))
