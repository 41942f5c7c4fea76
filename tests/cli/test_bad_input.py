"""Whatever comes in: one message with exit code 2, no traceback, no file left behind, nothing changed.

Inputs are made by hypothesis from good ones. ``GRADISTILL_BAD_INPUTS`` is the number of examples of each kind (default
10); with 400 of them, which are 2,400 inputs, and ``--hypothesis-show-statistics`` it says how many were refused.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from io import BytesIO, StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, currently_in_test_context, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gradistill.cli import main
from gradistill.commands.store_signals import store_signals
from gradistill.commands.training_run import Run
from gradistill.errors import GradistillError
from gradistill.recipe import load_recipe, shipped_methods
from gradistill.recipe.recipe_files import shipped

EXAMPLES = int(os.environ.get("GRADISTILL_BAD_INPUTS", "10"))
many = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=12)
    | st.sampled_from(["", "../..", "nan", "1e999", "null", "adkd", "all", "\x1b[31m", "\u2028", "\ud800"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
ROWS = b"text,label\nfine,positive\npoor,negative\nthe film was great,positive\ndull .,negative\n"


class Accepted(GradistillError):
    """What a run says that was given nothing to complain of: here it ends, before any training."""


@contextmanager
def nothing_trains() -> Iterator[None]:
    def accepted(*_: Any, **__: Any) -> None:
        raise Accepted("accepted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "train", accepted)
        yield


def refused_or_accepted(arguments: list[str], folder: Path) -> str:
    """Type a command and hold it to the rule; what it says."""
    before, out, err = contents(folder), StringIO(), StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), nothing_trains():
        patch.setattr(sys, "argv", ["gradistill", *arguments])
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    printed = err.getvalue()
    assert code == 2, printed
    assert printed.startswith(("error: ", "Usage: ")), printed
    assert "Traceback" not in printed
    assert not [c for c in printed if ord(c) < 32 and c != "\n"], "control characters reach the terminal"
    assert contents(folder) == before
    if currently_in_test_context():
        event("accepted" if printed == "error: accepted\n" else "refused")
    return printed


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        for path in folder.rglob("*")
    }


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """A new empty folder for every example."""
    numbers = count()

    def folder() -> Path:
        at = tmp_path / str(next(numbers))
        at.mkdir()
        return at

    return folder


def distilling(small: Any, at: Path, **changed: object) -> list[str]:
    usual = {
        "teacher": small.teachers["two"], "data": small.tables["two"], "method": "kd", "output": at / "run",
        "label-column": "label", "text-columns": "text", **changed,
    }  # fmt: skip
    return ["distill", *(str(part) for key, value in usual.items() if value for part in (f"--{key}", value))]


def replaced(data: st.DataObject, tree: Any) -> Any:
    """A tree of dicts and lists with one leaf or branch replaced, removed, or a key added."""
    if isinstance(tree, dict) and tree and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(tree, key=str)))
        how = data.draw(st.sampled_from(["into", "into", "into", "remove", "add"]))
        if how == "remove":
            return {k: v for k, v in tree.items() if k != key}
        if how == "add":
            return {**tree, data.draw(st.text(max_size=8)): data.draw(VALUES)}
        return {**tree, key: replaced(data, tree[key])}
    return data.draw(VALUES)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Bytes cut, inserted, replaced or flipped."""
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        to = min(len(content), at + data.draw(st.integers(0, 40)))
        new = data.draw(
            st.binary(max_size=12) | st.sampled_from([b"\0", b'"', b",", b"\n", b"\xff\xfe", b"{", b"\r"])
        )
        content = content[:at] + new + content[to:]
    return content


@given(data=st.data(), method=st.sampled_from(shipped_methods()))
@many
def test_recipes(data: st.DataObject, method: str, small: Any, fresh: Callable[[], Path]) -> None:
    at = fresh()
    if data.draw(st.integers(0, 4)):
        text = yaml.safe_dump(replaced(data, shipped(method)), allow_unicode=False)
    else:
        text = data.draw(st.text(max_size=60))
    (at / "recipe.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused_or_accepted(distilling(small, at, recipe=at / "recipe.yaml", method=None), at)


@given(data=st.data(), ending=st.sampled_from(["csv", "jsonl", "parquet"]))
@many
def test_tables(data: st.DataObject, ending: str, small: Any, fresh: Callable[[], Path]) -> None:
    at = fresh()
    lines = [
        dict(zip(("text", "label"), line.split(","), strict=True)) for line in ROWS.decode().split("\n")[1:-1]
    ]
    good = {
        "csv": ROWS,
        "jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "parquet": parquet(lines),
    }[ending]  # fmt: skip
    for split in ("train", "validation"):
        whole = split == "validation" and data.draw(st.booleans())
        (at / f"{split}.{ending}").write_bytes(good if whole else damaged(data, good))
    refused_or_accepted(distilling(small, at, data=at), at)


def parquet(lines: list[dict[str, str]]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(lines), sink)
    return sink.getvalue()


@given(
    data=st.data(), named=VALUES | st.dictionaries(st.sampled_from(["0", "1", "2", "x"]), SCALARS, max_size=3)
)
@many
def test_label_maps(data: st.DataObject, named: Any, small: Any, fresh: Callable[[], Path]) -> None:
    at = fresh()
    teacher = shutil.copytree(small.teachers["two"], at / "teacher")
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    config[data.draw(st.sampled_from(["id2label", "label2id", "num_labels", "problem_type"]))] = named
    (teacher / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused_or_accepted(distilling(small, at, teacher=teacher), at)


@given(data=st.data())
@many
def test_model_folders(data: st.DataObject, small: Any, fresh: Callable[[], Path]) -> None:
    at = fresh()
    teacher = shutil.copytree(small.teachers["two"], at / "teacher")
    spoil(data, teacher)
    refused_or_accepted(distilling(small, at, teacher=teacher), at)


def spoil(data: st.DataObject, folder: Path) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    file = folder / data.draw(st.sampled_from(names))
    how = data.draw(st.sampled_from(["gone", "damaged", "value", "weights", "pickle"]))
    if how == "gone":
        file.unlink()
    elif how == "damaged":
        file.write_bytes(damaged(data, file.read_bytes()))
    elif how == "value" and file.suffix == ".json":
        tree = replaced(data, json.loads(file.read_text(encoding="utf-8")))
        file.write_text(json.dumps(tree), encoding="utf-8")
    elif how == "pickle":
        (folder / "model.safetensors").unlink()
        (folder / data.draw(st.sampled_from(["pytorch_model.bin", "model.safetensors"]))).write_bytes(
            pickle.dumps({"weights": [1.0]})
        )
    else:
        weights = load_file(folder / "model.safetensors")
        name = data.draw(st.sampled_from(sorted(weights)))
        bad = data.draw(st.sampled_from(["nan", "shape", "type", "gone"]))
        if bad == "gone":
            del weights[name]
        else:
            weights[name] = {
                "nan": weights[name] * float("nan"),
                "shape": torch.zeros(3, 5),
                "type": torch.zeros_like(weights[name], dtype=torch.int64),
            }[bad]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def store(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("store") / "kd"
    store_signals(str(small.teachers["two"]), small.choice("two"), at, load_recipe("kd"))
    return at


@given(data=st.data())
@many
def test_stores(data: st.DataObject, store: Path, fresh: Callable[[], Path]) -> None:
    at = fresh()
    copy = shutil.copytree(store, at / "store")
    file = data.draw(st.sampled_from(sorted(copy.iterdir())))
    content = file.read_bytes()
    how = data.draw(st.sampled_from(["gone", "damaged", "value"]))
    if how == "gone":
        file.unlink()
    elif how == "value" and file.suffix == ".json":
        file.write_text(json.dumps(replaced(data, json.loads(content))), encoding="utf-8")
    else:
        file.write_bytes(damaged(data, content))
        if file.read_bytes() == content:
            return
    refused_or_accepted(["signals", "show", str(copy)], at)


OPTIONS = (
    "--teacher", "--data", "--output", "--method", "--task", "--student", "--student-layers", "--layer-map", "--recipe",
    "--set", "--epochs", "--seed", "--max-train-rows", "--settings", "--label-column", "--text-columns", "--unlabelled",
    "--signals", "--encoding", "--verify", "--overwrite", "--model", "--texts", "--attribution", "--fail-under",
    "--label", "--augment", "--times",
)  # fmt: skip
COMMANDS = (
    "finetune",
    "distill",
    "augment",
    "pretrain",
    "signals",
    "audit",
    "explain",
    "signals show",
    "bench",
)
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=15),
    st.integers(-5, 5).map(str),
    st.sampled_from([
        "kd", "sst2", "1,2", "--", "-1", "nan", "auto", "online", "./nowhere", "training.epochs=0", "a=b=c", "[", "{}",
        "objectives.soft_label.temperature=-1", "student.layers=99", "training.arguments.bf16=maybe", "~", "/dev/null",
    ]),
)  # fmt: skip


@given(
    command=st.sampled_from(COMMANDS),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), WORDS), max_size=5),
    loose=st.lists(WORDS, max_size=2),
)
@many
def test_command_lines(
    command: str,
    options: list[tuple[str, str]],
    loose: list[str],
    fresh: Callable[[], Path],
    small: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = fresh()
    monkeypatch.chdir(at)
    shutil.copytree(small.tables["two"], at / "data")
    typed = [part for option in options for part in option]
    refused_or_accepted([*command.split(), *typed, *loose], at)


@pytest.mark.parametrize("option", ["data", "recipe", "unlabelled", "teacher", "tokenizer", "bench", "texts"])
def test_a_pipe_in_the_place_of_a_file(option: str, small: Any, fresh: Callable[[], Path]) -> None:
    """Nobody writes into it, so whoever opens it waits for ever."""
    at = fresh()
    names = {"data": "train.csv", "unlabelled": "more.csv", "teacher": "teacher/model.safetensors",
             "tokenizer": "teacher/tokenizer_config.json", "texts": "lines.txt"}  # fmt: skip
    pipe = at / names.get(option, "some.yaml")
    teacher = (
        {"teacher": shutil.copytree(small.teachers["two"], at / "teacher")} if "teacher" in str(pipe) else {}
    )
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    named = {"recipe": pipe, "method": None} if option == "recipe" else {option: pipe}
    typed = {
        "bench": ["bench", str(pipe), "--output", str(at / "out")],
        "texts": [
            "pretrain",
            "--teacher",
            str(small.base),
            "--texts",
            str(pipe),
            "--output",
            str(at / "out"),
        ],
    }.get(option) or distilling(small, at, **(teacher or named))
    assert "a pipe (FIFO)" in refused_or_accepted(typed, at)
