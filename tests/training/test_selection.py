"""The best checkpoint is that with the highest metric or the lowest loss, and a metric that there is not is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback

from gradistill.commands import tune
from gradistill.errors import RecipeError, TrainingError
from gradistill.objectives.hard_label import HardLabel
from gradistill.recipe import load_recipe
from gradistill.training.arguments import MetricNames, check_training, training_arguments
from small import logged

KNOWN = MetricNames("accuracy", ("accuracy", "f1"))


class Noted(TrainerCallback):
    """The losses of the evaluations, and what the Trainer held for the best of them."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.best = 0.0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        self.losses.append(metrics["eval_loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.best = state.best_metric


def made(folder: Path, *changes: str) -> Any:
    settings = load_recipe("kd", changes=[f"training.arguments.{change}" for change in changes]).training
    return training_arguments(settings, folder, KNOWN)


def test_a_run_that_selects_by_the_loss_keeps_the_lowest(small: Any, tmp_path: Path) -> None:
    """With a rate at which the loss falls at first and rises later, or the last would do."""
    noted, printed = Noted(), []
    with logged(printed):
        small.distilled(
            "kd", "two", tmp_path / "run", "training.epochs=6", "training.learning_rate=0.02",
            "training.arguments.metric_for_best_model=eval_loss", "training.arguments.lr_scheduler_type=constant",
            callbacks=[noted]
        )  # fmt: skip
    assert len(noted.losses) == 6
    assert noted.best == min(noted.losses) < max(noted.losses)
    assert "the checkpoint with the lowest loss is kept" in printed


@pytest.mark.parametrize(
    ("metric", "greater"), [("accuracy", True), ("eval_f1", True), ("loss", False), ("eval_loss", False)]
)
def test_the_direction_follows_the_metric(metric: str, greater: bool, tmp_path: Path) -> None:
    assert made(tmp_path, f"metric_for_best_model={metric}").greater_is_better is greater
    with pytest.raises(RecipeError, match=rf"greater_is_better is {not greater}.*worst"):
        made(tmp_path, f"metric_for_best_model={metric}", f"greater_is_better={str(not greater).lower()}")


@pytest.mark.parametrize(("metric", "mode"), [("accuracy", "max"), ("loss", "min")])
def test_a_schedule_that_waits_for_a_metric_waits_for_the_right_direction(
    metric: str, mode: str, tmp_path: Path
) -> None:
    found = made(tmp_path, "lr_scheduler_type=reduce_lr_on_plateau", f"metric_for_best_model={metric}")
    assert found.lr_scheduler_kwargs == {"mode": mode}


def test_a_metric_that_a_run_does_not_compute_is_refused_with_those_that_it_does(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        made(tmp_path, "metric_for_best_model=bogus")
    assert "metric_for_best_model is 'bogus', which this run does not compute" in str(caught.value)
    assert "Known: accuracy, f1, loss" in str(caught.value)
    with pytest.raises(RecipeError, match="'spearman'"):  # known, and not of this task
        made(tmp_path, "metric_for_best_model=spearman")
    assert not any(tmp_path.iterdir())


def test_a_run_with_such_a_metric_reads_nothing_and_leaves_nothing(small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="bogus"):
        small.distilled("kd", "two", tmp_path / "run", "training.arguments.metric_for_best_model=bogus")
    assert not (tmp_path / "run").exists()


def test_without_evaluations_nothing_is_selected(tmp_path: Path) -> None:
    found = made(tmp_path, "eval_strategy=no")
    assert not found.load_best_model_at_end
    with pytest.raises(RecipeError, match="without evaluations there is no best model"):
        made(tmp_path, "eval_strategy=no", "save_strategy=no", "load_best_model_at_end=true")
    recipe = load_recipe("pretrain", changes=["training.arguments.eval_strategy=epoch"])
    with pytest.raises(RecipeError, match="no rows to evaluate on"):
        check_training(recipe, MetricNames())


@pytest.mark.parametrize(
    ("metric", "computed", "known"),
    [("bogus", None, "Known: loss"), ("bogus", {"half": 0.5}, "Known: half, loss")],
)
def test_the_trainer_refuses_a_metric_before_the_first_step(
    metric: str, computed: Any, known: str, kit: Any
) -> None:
    options = {
        "eval_dataset": kit.rows(3),
        "compute_metrics": None if computed is None else lambda _: computed,
    }
    arguments = {"eval_strategy": "epoch", "metric_for_best_model": metric}
    with pytest.raises(TrainingError, match=r"metric_for_best_model is 'bogus'") as caught:
        kit.trainer([HardLabel()], options=options, **arguments)
    assert known in str(caught.value)
    assert not (kit.folder / "run").exists()
    kit.trainer([HardLabel()], options=options, **{**arguments, "metric_for_best_model": "eval_loss"})


@pytest.mark.parametrize(
    ("metric", "greater", "reported"),
    [("accuracy", True, 0.7), ("eval_accuracy", True, 0.7), ("eval_loss", False, -0.3)],
)
def test_a_search_stops_the_worse_trials_whatever_the_metric(
    metric: str, greater: bool, reported: float
) -> None:
    """Optuna maximises, so it is given a loss with its sign changed."""
    given: list[float] = []
    trial = SimpleNamespace(report=lambda value, step: given.append(value), should_prune=lambda: False)
    arguments = SimpleNamespace(metric_for_best_model=metric, greater_is_better=greater)
    pruning = tune._Pruning(None, trial, on=True)
    pruning.on_evaluate(
        arguments, SimpleNamespace(epoch=1.0), None, metrics={"eval_accuracy": 0.7, "eval_loss": 0.3}
    )
    assert given == [reported]
