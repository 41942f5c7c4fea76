"""Teachers that read the texts by themselves: a file of answers, a function, a model with another tokenizer."""

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
"""Rows whose changed copies are in memory together."""

Values = dict[Signal, dict[int, np.ndarray]]
"""For each signal, as a store would hold it, an array for each row by its number."""


@dataclass(frozen=True)
class Asked:
    """Training rows that a teacher is to answer; ``pool`` holds words that stand in for others in copies of them."""

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
        """The row, the numbers of set and copy, and the copy, for all of a signal's."""
        for row, texts in zip(self.numbers, self.texts, strict=True):
            for number in range(signal.sets):
                for place, copy in enumerate(signal.copies_of(texts, number, self.pool)):
                    yield row, (number, place), copy


@runtime_checkable
class AnswerSource(Protocol):
    """A teacher that needs nothing of the student: its facts, its signals for training rows, its predictions.

    ``predictor`` is None where it cannot be asked anything new. ``notes`` is what ``metrics.json`` holds of it.
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
        """What identifies it."""
        ...

    def values(self, asked: Asked, signals: Sequence[Signal]) -> Values:
        """The signals of training rows."""
        ...

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions | None:
        """What it predicts for other rows; None where it has no answers to them."""
        ...


def facts_of_outputs(task: Task) -> ModelFacts:
    """The facts of a teacher of which only outputs are known."""
    return ModelFacts(
        0, 0, task.num_labels, multi_label=task.multi_label, reads_raw_texts=True, outputs_only=True
    )


def predicted_values(predictor: Predictor, asked: Asked, signals: Sequence[Signal]) -> Values:
    """Those of the signals that are outputs for whole texts: of the rows, and of changed copies of them."""
    found: Values = {}
    for signal in signals:
        if isinstance(signal, WordCopyLogits):
            found[signal] = {
                row: array for some in _parts(asked) for row, array in _of_copies(predictor, some, signal)
            }
        elif isinstance(signal, Logits):
            logits = _logits(predictor, list(map(Copy, asked.texts)))
            found[signal] = dict(zip(asked.numbers, logits, strict=True))
    return found


def _parts(asked: Asked) -> Iterator[Asked]:
    for start in range(0, len(asked.rows), ROWS_AT_ONCE):
        some = asked.rows.select(range(start, min(start + ROWS_AT_ONCE, len(asked.rows))))
        yield replace(asked, rows=some)


def _of_copies(
    predictor: Predictor, asked: Asked, signal: WordCopyLogits
) -> Iterator[tuple[int, np.ndarray]]:
    logits = _logits(predictor, [copy for _, _, copy in asked.copies(signal)])
    return zip(asked.numbers, logits.reshape(len(asked.rows), -1, logits.shape[1]), strict=True)


def _logits(predictor: Predictor, copies: Sequence[Copy]) -> Float[np.ndarray, "copy label"]:
    """In float32. Masks become text for a predictor that knows none."""
    read = copies if predictor.can_mask else [Copy(as_texts(copy)) for copy in copies]
    return predictor.logits(read)[0].astype(np.float32)


def predictions_of(predictor: Predictor, rows: Dataset, task: Task) -> Predictions:
    logits = _logits(predictor, list(map(Copy, row_texts(rows, task))))
    return Predictions(logits, multi_label=task.multi_label, thresholds=label_thresholds(predictor))
