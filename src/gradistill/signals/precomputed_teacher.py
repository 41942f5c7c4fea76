"""A teacher whose signals are computed before training: a file of predictions, a function, another tokenizer."""

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
from gradistill.signals.word_attributions import WordScores, WordsRead
from gradistill.signals.word_replacement import word_ids_of


@dataclass(frozen=True, eq=False)
class PrecomputedTeacher:
    """A teacher whose signals are in memory (``TeacherSignals``).

    ``values``: for each signal, in its stored form (``Signal.stored_as``), one array for each row index.
    ``seconds``: the time that computing them took.
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
                expected="rows with a column index, and predictions for each of them",
                remedy="make the teacher from the rows that the student is trained on",
            )
        arrays: list[Any] = [of_rows[row] for row in rows]
        if isinstance(signal, WordScores | WordsRead):
            count = max(int(word_ids_of(batch).max()) + 1, 1)  # only words that the student reads matter
            arrays = [_as_long_as(count, array) for array in arrays]
        return torch.from_numpy(np.stack(arrays)).to(batch.mask.device)


def _as_long_as(count: int, array: np.ndarray) -> np.ndarray:
    missing = max(count - array.shape[-1], 0)
    return np.pad(array[..., :count], [(0, 0)] * (array.ndim - 1) + [(0, missing)])
