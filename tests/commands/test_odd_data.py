"""Rows that are few, short, long or all alike, and a student that says nothing: runs end, with finite figures."""

from __future__ import annotations

import csv
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gradistill.commands.distill import distill
from gradistill.data import DataChoice, read_splits
from gradistill.recipe import load_recipe
from slow import slow
from small import logged

GRADIENTS = (slow("gkd"), "gkd_cls", "adkd", "rationale", slow("jacobian"), slow("e2kd"))
GOOD, BAD = ("the film was great .", "positive"), ("the film was dull .", "negative")
SPLITS: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "one row": ([GOOD], [BAD]),
    "one word": ([("great", "positive"), ("dull", "negative")] * 4, [("great", "positive"), ("dull", "negative")]),
    "one label": ([GOOD, ("a lovely one", "positive")] * 4, [GOOD, BAD]),
    "the same text": ([GOOD] * 9, [GOOD, BAD]),
}  # fmt: skip


def written(folder: Path, train: list[tuple[str, str]], validation: list[tuple[str, str]]) -> DataChoice:
    folder.mkdir()
    for name, rows in (("train", train), ("validation", validation)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("sentence", "label"), *rows])
    return DataChoice(str(folder), task="sst2")


def run(
    teacher: Path, choice: DataChoice, at: Path, method: str, *changes: str
) -> tuple[dict[str, Any], list[str]]:
    printed: list[str] = []
    recipe = load_recipe(method, changes=["training.epochs=1", "training.batch_size=4", *changes])
    with logged(printed):
        return distill(str(teacher), choice, at, recipe), printed


def figures(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [figure for branch in tree.values() for figure in figures(branch)]
    return [tree] if isinstance(tree, float) else []


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        *product(("kd",), SPLITS),
        *(slow("rationale", rows) for rows in SPLITS),
        ("gkd_cls", "one row"),
        ("adkd", "one word"),
    ],
)
def test_few_short_and_equal_rows(method: str, rows: str, small: Any, tmp_path: Path) -> None:
    choice = written(tmp_path / "data", *SPLITS[rows])
    metrics, _ = run(small.teachers["two"], choice, tmp_path / "run", method, "student.layers=2")
    assert all(map(math.isfinite, figures({k: metrics[k] for k in ("eval", "teacher_eval", "loyalty")})))
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in student.state_dict().values())


def test_texts_over_the_limit_are_counted(small: Any, tmp_path: Path) -> None:
    long = (" ".join(["the film was very very"] * 10), "positive")
    choice = written(tmp_path / "data", [GOOD, long, long, BAD], [GOOD, long])
    _, printed = run(small.teachers["two"], choice, tmp_path / "run", "adkd", "training.max_length=16")
    told = [line for line in printed if "are cut at 16 tokens" in line]
    assert [line.split(" texts ")[0] for line in told] == ["train: 2 of 4", "validation: 1 of 2"]
    assert "the longest has 52" in told[0]


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_student_and_a_teacher_that_predict_one_thing(method: str, small: Any, tmp_path: Path) -> None:
    """Heads of zeros: every input gradient is zero, and so is every map."""
    silent = tmp_path / "teacher"
    teacher = AutoModelForSequenceClassification.from_pretrained(small.teachers["two"])
    with torch.no_grad():
        teacher.classifier.weight.zero_()
    teacher.save_pretrained(silent)
    AutoTokenizer.from_pretrained(small.teachers["two"]).save_pretrained(silent)
    metrics, _ = run(silent, small.choice("two"), tmp_path / "run", method, "student.layers=2")
    assert all(map(math.isfinite, figures(metrics["loyalty"])))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["loyalty"]["saliency"]["n"] > 0


def test_columns_of_a_frame_may_be_numbers() -> None:
    frame = pd.DataFrame([[f"text {k}", ("no", "yes")[k % 2]] for k in range(6)])
    choice = DataChoice(frame, text_columns=(0,), label_column=1)  # pyright: ignore[reportArgumentType]
    splits = read_splits(choice, splits=("train",))
    assert (splits.task.text_columns, splits.label_column) == (("0",), "1")
