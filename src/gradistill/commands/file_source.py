"""A teacher that is a file of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import shown_text
from gradistill.commands.answer_sources import (
    RowsToAnswer,
    Values,
    facts_of_outputs,
)
from gradistill.data import Splits, Task
from gradistill.data.changed_copies import as_texts
from gradistill.data.raw_words import Texts, row_texts
from gradistill.data.teacher_answers import AnswerFile, Answers, TeacherAnswers
from gradistill.errors import DataError, Problem
from gradistill.io import checksum_of
from gradistill.models.facts import ModelFacts
from gradistill.signals import Signal, WordCopyLogits


@dataclass(frozen=True, eq=False)
class FileSource:
    """Answers in files. ``validation`` is the table of validation rows, if it has a file of its own."""

    given: TeacherAnswers
    train: Answers
    validation: Answers | None
    totals: Mapping[str, int]
    notes: dict[str, Any] = field(default_factory=dict)

    kind = "a file of answers"
    predictor = None

    @classmethod
    def of(cls, given: TeacherAnswers, files: Sequence[AnswerFile], splits: Splits) -> FileSource:
        """The source of the given answers. ``files`` are the files of ``given`` after reading."""
        answers = [file.answers(splits.task) for file in files]
        if len(files) == 2 and files[0].labels != files[1].labels:
            raise DataError(
                f"{files[1].table.file} has other columns of answers than {files[0].table.file}.",
                expected="the same labels in the same order",
                remedy="write both files alike",
            )
        totals = {split: len(rows) for split, rows in splits.rows.items()}
        return cls(given, answers[0], answers[1] if len(answers) == 2 else None, totals)

    @property
    def name(self) -> str:
        return str(self.given.file)

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        files = [self.given.file, *([self.given.validation] if self.given.validation else [])]
        return {"teacher": " ".join(checksum_of(Path(file)) for file in files)}

    def values(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        values: Values = {}
        for signal in signals:
            values[signal] = (
                self._of_copies(asked, signal) if isinstance(signal, WordCopyLogits) else self._of_rows(asked)
            )
        return values

    def _of_rows(self, asked: RowsToAnswer) -> dict[int, np.ndarray]:
        numbers, texts = asked.numbers, asked.texts
        places, how = self.train.of_rows("train", numbers, texts, asked.task, total=self.totals["train"])
        if missing := [k for k, place in enumerate(places) if place is None]:
            _refuse_rows(self.train, {numbers[k]: texts[k] for k in missing}, how, "train")
        self.notes["matched"] = how
        return {
            number: self.train.logits[place].astype(np.float32)
            for number, place in zip(numbers, places, strict=True)
            if place is not None
        }

    def _of_copies(self, asked: RowsToAnswer, signal: WordCopyLogits) -> dict[int, np.ndarray]:
        logits: dict[int, list[np.ndarray]] = {}
        missing = []
        for row, number, copy in asked.copies(signal):
            texts = as_texts(copy)
            place = self.train.of_copy(row, texts, number)
            if place is None:
                missing.append(f"copy {number[0]}/{number[1]} of row {row}, {shown_text(texts)}")
            else:
                logits.setdefault(row, []).append(self.train.logits[place].astype(np.float32))
        if missing:
            _refuse_missing(self.train, missing, "by id", "changed copies of rows")
        return {row: np.stack(arrays) for row, arrays in logits.items()}

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions | None:
        of_file = self.validation if split == "validation" else None
        own, answers = of_file is not None, of_file or self.train
        texts, numbers = row_texts(rows, task), list(map(int, rows["index"][:]))
        if not own and answers.order_alone(task):
            return None  # in the order of the training rows
        places, how = answers.of_rows(split, numbers, texts, task, total=self.totals[split])
        missing = [k for k, place in enumerate(places) if place is None]
        if own and missing:
            _refuse_rows(answers, {numbers[k]: texts[k] for k in missing}, how, split)
        if missing:
            return None
        logits = answers.logits[np.array(places, dtype=np.int64)].astype(np.float32)
        return Predictions(logits, multi_label=task.multi_label)


def _refuse_rows(answers: Answers, missing: Mapping[int, Texts], how: str, split: str) -> None:
    rows = [f"row {number}, {shown_text(texts)}" for number, texts in missing.items()]
    _refuse_missing(answers, rows, how, f"{split} rows")


def _refuse_missing(answers: Answers, missing: Sequence[str], how: str, what: str) -> None:
    file = answers.table.file
    remedy = {
        "by id": "write the texts with the same data, method and settings (gradistill signals --write-texts), "
        "and answer every line; an id contains a hash of its text, so ids of other data do not match",
        "by their texts": "have them answered, or take the file of this data",
    }
    raise DataError(
        f"{file} has no answer to {len(missing)} {what}, looked up {how}:",
        problems=[Problem(file, f"no answer to {each}") for each in missing],
        expected="an answer to each",
        remedy=remedy.get(how, "have the unlabelled rows answered too, found by their texts or ids"),
    )
