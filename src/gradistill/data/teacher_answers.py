"""Files of a teacher's answers: probabilities, log-probabilities, votes or labels, for rows and for copies of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gradistill.data.cell_checks import is_missing, known_list, number, shown
from gradistill.data.file_readers import LISTED, ending_of, read_file
from gradistill.data.probabilities import logits_of, probability_faults
from gradistill.data.raw_words import Texts
from gradistill.data.table import Table, with_fields
from gradistill.data.tasks import Task, label_key
from gradistill.errors import DataError, Problem

PREFIXES = {"logit_": "log-probabilities", "probability_": "probabilities", "votes_": "votes"}
"""The prefix of a label's column, and the kind of its numbers. The first prefix that a file has is used."""
SCORES, LABELS = ("predicted_score", "score"), ("predicted_label", "label")
"""Names of the column of scores, and of labels, in a file without numbers for each label."""
ID = "id"
_ID = re.compile(r"(?P<row>[a-z]+/\d+(?:/\d+/\d+)?)-(?P<mark>[0-9a-f]{8})")
_REMEDY = "correct these rows of the file, and start again"


@dataclass(frozen=True)
class TeacherAnswers:
    """Files of answers that replace a teacher (docs/teachers.md).

    ``file`` is for the training rows, ``validation`` for the validation rows if ``file`` does not hold them.

    Example: ``distill(TeacherAnswers("answers.csv"), "DATA/mrpc", "runs/student", recipe)``
    """

    file: str | Path
    validation: str | Path | None = None


def row_id(split: str, row: int, texts: Texts, copy: tuple[int, int] | None = None) -> str:
    """The id of a row in a file of answers, or of a ``copy`` (the number of its set, and its own number).

    It ends with a hash of the texts, so that answers to other texts are detected.

    Example: ``row_id("train", 17, ("a fine film",))``
    """
    mark = blake2b("\x1f".join(texts).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{split}/{row}{'' if copy is None else f'/{copy[0]}/{copy[1]}'}-{mark}"


@dataclass(frozen=True, eq=False)
class AnswerFile:
    """One file of answers, read but not yet checked.

    ``kind`` is what its ``columns`` hold. These are the names of columns by label; for labels and scores, the only one
    by its own name.
    """

    table: Table
    kind: str
    columns: Mapping[str, str]

    @classmethod
    def read(cls, file: str | Path) -> AnswerFile:
        """Read a file. Raises DataError if it cannot be read, or has no columns of answers."""
        path = Path(file)
        if ending_of(path) is None:
            raise DataError(f"{path} is no file of answers.", expected=LISTED, remedy="name such a file")
        table = read_file(path)
        if table.problems or not table.columns:
            raise DataError(
                f"The answers in {path} cannot be read.", problems=table.problems, remedy="correct the file"
            )
        for prefix, kind in PREFIXES.items():
            if columns := {n.removeprefix(prefix): n for n in table.columns if n.startswith(prefix)}:
                return cls(table, kind, columns)
        for names, kind in ((SCORES, "scores"), (LABELS, "labels")):
            for name in names:
                if name in table.columns:
                    return cls(table, kind, {name: name})
        raise DataError(
            f"{path} has no column of answers: {known_list(tuple(table.columns))}",
            expected="probability_<label>, logit_<label> or votes_<label> for every label; predicted_label; or "
            "predicted_score in a regression",
            remedy="name the columns so; gradistill predict writes them",
        )

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels that have a column each; None if the answers are labels or scores."""
        return tuple(self.columns) if self.kind in PREFIXES.values() else None

    def answers(self, task: Task) -> Answers:
        """The answers as logits over the labels of ``task``. Raises DataError with every row at fault.

        The columns must be in the order of the task's labels already (``align_labels``).
        """
        self._refuse_other_task(task)
        if self.kind == "labels":
            return Answers(self.table, self.kind, self._of_labels(task))
        values = self._numbers()
        if self.kind == "votes":
            values = self._shares(values)
        elif self.kind == "probabilities":
            self._refuse(probability_faults(values, multi_label=task.multi_label), values)
        known = self.kind in ("probabilities", "votes")
        logits = logits_of(values, multi_label=task.multi_label) if known else values
        return Answers(self.table, self.kind, logits)

    def _refuse_other_task(self, task: Task) -> None:
        scores = task.labels is None
        if scores != (self.kind == "scores") or (task.multi_label and self.kind in ("votes", "labels")):
            kinds = {"scores": "scores", "classes": "one label", "multi_label": "several labels"}
            expected = (
                "a column predicted_score" if scores else "a column probability_<label> for every label"
            )
            raise DataError(
                f"{self.table.file} holds {self.kind}, and the data have {kinds[task.kind]} a row.",
                expected=expected,
                remedy="name the columns so, or take the answers of this task",
            )

    def _numbers(self) -> Float[np.ndarray, "record label"]:
        problems, columns = [], []
        for name in self.columns.values():
            cells = self.table.columns[name]
            values = [number(cell) for cell in cells]
            problems += [
                self.table.problem(k, _fault(cells[k], value), name)
                for k, value in enumerate(values)
                if value is None or not np.isfinite(value)
            ]
            columns.append(values)
        self._raise(problems)
        return np.array(columns, dtype=np.float64).T

    def _shares(self, votes: Float[np.ndarray, "record label"]) -> Float[np.ndarray, "record label"]:
        sums = votes.sum(axis=1, keepdims=True)
        negative, none = (np.asarray(f) for f in ((votes < 0).any(axis=1), sums[:, 0] <= 0))
        self._refuse({"are below 0": negative, "hold no vote": none & ~negative}, votes)
        return votes / sums

    def _of_labels(self, task: Task) -> Float[np.ndarray, "record label"]:
        (column,) = self.columns.values()
        places = {label_key(label): place for place, label in enumerate(task.labels or ())}
        cells = self.table.columns[column]
        label_ids = [places.get(label_key(cell)) for cell in cells]
        known = known_list(task.labels or ())
        self._raise(
            self.table.problem(k, f"{shown(cells[k])} is none of the labels {known}", column)
            for k, place in enumerate(label_ids)
            if place is None
        )
        return logits_of(np.eye(task.num_labels)[np.array(label_ids, dtype=np.int64)])

    def _refuse(self, faults: Mapping[str, np.ndarray], values: np.ndarray) -> None:
        first = next(iter(self.columns.values()))
        self._raise(
            self.table.problem(
                int(k), f"the {self.kind} {', '.join(f'{v:.4g}' for v in values[k])} {what}", first
            )
            for what, faulty in faults.items()
            for k in np.flatnonzero(faulty)
        )

    def _raise(self, problems: Any) -> None:
        if ordered := sorted(problems, key=lambda problem: problem.row or 0):
            raise DataError(
                f"{len(ordered)} answers in {self.table.file} cannot be used:",
                problems=ordered,
                remedy=_REMEDY,
            )


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one file as logits ``(record, label)``, float64, and the table that matches them with rows."""

    table: Table
    kind: str
    logits: np.ndarray

    def of_rows(
        self, split: str, rows: Sequence[int], texts: Sequence[Texts], task: Task, *, total: int
    ) -> tuple[list[int | None], str]:
        """The record of each of the ``rows``, None where there is none, and how records and rows were matched.

        They are matched by ``id`` (``row_id``), else by the texts if the file has the task's columns, else by their
        order if there are as many records as ``total`` rows of the split. Raises DataError if none of these applies,
        and for two records of one row that differ.
        """
        if self._ids is not None:
            return [self._ids.get(row_id(split, *each)) for each in zip(rows, texts, strict=True)], "by id"
        if (by_texts := self._by_texts(task)) is not None:
            return [by_texts.get(row) for row in texts], "by their texts"
        if len(self.logits) == total:
            return [row if row < total else None for row in rows], "by their order"
        raise DataError(
            f"{self.table.file} holds {len(self.logits)} answers, and there are {total} {split} rows.",
            expected=f"an answer for every row in the order of the data, or columns to find them by: "
            f"{', '.join(task.text_columns)}, or {ID} as gradistill signals --write-texts writes it",
            remedy="add the columns of the texts to the file",
        )

    def order_alone(self, task: Task) -> bool:
        """Whether only the order of the answers shows which rows they belong to."""
        return self._ids is None and self._by_texts(task) is None

    def of_copy(self, row: int, texts: Texts, copy: tuple[int, int]) -> int | None:
        """The record of a changed copy of a training row; None if there is none."""
        return None if self._ids is None else self._ids.get(row_id("train", row, texts, copy))

    @cached_property
    def _ids(self) -> dict[str, int] | None:
        cells = self.table.columns.get(ID)
        if cells is None or not all(isinstance(cell, str) and _ID.fullmatch(cell) for cell in cells):
            return None
        return self._once((str(cell) for cell in cells), ID)

    def _by_texts(self, task: Task) -> dict[Texts, int] | None:
        table = with_fields(self.table, task.text_columns)
        if not all(name in table.columns for name in task.text_columns):
            return None
        columns = [
            ["" if is_missing(c) else str(c) for c in table.columns[name]] for name in task.text_columns
        ]
        return self._once(zip(*columns, strict=True), task.text_columns[0])

    def _once(self, keys: Iterator[Any], column: str) -> dict[Any, int]:
        """The first record of each key. Raises DataError if another record with the same key differs from it."""
        records: dict[Any, int] = {}
        problems: list[Problem] = []
        for place, key in enumerate(keys):
            first = records.setdefault(key, place)
            if first != place and not np.array_equal(self.logits[first], self.logits[place]):
                problems.append(
                    self.table.problem(place, f"another answer than in row {self.table.lines[first]}", column)
                )
        if problems:
            raise DataError(
                f"{len(problems)} answers in {self.table.file} contradict others:",
                problems=problems,
                remedy="keep one answer for each",
            )
        return records


def _fault(cell: Any, value: float | None) -> str:
    if is_missing(cell):
        return "no answer"
    return f"{shown(cell)} is no number" if value is None else f"{shown(cell)} is not finite"
