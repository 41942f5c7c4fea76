"""Nothing that was made is lost, and nothing that is not ours is touched."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch

from gradistill.bench.runner import BENCH
from gradistill.commands.distill import distill
from gradistill.commands.output_folder import locked_output
from gradistill.commands.run_folder import opened_run
from gradistill.data import DataChoice
from gradistill.errors import DataError, RecipeError, TrainingError
from gradistill.models.loading import load_classifier
from gradistill.recipe import load_recipe
from gradistill.training.checkpoints import seal
from gradistill.training.trainer import DistillationTrainer
from slow import slow
from small import logged
from stand_ins import out_of_memory, raising


class PowerCut(Exception):
    """What an interrupted run ends with."""


def interrupted(
    small: Any,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: int,
    method: str = "adkd",
    changes: Sequence[str] = ("training.epochs=2",),
) -> None:
    """A run of two epochs (3 steps each) that ends in the step after so many."""
    step = DistillationTrainer.training_step
    done: list[int] = []

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(done) == after:
            raise PowerCut
        done.append(1)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "training_step", failing)
        with pytest.raises(PowerCut):
            small.distilled(method, "two", output, *changes)


def weights(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()


def first_epoch_took(checkpoint: Path, *, seconds: float) -> None:
    """Make a checkpoint one of steps that took so long."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text())
    state["stateful_callbacks"]["Stopwatch"]["args"]["earlier"] = seconds
    path.write_text(json.dumps(state))
    seal(checkpoint)


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    whole = small.distilled("adkd", "two", tmp_path / "whole", "training.epochs=2")
    interrupted(small, tmp_path / "cut", monkeypatch, after=4)
    first_epoch_took(tmp_path / "cut/checkpoints/checkpoint-3", seconds=100.0)
    with logged(heard):
        rest = small.distilled("adkd", "two", tmp_path / "cut", "training.epochs=2")
    examples = [run["timing"]["examples_per_s"] * run["timing"]["train_s"] for run in (whole, rest)]
    assert examples[1] == pytest.approx(examples[0], rel=0.05)  # of both processes; all figures are rounded
    assert rest["timing"]["train_s"] > 100  # with what the checkpoint says of the first epoch
    assert any(line.startswith("going on from") and "checkpoint-3" in line for line in heard)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.mark.slow
def test_averaged_weights_outlive_an_interruption(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 3 holds the mean so far: of step 3 alone, of the last four of six."""
    averaged = ("training.epochs=2", "training.average_weights=0.67")
    metrics = small.distilled("kd", "two", tmp_path / "whole", *averaged)
    interrupted(small, tmp_path / "cut", monkeypatch, after=4, method="kd", changes=averaged)
    assert (tmp_path / "cut/checkpoints/checkpoint-3/weight_average.safetensors").is_file()
    again = small.distilled("kd", "two", tmp_path / "cut", *averaged)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert again["eval"] == metrics["eval"]


@pytest.mark.slow
def test_a_half_written_checkpoint_is_passed_over(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.distilled("adkd", "two", tmp_path / "whole", "training.epochs=2")
    interrupted(small, tmp_path / "cut", monkeypatch, after=4)
    whole = tmp_path / "cut" / "checkpoints" / "checkpoint-3"
    half = shutil.copytree(whole, whole.with_name("checkpoint-5"))
    (half / "optimizer.pt").write_bytes((half / "optimizer.pt").read_bytes()[:100])
    heard: list[str] = []
    with logged(heard):
        small.distilled("adkd", "two", tmp_path / "cut", "training.epochs=2")
    assert any(line.startswith("going on from") and "checkpoint-3" in line for line in heard)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_other_rows_or_another_teacher_make_another_run(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(small, tmp_path / "cut", monkeypatch, after=4)
    rows = (small.tables["two"] / "train.csv").read_text(encoding="utf-8")
    data = shutil.copytree(small.tables["two"], tmp_path / "data")
    (data / "train.csv").write_text(rows.replace("fine", "lovely"), encoding="utf-8")
    recipe = load_recipe("adkd", changes=["training.epochs=2", "training.batch_size=8"])
    choice = DataChoice(str(data), label_column="label", text_columns=("text",))
    with pytest.raises(RecipeError, match=r"(?s)other inputs:.*- train: '[0-9a-f]{64}' before"):
        distill(str(small.teachers["two"]), choice, tmp_path / "cut", recipe)
    other = shutil.copytree(small.teachers["two"], tmp_path / "teacher")
    small.distilled("kd", "two", tmp_path / "student", "student.layers=3")
    shutil.copy(tmp_path / "student" / "model.safetensors", other)
    with pytest.raises(RecipeError, match=r"(?s)other inputs:.*- teacher: "):
        distill(str(other), small.choice("two"), tmp_path / "cut", recipe)
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-3").is_dir()


def test_a_second_process_in_the_same_folder_is_refused(small: Any, tmp_path: Path) -> None:
    recipe = load_recipe("kd", changes=["training.epochs=1", "training.batch_size=8"])
    with (
        opened_run(tmp_path / "run", recipe, {}, overwrite=False),
        pytest.raises(RecipeError, match="another process is at work in"),
    ):
        small.distilled("kd", "two", tmp_path / "run")
    assert small.distilled("kd", "two", tmp_path / "run")["method"] == "kd"


def test_a_process_that_is_dying_is_waited_for(tmp_path: Path) -> None:
    dying = locked_output(tmp_path)
    dying.__enter__()
    Timer(0.3, lambda: dying.__exit__(None, None, None)).start()
    with locked_output(tmp_path):
        pass


def test_a_folder_of_others_is_refused_and_one_killed_in_its_first_write_is_not(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / ".gradistill-4711-.gradistill.json").write_text("half")
    with locked_output(begun, BENCH):
        assert [path.name for path in begun.iterdir()] == [".gradistill.json"]
    with locked_output(begun, BENCH):
        pass
    (tmp_path / "photo.jpg").touch()
    with (
        pytest.raises(RecipeError, match="no bench of ours: begun, photo.jpg"),
        locked_output(tmp_path, BENCH),
    ):
        pass


def test_a_run_that_is_replaced_stands_until_the_new_one_has_ended(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    small.distilled("kd", "two", output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "train", lambda *_, **__: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            small.distilled("kd", "two", output, "training.seed=1", overwrite=True)
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before
    small.distilled("kd", "two", output, "training.seed=1", overwrite=True)
    assert weights(output) != before["model.safetensors"]
    assert sorted(path.name for path in output.iterdir()) == sorted(before)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        slow(Exception("No space left on device (os error 28)")),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 1"),
    ],
    ids=["python", "rust", "torch"],
)
def test_a_full_disk_is_reported_and_what_was_saved_stands(
    error: Exception, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = DistillationTrainer.save_model, []

    def full(self: Any, output_dir: str, *args: Any, **kwargs: Any) -> None:
        save(self, output_dir, *args, **kwargs)
        saved.append(output_dir)
        if len(saved) == 2:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "save_model", full)
        with pytest.raises(TrainingError, match=r"(?s)cannot be written: .*it resumes from checkpoint-3"):
            small.distilled("adkd", "two", tmp_path / "run", "training.epochs=2")
    present = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert present == ["checkpoint-3", "inputs.json", "recipe.yaml"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_a_full_memory_is_reported_with_what_to_change(
    error: Exception, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DistillationTrainer, "compute_loss", raising(error))
    with pytest.raises(
        TrainingError, match=r"too small for steps of 8 rows: .*\n(?s:.)*auto_find_batch_size"
    ):
        small.distilled("kd", "two", tmp_path / "run", "training.batch_size=8")


def test_half_a_batch_is_tried_where_memory_is_too_small(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message advises."""
    monkeypatch.setattr(DistillationTrainer, "compute_loss", out_of_memory(lambda rows, step: rows > 4))
    changes = ("training.batch_size=8", "training.arguments.auto_find_batch_size=true")
    assert small.distilled("kd", "two", tmp_path / "run", *changes)["batch_size"] == 4


@pytest.mark.parametrize("left", ["", "inputs.json", ".gradistill-4711-inputs.json"])
def test_a_run_that_was_killed_at_its_very_start_gives_way(left: str, small: Any, tmp_path: Path) -> None:
    begun = tmp_path / "run" / ".gradistill-4711-checkpoints"
    begun.mkdir(parents=True)
    if left:
        (begun / left).write_bytes(b"half")
    assert small.distilled("kd", "two", tmp_path / "run")["method"] == "kd"
    assert not begun.exists()


def test_checkpoints_of_others_are_not_ours(small: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"theirs")
    with pytest.raises(RecipeError, match="no run of ours: checkpoints"):
        small.distilled("kd", "two", tmp_path / "run")


@pytest.mark.slow
def test_a_run_that_was_killed_while_it_ended_ends(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moves that bring what it made into place: the first, one in the middle, and the last."""
    small.distilled("kd", "two", tmp_path / "whole")
    expected = sorted(path.name for path in (tmp_path / "whole").iterdir())
    for after in (0, len(expected) // 2, len(expected) - 1):
        output, moves, replace = tmp_path / str(after) / "run", [], Path.replace

        def failing(
            self: Path, target: Path, moves: Any = moves, after: int = after, replace: Any = replace
        ) -> Path:
            if self.parent.name == "finished":
                if len(moves) == after:
                    raise PowerCut
                moves.append(target)
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing)
            with pytest.raises(PowerCut):
                small.distilled("kd", "two", output)
        assert not (output / "metrics.json").exists()
        small.distilled("kd", "two", output)
        assert sorted(path.name for path in output.iterdir()) == expected
        assert weights(output) == weights(tmp_path / "whole")


def test_an_unfinished_run_of_another_recipe_is_kept(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cut"
    interrupted(small, output, monkeypatch, after=4)
    with pytest.raises(
        RecipeError,
        match=r"(?s)another recipe or other inputs:.*training.epochs: 2.0 before, 1.0 now.*--overwrite to start again",
    ):
        small.distilled("adkd", "two", output)
    assert (output / "checkpoints" / "checkpoint-3").is_dir()
    assert small.distilled("adkd", "two", output, overwrite=True)["method"] == "adkd"


def test_a_run_that_has_saved_nothing_gives_way(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cut"
    interrupted(small, output, monkeypatch, after=1)
    assert small.distilled("kd", "two", output)["method"] == "kd"


def test_a_refused_method_does_not_bar_the_folder(small: Any, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(RecipeError, match="no intermediate state"):
        small.distilled("pkd", "two", output, "student.layers=1")
    assert small.distilled("pkd", "two", output, "student.layers=2")["student"]["layers"] == 2


def test_a_finished_run_is_replaced_only_when_asked(small: Any, tmp_path: Path) -> None:
    output = tmp_path / "run"
    small.distilled("kd", "two", output)
    before = weights(output)
    with pytest.raises(RecipeError, match=r"(?s)holds a finished run.*--overwrite to replace it"):
        small.distilled("kd", "two", output, "training.seed=1")
    assert weights(output) == before
    small.distilled("kd", "two", output, "training.seed=1", overwrite=True)
    assert weights(output) != before


def test_a_run_does_not_overwrite_what_it_reads(small: Any, tmp_path: Path) -> None:
    small.distilled("kd", "two", tmp_path / "teacher")
    before = weights(tmp_path / "teacher")
    choice = DataChoice(str(small.tables["two"]))
    for output in (tmp_path / "teacher", tmp_path):
        with pytest.raises(RecipeError, match="holds .*teacher, which this run reads"):
            distill(str(tmp_path / "teacher"), choice, output, load_recipe("kd"), overwrite=True)
    assert weights(tmp_path / "teacher") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_touched(overwrite: bool, small: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        RecipeError, match=r"(?s)files that are no run of ours: thesis.tex.*choose another --output"
    ):
        small.distilled("kd", "two", tmp_path, overwrite=overwrite)
    with pytest.raises(RecipeError, match=r"(?s)thesis.tex is a file.*a folder for the run"):
        small.distilled("kd", "two", tmp_path / "thesis.tex", overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_bad_rows_are_reported_before_anything_is_written(small: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("text,label\nfine,positive\n,negative\nthe film,\n", encoding="utf-8")
    (data / "validation.csv").write_text("text,label\nfine,positive\npoor,negative\n", encoding="utf-8")
    choice = DataChoice(str(data), label_column="label", text_columns=("text",))
    with pytest.raises(
        DataError, match=r"(?s)train.csv, row 3, column 'text'.*train.csv, row 4, column 'label'"
    ):
        distill(str(small.teachers["two"]), choice, tmp_path / "run", load_recipe("kd"))
    assert not (tmp_path / "run").exists()


def test_the_data_follow_the_teachers_order_of_labels(small: Any, tmp_path: Path) -> None:
    """A teacher whose outputs swap their names is right exactly where the other one is wrong."""
    straight = small.distilled("kd", "two", tmp_path / "straight")
    turned = shutil.copytree(small.teachers["two"], tmp_path / "teacher")
    config = json.loads((turned / "config.json").read_text())
    config |= {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    (turned / "config.json").write_text(json.dumps(config))
    found = distill(str(turned), small.choice("two"), tmp_path / "run", load_recipe("kd"))
    assert found["teacher_eval"]["accuracy"] == pytest.approx(1 - straight["teacher_eval"]["accuracy"])
    student, _ = load_classifier(tmp_path / "run")
    assert list(student.config.id2label.values()) == ["positive", "negative"]


def test_labels_that_the_teacher_does_not_know_are_refused(small: Any, tmp_path: Path) -> None:
    choice = DataChoice(str(small.tables["three"]), label_column="label", text_columns=("text", "other"))
    with pytest.raises(
        DataError, match=r"(?s)2 outputs \(negative, positive\), the data have 3 labels \(maybe, no, yes\)"
    ):
        distill(str(small.teachers["two"]), choice, tmp_path / "run", load_recipe("kd"))
    assert not (tmp_path / "run").exists()
