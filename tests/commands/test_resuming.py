"""A run that goes on is the run that was begun: it ends as one that was not stopped, or is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback

from gradistill import distill
from gradistill.commands import run_folder
from gradistill.commands.signal_stores import AUTO, StoreChoice
from gradistill.commands.task_run import TaskRun
from gradistill.data import DataChoice
from gradistill.errors import RecipeError, TrainingError
from gradistill.recipe import load_recipe
from gradistill.training.trainer import DistillationTrainer
from slow import slow
from small import logged, write_table
from stand_ins import out_of_memory

RISING = (
    "training.epochs=3", "training.learning_rate=0.05", "training.arguments.lr_scheduler_type=constant",
    "training.arguments.metric_for_best_model=loss",
)  # fmt: skip
"""With these the first checkpoint of three is the best one."""


class PowerCut(BaseException):
    pass


class CutAt(TrainerCallback):
    """Ends the process right behind the checkpoint of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self.step:
            raise PowerCut


def cut(make: Any) -> None:
    with pytest.raises(PowerCut):
        make()


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal(folder: Path, other: Path) -> None:
    theirs = student(other)
    for name, tensor in student(folder).items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_best_checkpoint_is_found_where_the_folder_is_now(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved, or named from another working directory: a checkpoint holds the path of the best one."""
    small.distilled("kd", "two", tmp_path / "whole", *RISING)
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["eval"]

    def power_cut(*_: Any, **__: Any) -> None:
        raise PowerCut

    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(TaskRun, "evaluate", power_cut)
        cut(lambda: small.distilled("kd", "two", Path("named"), *RISING))
        cut(lambda: small.distilled("kd", "two", tmp_path / "here", *RISING))
    shutil.move(tmp_path / "here", tmp_path / "moved")
    small.distilled("kd", "two", tmp_path / "moved", *RISING)
    assert_equal(tmp_path / "moved", tmp_path / "whole")
    os.chdir("b")
    small.distilled("kd", "two", Path("../named"), *RISING)
    assert_equal(tmp_path / "a" / "named", tmp_path / "whole")


def test_a_best_checkpoint_that_is_gone_is_named(small: Any, tmp_path: Path) -> None:
    cut(lambda: small.distilled("kd", "two", tmp_path / "run", *RISING, callbacks=[CutAt(6)]))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-3")
    with pytest.raises(
        TrainingError, match="checkpoint-3, the best checkpoint so far, is missing or damaged"
    ):
        small.distilled("kd", "two", tmp_path / "run", *RISING)


def test_the_best_evaluation_has_a_checkpoint(small: Any, tmp_path: Path) -> None:
    """Evaluated at every step and saved at every fourth: the best one is saved too."""
    seen: list[tuple[float, int]] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            seen.append((given["metrics"]["eval_loss"], state.global_step))

    changes = (
        *RISING, "training.epochs=2.66", "training.learning_rate=0.2", "training.arguments.eval_strategy=steps",
        "training.arguments.save_strategy=steps", "training.arguments.eval_steps=1",
    )  # fmt: skip
    every_fourth = (*changes, "training.arguments.save_steps=4")
    small.distilled("kd", "two", tmp_path / "run", *every_fourth, callbacks=[Watch()])
    best = min(seen)
    assert best[1] % 4, "the best one lies between two saves"
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["eval"]
    small.distilled("kd", "two", tmp_path / "alone", *changes, "training.arguments.save_steps=1")
    assert json.loads((tmp_path / "alone" / "metrics.json").read_text())["eval"] == found
    assert_equal(tmp_path / "run", tmp_path / "alone")


class End(TrainerCallback):
    """The step at which training ended."""

    step = 0

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step = state.global_step


@pytest.mark.parametrize("at", [slow(6), 9], ids=["before the stop", "with it"])
def test_the_patience_of_an_early_stop_goes_on(at: int, small: Any, tmp_path: Path) -> None:
    def run(name: str, *more: TrainerCallback) -> int:
        end = End()
        small.distilled(
            "kd", "two", tmp_path / name, *RISING, "training.epochs=6",
            callbacks=[*more, EarlyStoppingCallback(2), end],
        )  # fmt: skip
        return end.step

    cut(lambda: run("cut", CutAt(at)))
    assert run("cut") == run("whole") == 9
    assert_equal(tmp_path / "cut", tmp_path / "whole")


def teacher_of_tails(texts: list[str]) -> np.ndarray:
    """A function that reads what lies behind the student's cut."""
    return np.array([[0.9, 0.1] if text.endswith("dull") else [0.1, 0.9] for text in texts])


def table_with_tails(folder: Path, small: Any, tail: str) -> DataChoice:
    folder.mkdir(exist_ok=True)
    for split in ("train", "validation"):
        lines = (small.tables["two"] / f"{split}.csv").read_text().splitlines()[1:]
        end = tail if split == "train" else "fine"
        rows = [line.rsplit(",", 1) for line in lines]
        write_table(
            folder / f"{split}.csv",
            [{"text": f"{text} very very very very very {end}", "label": label} for text, label in rows],
        )
    return DataChoice(str(folder), label_column="label", text_columns=("text",))


def test_texts_that_the_teacher_alone_reads_are_part_of_a_run(small: Any, tmp_path: Path) -> None:
    recipe = load_recipe(
        "kd",
        changes=[
            "training.epochs=2", "training.batch_size=8", "training.max_length=8",
            f"student.checkpoint={small.base}",
        ],
    )  # fmt: skip
    data = table_with_tails(tmp_path / "data", small, "fine")
    cut(lambda: distill(teacher_of_tails, data, tmp_path / "run", recipe, callbacks=[CutAt(3)]))
    table_with_tails(tmp_path / "data", small, "dull")
    with pytest.raises(RecipeError, match=r"(?s)other inputs:\n  - texts: "):
        distill(teacher_of_tails, data, tmp_path / "run", recipe)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"signals": StoreChoice("online")}, "teacher signals: 'int8' before, 'online' now"),
        slow({"signals": StoreChoice(encoding="float32")}, "teacher signals: 'int8' before, 'float32' now"),
        ({"positive": "negative"}, "best checkpoint by: 'f1 of positive' before, 'f1 of negative' now"),
        ({"processes": 2}, "processes: '1' before, '2' now"),
    ],
)
def test_what_no_recipe_holds_is_compared_too(
    changed: dict[str, Any], named: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(
        "gkd",
        changes=[
            "training.epochs=2", "training.batch_size=8", "training.arguments.metric_for_best_model=f1",
        ],
    )  # fmt: skip

    def run(callbacks: Any = (), *, positive: str = "positive", signals: StoreChoice = AUTO) -> Any:
        data = DataChoice(
            str(small.tables["two"]), label_column="label", text_columns=("text",), positive=positive
        )
        return distill(
            str(small.teachers["two"]),
            data,
            tmp_path / "run",
            recipe,
            callbacks=callbacks,
            signals=signals,
        )

    cut(lambda: run([CutAt(3)]))
    begun = tmp_path / "run" / "checkpoints" / run_folder.INPUTS
    if "processes" in changed:
        held = json.loads(begun.read_text())
        begun.write_text(json.dumps({**held, "processes": "2"}))
        named, changed = "processes: '2' before, '1' now", {}
    with pytest.raises(RecipeError, match=rf"(?s)other inputs:\n  - {named}"):
        run(**changed)


def test_a_run_that_an_earlier_version_began_goes_on(small: Any, tmp_path: Path) -> None:
    """It did not write down what it was made under."""
    cut(lambda: small.distilled("kd", "two", tmp_path / "run", "training.epochs=2", callbacks=[CutAt(3)]))
    begun = tmp_path / "run" / "checkpoints" / run_folder.INPUTS
    held = json.loads(begun.read_text())
    for name in ("processes", "best checkpoint by", "teacher signals"):
        del held[name]
    begun.write_text(json.dumps(held))
    assert small.distilled("kd", "two", tmp_path / "run", "training.epochs=2")["method"] == "kd"


def test_each_size_that_is_tried_begins_anew(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the third step, once the first steps have been taken and a checkpoint written."""
    changes = ("training.epochs=2", "training.learning_rate=0.05")
    monkeypatch.setattr(DistillationTrainer, "compute_loss", out_of_memory(lambda rows, step: step == 5))
    found = small.distilled(
        "tinybert", "two", tmp_path / "tried", *changes, "training.arguments.auto_find_batch_size=true"
    )
    monkeypatch.undo()
    assert found["batch_size"] == 7
    alone = small.distilled("tinybert", "two", tmp_path / "alone", *changes, "training.batch_size=7")
    assert "batch_size" not in alone
    assert_equal(tmp_path / "tried", tmp_path / "alone")


def test_a_size_that_shrinks_after_a_restart_is_recorded(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("training.epochs=2", "training.arguments.auto_find_batch_size=true")
    cut(lambda: small.distilled("kd", "two", tmp_path / "run", *changes, callbacks=[CutAt(3)]))
    monkeypatch.setattr(DistillationTrainer, "compute_loss", out_of_memory(lambda rows, step: step == 1))
    assert small.distilled("kd", "two", tmp_path / "run", *changes)["batch_size"] == 7


def test_a_size_of_the_arguments_is_no_lack_of_memory(small: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    with logged(lines):
        found = small.distilled(
            "kd", "two", tmp_path / "run", "training.arguments.per_device_train_batch_size=4",
            "training.arguments.auto_find_batch_size=true",
        )  # fmt: skip
    assert "batch_size" not in found
    text = "\n".join(lines)
    assert "memory" not in text
    assert "per_device_train_batch_size 4 overrides training.batch_size 8" in text
