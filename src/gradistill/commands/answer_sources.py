"""Teachers that read raw texts: a file of answers, a function, a model with another tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor, label_thresholds
from gradistill.data import Task
from gradistill.data.changed_copies import Copy, as_texts
from gradistill.data.raw_words import Texts, row_texts
from gradistill.models.facts import ModelFacts
from gradistill.signals import Logits, Signal, WordCopyLogits

ROWS_AT_ONCE = 1000
"""The number of rows whose changed copies are in memory together."""

Values = dict[Signal, dict[int, np.ndarray]]
"""For each signal, in the layout of a store, one array a row, by row number."""


@dataclass(frozen=True)
class RowsToAnswer:
    """Training rows that a teacher predicts. ``pool`` holds the words that replace others in copies of the rows."""

    rows: Dataset
    task: Task
    pool: Sequence[str]

    @property
    def numbers(self) -> list[int]:
        return list(map(int, self.rows["index"][:]))

    @property
    def texts(self) -> list[Texts]:
        return row_texts(self.rows, self.task)

    def copies(self, signal: WordCopyLogits) -> Iterator[tuple[int, tuple[int, int], Copy]]:
        """All copies of a signal: the row's number, the numbers of set and copy, and the copy itself."""
        for row, texts in zip(self.numbers, self.texts, strict=True):
            for number in range(signal.sets):
                for place, copy in enumerate(signal.copies_of(texts, number, self.pool)):
                    yield row, (number, place), copy


@runtime_checkable
class AnswerSource(Protocol):
    """A teacher that does not need the student: its facts, its signals for training rows, its predictions.

    ``predictor`` is None for a fixed file of answers. ``notes`` go into ``metrics.json``.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def predictor(self) -> Predictor | None: ...

    @property
    def notes(self) -> dict[str, Any]: ...

    def facts(self, task: Task) -> ModelFacts: ...

    def hashes(self) -> dict[str, str]:
        """Hashes that identify the teacher."""
        ...

    def values(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        """The signals of training rows."""
        ...

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions | None:
        """The predictions for other rows; None if the teacher has no answers to them."""
        ...


def facts_of_outputs(task: Task) -> ModelFacts:
    """The facts of a teacher that gives outputs only."""
    return ModelFacts(
        0, 0, task.num_labels, multi_label=task.multi_label, reads_raw_texts=True, outputs_only=True
    )


def predicted_values(predictor: Predictor, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
    """The output signals (``Logits``, ``WordCopyLogits``) that a predictor computes for the rows and their copies."""
    values: Values = {}
    for signal in signals:
        if isinstance(signal, WordCopyLogits):
            values[signal] = {
                row: array for part in _parts(asked) for row, array in _of_copies(predictor, part, signal)
            }
        elif isinstance(signal, Logits):
            logits = _logits(predictor, list(map(Copy, asked.texts)))
            values[signal] = dict(zip(asked.numbers, logits, strict=True))
    return values


def _parts(asked: RowsToAnswer) -> Iterator[RowsToAnswer]:
    for start in range(0, len(asked.rows), ROWS_AT_ONCE):
        part = asked.rows.select(range(start, min(start + ROWS_AT_ONCE, len(asked.rows))))
        yield replace(asked, rows=part)


def _of_copies(
    predictor: Predictor, asked: RowsToAnswer, signal: WordCopyLogits
) -> Iterator[tuple[int, np.ndarray]]:
    logits = _logits(predictor, [copy for _, _, copy in asked.copies(signal)])
    return zip(asked.numbers, logits.reshape(len(asked.rows), -1, logits.shape[1]), strict=True)


def _logits(predictor: Predictor, copies: Sequence[Copy]) -> Float[np.ndarray, "copy label"]:
    """The logits in float32. For a predictor that cannot mask, masks become text."""
    read = copies if predictor.can_mask else [Copy(as_texts(copy)) for copy in copies]
    return predictor.logits(read)[0].astype(np.float32)


def predictions_of(predictor: Predictor, rows: Dataset, task: Task) -> Predictions:
    logits = _logits(predictor, list(map(Copy, row_texts(rows, task))))
    return Predictions(logits, multi_label=task.multi_label, thresholds=label_thresholds(predictor))
