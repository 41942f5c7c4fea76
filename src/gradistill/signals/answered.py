"""A teacher whose signals were all computed or read beforehand: a file of answers, a function, another tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import DataError
from gradistill.signals.base import Signal
from gradistill.signals.compute import SignalValues
from gradistill.signals.word_replacement import known_words
from gradistill.signals.word_scores import WordScores, WordsRead


@dataclass(frozen=True, eq=False)
class AnsweredTeacher:
    """A teacher whose signals are in memory (``TeacherSignals``).

    ``values`` holds for each signal, as a store would (``Signal.stored_as``), an array for each row by its number.
    ``seconds`` is the time that they took.
    """

    values: Mapping[Signal, Mapping[int, np.ndarray]]
    seconds: float = 0.0

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues:
        return {signal: signal.from_stored(self._stored(signal, batch), batch) for signal in signals}

    def _stored(self, signal: Signal, batch: Batch) -> Tensor:
        of_rows = self.values.get(signal.stored_as())
        rows = [] if batch.index is None else batch.index.tolist()
        missing = [row for row in rows if of_rows is None or row not in of_rows]
        if of_rows is None or missing or not rows:
            raise DataError(
                f"The teacher has no {signal.title} for the rows {missing[:8] or rows}.",
                expected="rows with a column index, and answers for each of them",
                remedy="make the teacher of the rows that are trained on",
            )
        arrays: list[Any] = [of_rows[row] for row in rows]
        if isinstance(signal, WordScores | WordsRead):
            count = max(
                int(known_words(batch).max()) + 1, 1
            )  # words that the student reads; no others matter
            arrays = [_as_long_as(count, array) for array in arrays]
        return torch.from_numpy(np.stack(arrays)).to(batch.mask.device)


def _as_long_as(count: int, array: np.ndarray) -> np.ndarray:
    missing = max(count - array.shape[-1], 0)
    return np.pad(array[..., :count], [(0, 0)] * (array.ndim - 1) + [(0, missing)])
