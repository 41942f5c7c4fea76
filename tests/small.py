"""Tiny models and tables, from which whole jobs run in a second or two."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from families import build
from gradistill.commands.audit import AuditChoice
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.data import DataChoice
from gradistill.printing import LOGGER, log_line
from gradistill.recipe import load_recipe
from slow import slow
from wordpiece import tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOD, BAD, PLAIN = (
    ("fine", "great", "lovely"),
    ("awful", "poor", "dull"),
    ("the", "film", "was", "a", "very", "one"),
)
WORDS = (*SPECIAL, *GOOD, *BAD, *PLAIN, ".")
audit_parts = partial(
    AuditChoice,
    faithfulness_rows=0,
    perturbed_rows=0,
    response_rows=0,
    shapley_rows=0,
    expected_gradients_rows=0,
    floor_rows=0,
)
"""What an audit looks at, without the parts that are not named: ``audit_parts(response_rows=4)``."""
KINDS = (slow("two"), "three", "score")
"""Kinds of tasks, as parameters of a test: of classes a pair of texts with three stands for one text with two."""
NAMES = {"two": ("negative", "positive"), "three": ("no", "maybe", "yes"), "score": None}


def texts(kind: str, count: int) -> list[dict[str, Any]]:
    """Rows whose label is the opinion word's: of one text (two), of a pair (three), or a score of a pair."""
    rows: list[dict[str, Any]] = []
    for k in range(count):
        good, word = k % 2, (BAD, GOOD)[k % 2][k % 3]
        first = " ".join(["the film was", *["very"] * (k % 4), word, "."])
        other = f"a {GOOD[k % 3]} one"
        if kind == "two":
            rows.append({"text": first, "label": NAMES["two"][good]})
        elif kind == "three":
            rows.append({"text": first, "other": other, "label": NAMES["three"][k % 3]})
        else:
            rows.append({"text": first, "other": other, "label": 0.5 + 2.0 * good + k % 3})
    return rows


def write_table(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


@contextmanager
def logged(lines: list[str]) -> Iterator[list[str]]:
    """Append to ``lines`` what the package logs inside the block, as the terminal shows it."""

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(log_line(record))

    handler = Keeping()
    LOGGER.addHandler(handler)
    try:
        yield lines
    finally:
        LOGGER.removeHandler(handler)


class Small:
    """What the tests start from. ``tables[kind]`` are data folders, ``base`` a model that knows no task yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        build("bert").bert.save_pretrained(self.base)
        tokenizer(WORDS).save_pretrained(self.base)
        self.tables = {kind: folder / "data" / kind for kind in NAMES}
        for kind, at in self.tables.items():
            write_table(at / "train.csv", texts(kind, 20))
            write_table(at / "validation.csv", texts(kind, 10))
        self.teachers = {kind: self._teacher(kind) for kind in NAMES}

    def choice(self, kind: str) -> DataChoice:
        columns = ("text",) if kind == "two" else ("text", "other")
        return DataChoice(str(self.tables[kind]), label_column="label", text_columns=columns)

    def _teacher(self, kind: str) -> Path:
        at = self.folder / "teachers" / kind
        recipe = load_recipe("finetune", changes=["training.epochs=2", "training.learning_rate=0.02"])
        finetune(str(self.base), self.choice(kind), at, recipe)
        return at

    def distilled(
        self,
        method: str,
        kind: str,
        output: Path,
        *changes: str,
        **options: Any,
    ) -> dict[str, Any]:
        recipe = load_recipe(method, changes=["training.epochs=1", "training.batch_size=8", *changes])
        return distill(str(self.teachers[kind]), self.choice(kind), output, recipe, **options)
