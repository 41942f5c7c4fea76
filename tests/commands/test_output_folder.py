"""A folder is ours by a file that we wrote and that parses; nothing of anybody else's is lost in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradistill import io
from gradistill.bench.plan import read_plan
from gradistill.bench.runner import bench
from gradistill.commands import run_folder
from gradistill.commands.audit import audit
from gradistill.commands.distill import distill
from gradistill.commands.output_folder import MARK, locked_output
from gradistill.commands.pretrain import pretrain
from gradistill.commands.signal_stores import delete
from gradistill.commands.store_signals import store_signals
from gradistill.commands.tune import Tuning, tune
from gradistill.data import DataChoice
from gradistill.demo import run_demo as demonstration
from gradistill.demo.run_demo import demo
from gradistill.errors import GradistillError, RecipeError
from gradistill.recipe import load_recipe
from slow import slow
from small import audit_parts

SMALL_AUDIT = audit_parts(faithfulness_rows=2, perturbed_rows=2)
COMMANDS = ("distill", "pretrain", "audit", "tune", "bench", "signals", "demo")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(name: str, small: Any, tmp_path: Path) -> Callable[[Path], object]:
    """A command that writes into a folder; audits and runs replace what is finished there."""
    teacher, data = str(small.teachers["two"]), small.choice("two")
    recipe = load_recipe("kd", changes=["training.epochs=1", "training.batch_size=8"])
    if name == "audit":
        return lambda at: audit(teacher, [teacher], data, at, SMALL_AUDIT, overwrite=True)
    if name == "tune":
        tuning = Tuning(lambda changes: load_recipe("kd", changes=["training.epochs=1", *changes]), trials=1)
        return lambda at: tune(teacher, data, at, tuning)
    if name == "signals":
        return lambda at: store_signals(teacher, data, at, recipe)
    if name == "demo":
        return lambda at: demo(at, quick=True)
    if name == "pretrain":
        encoder = load_recipe("pretrain", changes=["training.epochs=1", "student.layers=2"])
        rows = [small.tables["two"] / "train.csv"]
        return lambda at: pretrain(teacher, rows, at, encoder, text_columns=("text",), overwrite=True)
    if name == "bench":
        plan = tmp_path / "plan.yaml"
        tasks = {"two": {"data": str(small.tables["two"]), "teacher": teacher}}
        plan.write_text(
            yaml.safe_dump({"tasks": tasks, "methods": ["kd"], "seeds": [0], "predictions": False}),
            encoding="utf-8",
        )
        return lambda at: bench(read_plan(plan), at)
    return lambda at: distill(teacher, data, at, recipe, overwrite=True)


def trainer_folder(at: Path) -> None:
    """What transformers' Trainer leaves behind."""
    for file in (
        "model.safetensors",
        "README.md",
        "config.json",
        "checkpoints/checkpoint-500/model.safetensors",
    ):
        (at / file).parent.mkdir(parents=True, exist_ok=True)
        (at / file).write_text("years of work")


def named_like_ours(at: Path) -> None:
    """Every name that any of our folders has, and nothing that we wrote in it."""
    trainer_folder(at)
    for file in ("recipe.yaml", "metrics.json", "checkpoints/inputs.json", "checkpoints/recipe.yaml", MARK,
                 "audit.json", "audit.html", "bench.yaml", "bench.json", "tune.db", "tune.json", "trials/one",
                 "manifest.json", "building.json", "shard-00000.arrow", "demo.json", "corpus/clean/train.jsonl",
                 "checkpoints/checkpoint-500/whole.json"):  # fmt: skip
        (at / file).parent.mkdir(parents=True, exist_ok=True)
        (at / file).write_text("{}")


def one(name: str, text: str = "{}") -> Callable[[Path], None]:
    def make(at: Path) -> None:
        (at / name).parent.mkdir(parents=True)
        (at / name).write_text(text)

    return make


THEIRS = {
    "trainer": trainer_folder,
    "all names": named_like_ours,
    "recipe": one("recipe.yaml", "base: kd\n"),
    "bench file": one("bench.yaml", "methods: [kd]\n"),
    "checkpoints": lambda at: (at / "checkpoints").mkdir(parents=True),
    "audit": one("audit.json"),
    "metrics": one("metrics.json", '{"accuracy": 0.9}'),
    "metrics of numbers": one("metrics.json", "[1, 2]"),
    "nested too deep": one("metrics.json", "[" * 100_000),
    "database": one("tune.db", "theirs"),
    "manifest": one("manifest.json", '{"name": "a browser extension"}'),
    "plan": one("building.json"),
    "mark that leads out": one(MARK, '{"gradistill": "run", "format": 1, "files": {"../x": "00"}}'),
}


OWN = {
    "audit": "audit",
    "tune": "database",
    "bench": "bench file",
    "signals": "manifest",
    "pretrain": "metrics",
    "demo": "metrics",
}
CASES = [("distill", theirs) for theirs in THEIRS] + [
    (name, theirs) for name in OWN for theirs in ("trainer", "all names", OWN[name])
]


@pytest.mark.parametrize(("name", "theirs"), CASES)
def test_a_folder_that_only_looks_like_ours_is_refused_untouched(
    name: str, theirs: str, small: Any, tmp_path: Path
) -> None:
    at = tmp_path / "proj"
    THEIRS[theirs](at)
    before = content(tmp_path)
    with pytest.raises(GradistillError, match=r"of ours|not a store|is damaged|no finished"):
        command(name, small, at.parent)(at)
    (tmp_path / "plan.yaml").unlink(missing_ok=True)
    assert content(tmp_path) == before
    assert (at / "checkpoints").exists() == (theirs in ("trainer", "all names", "checkpoints"))


@pytest.mark.parametrize("theirs", ["manifest", "plan", "all names"])
def test_signals_delete_removes_no_folder_that_only_looks_like_a_store(theirs: str, tmp_path: Path) -> None:
    THEIRS[theirs](tmp_path / "proj")
    before = content(tmp_path)
    with pytest.raises(GradistillError, match="is no store"):
        delete(tmp_path / "proj")
    assert content(tmp_path) == before


def test_a_recipe_in_the_output_does_not_make_it_ours(small: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("base: kd\ntraining: {epochs: 1}\n", encoding="utf-8")
    (tmp_path / "config.json").write_text("mine")
    before = content(tmp_path)
    recipe = load_recipe(file=tmp_path / "recipe.yaml")
    for overwrite in (False, True):
        with pytest.raises(RecipeError, match="no run of ours: config.json, recipe.yaml"):
            distill(
                str(small.teachers["two"]),
                small.choice("two"),
                tmp_path,
                recipe,
                overwrite=overwrite,
            )
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["distill", slow("pretrain"), slow("audit")])
def test_a_users_file_in_a_finished_folder_survives_overwriting(
    name: str, small: Any, tmp_path: Path
) -> None:
    run, at = command(name, small, tmp_path), tmp_path / "out"
    run(at)
    names = sorted(content(at))
    (at / "notes.md").write_text("mine")
    (at / "figures").mkdir()
    (at / "figures" / "one.png").write_text("mine")
    run(at)
    assert sorted(content(at)) == sorted([*names, "notes.md", "figures/one.png"])
    assert (at / "notes.md").read_text() == (at / "figures" / "one.png").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file"), [("distill", "README.md"), ("pretrain", "config.json"), ("audit", "audit.md")]
)
def test_a_file_that_was_changed_since_is_not_overwritten(
    name: str, file: str, small: Any, tmp_path: Path
) -> None:
    run, at = command(name, small, tmp_path), tmp_path / "out"
    run(at)
    (at / file).write_text("edited for an hour")
    before = content(at)
    with pytest.raises(RecipeError, match=rf"(?s){file} was changed after.*move the file elsewhere"):
        run(at)
    assert content(at) == before
    (at / file).unlink()
    run(at)


def test_checkpoints_of_the_user_in_a_finished_folder_stay(small: Any, tmp_path: Path) -> None:
    run, at = command("distill", small, tmp_path), tmp_path / "out"
    run(at)
    one("checkpoints/checkpoint-500/model.safetensors", "mine")(at)
    before = content(at)
    with pytest.raises(RecipeError, match=r"checkpoints holds files that are no run of ours"):
        run(at)
    assert content(at) == before


def test_a_file_in_the_way_of_a_new_one_is_kept_beside_it(small: Any, tmp_path: Path) -> None:
    """Put there while the run was under way."""
    at = tmp_path / "out"

    def writing(_: str) -> None:
        (at / "README.md").write_text("mine")

    recipe = load_recipe("kd", changes=["training.epochs=1"])
    at.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        put = run_folder.put_in_place
        patch.setattr(run_folder, "put_in_place", lambda *a: (writing(""), put(*a)))
        distill(str(small.teachers["two"]), small.choice("two"), at, recipe)
    assert (at / "README.md.before").read_text() == "mine"
    assert "Loyalty" in (at / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", COMMANDS)
def test_old_folders_without_a_mark_are_still_ours(
    name: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "demo":
        monkeypatch.setattr(demonstration, "packaged_model", lambda: None)
        monkeypatch.setattr(demonstration, "_demo", lambda at, *_: _old_demo(at))
    run, at = command(name, small, tmp_path), tmp_path / "out"
    run(at)
    for mark in at.rglob(MARK):
        mark.unlink()
    names = set(content(at))
    run(at)
    marks = {str(path.relative_to(at)) for path in at.rglob(MARK)}
    assert names - marks <= set(content(at))


def _old_demo(at: Path) -> str:
    (at / "demo.json").write_text('{"seed": 0, "shortcut_rate": 0.9, "models": {}}')
    return ""


class PowerCut(BaseException):
    """A kill: nothing catches it."""


def test_a_kill_at_any_moment_of_the_removal_leaves_a_run_that_the_same_command_tidies(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command("distill", small, tmp_path)
    run(tmp_path / "whole")
    expected = sorted(content(tmp_path / "whole"))
    remove = shutil.rmtree

    def halfway(path: Any, *args: Any, **options: Any) -> None:
        if Path(path).name.endswith("-removed") and (Path(path) / "inputs.json").exists():
            (Path(path) / "inputs.json").unlink()
            raise PowerCut
        remove(path, *args, **options)

    def before(folder: Path) -> None:
        if folder.name == "checkpoints":
            raise PowerCut
        io.discard(folder)

    recipe = load_recipe("kd", changes=["training.epochs=1", "training.batch_size=8"])
    for moment in ("before the rename", "halfway"):
        at = tmp_path / moment.replace(" ", "-") / "out"
        with monkeypatch.context() as patch:
            if moment == "halfway":
                patch.setattr(io.shutil, "rmtree", halfway)
            else:
                patch.setattr(run_folder, "discard", before)
            with pytest.raises(PowerCut):
                run(at)
        assert (at / "metrics.json").is_file()
        assert sorted(content(at)) != expected
        with pytest.raises(RecipeError, match="holds a finished run"):
            distill(str(small.teachers["two"]), small.choice("two"), at, recipe)
        assert sorted(content(at)) == expected
        assert sorted(path.name for path in at.iterdir()) == expected
        run(at)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["inputs cut", "inputs gone", "inputs a list", "recipe gone", "recipe cut", "both"]
)
def test_what_a_run_left_is_read_defensively(
    damage: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradistill.training.trainer import DistillationTrainer

    at, step, done = tmp_path / "out", DistillationTrainer.training_step, list[int]()

    def stopping(self: Any, *args: Any, **options: Any) -> Any:
        done.append(1)
        if len(done) == 4:
            raise PowerCut
        return step(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "training_step", stopping)
        with pytest.raises(PowerCut):
            small.distilled("kd", "two", at, "training.epochs=2")
    work = at / "checkpoints"
    for name in ("inputs.json", "recipe.yaml"):
        file = work / name
        if damage.startswith(name.split(".")[0]) or damage == "both":
            if "list" in damage:
                file.write_text("[1]")
            elif "cut" in damage:
                file.write_bytes(file.read_bytes()[:30] + b"\xff")
            else:
                file.unlink()
    with pytest.raises(RecipeError, match=r"(?s)(inputs.json|recipe.yaml): missing or damaged.*--overwrite"):
        small.distilled("kd", "two", at, "training.epochs=2")
    assert small.distilled("kd", "two", at, "training.epochs=2", overwrite=True)["method"] == "kd"
    assert not work.exists()


def test_two_audits_in_one_folder_at_once_are_refused(small: Any, tmp_path: Path) -> None:
    at = tmp_path / "out"
    with locked_output(at), pytest.raises(RecipeError, match="another process is at work in"):
        command("audit", small, tmp_path)(at)


@pytest.mark.parametrize("name", ["signals", "distill", "audit", "pretrain"])
def test_the_working_folder_can_be_the_output(
    name: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command(name, small, tmp_path)(Path())
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".lock")] == []


@pytest.mark.parametrize("name", ["distill", "audit", "pretrain", "signals", "tune", "bench"])
def test_a_refusal_leaves_no_file_behind(name: str, small: Any, tmp_path: Path) -> None:
    """Of a folder that another process holds, and of one that is refused halfway."""
    at = tmp_path / "new" / "out"
    if name == "tune":
        with pytest.raises(RecipeError):
            tune("x", DataChoice("x"), at, Tuning(lambda _: load_recipe("kd"), trials=None, minutes=None))
    elif name == "bench":
        with pytest.raises(RecipeError), locked_output(at):
            command(name, small, tmp_path)(at)
        (tmp_path / "plan.yaml").unlink()
    else:
        data = tmp_path / "new" / "theirs"
        data.mkdir(parents=True)
        (data / "mine.txt").write_text("mine")
        with pytest.raises(GradistillError):
            command(name, small, tmp_path)(data)
        assert content(tmp_path) == {"new/theirs/mine.txt": b"mine"}
        shutil.rmtree(data.parent)
    assert not any(tmp_path.rglob("*"))


def test_a_run_that_is_refused_before_its_first_checkpoint_leaves_no_folder(
    small: Any, tmp_path: Path
) -> None:
    at = tmp_path / "new" / "run"
    with pytest.raises(GradistillError, match="no intermediate state"):
        small.distilled("pkd", "two", at, "student.layers=1")
    assert list(tmp_path.iterdir()) == []


def test_the_mark_holds_what_was_written(small: Any, tmp_path: Path) -> None:
    at = tmp_path / "out"
    command("distill", small, tmp_path)(at)
    mark = json.loads((at / MARK).read_text(encoding="utf-8"))
    assert mark["gradistill"] == "run"
    assert mark["files"] == {name: io.checksum_of(at / name) for name in content(at) if name != MARK}
