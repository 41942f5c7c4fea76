"""Strangers' files: nothing is unpickled, none of their code runs, no path leads out; nothing personal is written."""

from __future__ import annotations

import getpass
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from gradistill.commands.audit import AuditChoice, audit
from gradistill.commands.explain import explain
from gradistill.commands.pretrain import pretrain
from gradistill.commands.store_signals import store_signals
from gradistill.commands.tune import Tuning, tune
from gradistill.data import load_splits
from gradistill.errors import GradistillError, StoreError
from gradistill.io import digest
from gradistill.recipe import load_recipe
from gradistill.store.manifest import MANIFEST, Manifest
from gradistill.training.trainer import DistillationTrainer
from small import logged

_heard: list[str] = []
_listening: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "pickle.find_class":
        _heard.append(f"{arguments[0]}.{arguments[1]}")


sys.addaudithook(_hook)  # there is no taking it back; it is silent while nobody listens


@contextmanager
def unpickled() -> Iterator[list[str]]:
    """What any unpickler of Python's looks up inside the block."""
    _heard.clear()
    _listening.append(True)
    try:
        yield _heard
    finally:
        _listening.pop()


def test_the_listener_notices_an_unpickler() -> None:
    with unpickled() as heard:
        pickle.loads(pickle.dumps(Path))
    assert heard == ["pathlib.Path"]


class PowerCut(Exception):
    """What a run is stopped with."""


def test_no_command_unpickles(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole way: teacher, store, a student that is stopped and goes on (optimizer, random states), audit, explain."""
    teacher, data = str(small.teachers["two"]), small.choice("two")
    student = tmp_path / "student"
    step, taken = DistillationTrainer.training_step, []

    def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        if len(taken) == 5:
            raise PowerCut
        return step(self, *args, **kwargs)

    with unpickled() as heard:
        with monkeypatch.context() as patch:
            patch.setattr(DistillationTrainer, "training_step", stopping)
            with pytest.raises(PowerCut):
                small.distilled("adkd", "two", student, "training.epochs=2")
        printed: list[str] = []
        with logged(printed):
            small.distilled("adkd", "two", student, "training.epochs=2")
        store_signals(teacher, data, tmp_path / "store", load_recipe("gkd"))
        audit(
            teacher,
            [str(student)],
            data,
            tmp_path / "audit",
            AuditChoice(faithfulness_rows=2, perturbed_rows=2),
        )
        explain(str(student), ["the film was great ."])
        recipe = load_recipe("pretrain", changes=["training.epochs=1", "student.layers=2"])
        pretrain(
            teacher,
            [small.tables["two"] / "train.csv"],
            tmp_path / "encoder",
            recipe,
            text_columns=("text",),
        )
        searching = Tuning(
            lambda changes: load_recipe("kd", changes=["training.epochs=1", *changes]), trials=1
        )
        tune(teacher, data, tmp_path / "tune", searching)
        tune(teacher, data, tmp_path / "tune", searching)
    assert any("going on from" in line for line in printed)
    assert not heard


def test_no_code_of_a_model_folder_runs(small: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(small.teachers["two"], tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    mark = tmp_path / "it ran"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n", encoding="utf-8"
    )
    with pytest.raises(GradistillError, match="cannot be loaded"):
        explain(str(folder), ["fine"])
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../secret.arrow", "/etc/passwd", "shard-00000.arrow/../../x", "shard-1.arrow\n"]
)
def test_no_path_in_a_store_leads_out_of_its_folder(name: str, small: Any, tmp_path: Path) -> None:
    """With a checksum that fits: anybody can make one."""
    folder = tmp_path / "store"
    store_signals(str(small.teachers["two"]), small.choice("two"), folder, load_recipe("kd"))
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    del content["checksum"]
    content["shards"][0]["file"] = name
    text = json.dumps({**content, "checksum": digest(content)}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="names .* as a shard"):
        Manifest.read(folder)


def test_a_run_folder_names_no_folder_of_this_machine_and_nobody(small: Any, tmp_path: Path) -> None:
    """What people would push: every text in it."""
    small.distilled("adkd", "two", tmp_path / "run", f"student.checkpoint={json.dumps(str(small.base))}")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    for file in (tmp_path / "run").iterdir():
        if file.suffix != ".safetensors" and file.name != "recipe.yaml":
            text = file.read_text(encoding="utf-8")
            assert str(small.folder) not in text, file.name
            assert str(tmp_path) not in text, file.name
            assert f"/{getpass.getuser()}" not in text, file.name


def test_a_data_folder_with_a_script_is_read_as_tables_only(small: Any, tmp_path: Path) -> None:
    data = shutil.copytree(small.tables["two"], tmp_path / "data")
    mark = tmp_path / "it ran"
    (data / "data.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    load_splits(data, label_column="label", text_columns=("text",))
    assert not mark.exists()
