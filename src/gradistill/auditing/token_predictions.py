"""Predictions of token classifiers: the logits of every word of a row, at the first token of the word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from gradistill.attribution.gradients import widened
from gradistill.auditing.predictor import not_finite, shown_text
from gradistill.data.batching import Collate, Rows, row_batches
from gradistill.models.eval_mode import frozen_eval


@dataclass(frozen=True)
class TokenPredictions:
    """The predictions of one model, row by row: logits ``(word, label)`` of the words that tokens stand for, and the
    numbers of these words in the row: all of them, where none is cut off."""

    logits: tuple[np.ndarray, ...]
    words: tuple[np.ndarray, ...]

    @cached_property
    def labels(self) -> tuple[np.ndarray, ...]:
        """The predicted label ids of each row's words."""
        return tuple(row.argmax(-1) for row in self.logits)

    @property
    def flat(self) -> np.ndarray:
        """The logits of the words of all rows, one behind the other: ``(word, label)``."""
        return np.concatenate(self.logits)

    @property
    def counts(self) -> np.ndarray:
        """How many words each row has."""
        return np.array([len(row) for row in self.logits])


def predict_tokens(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    on_progress: Callable[[int], object] = lambda done: None,
) -> TokenPredictions:
    """The predictions of a token classifier for encoded rows, in their order; the model stays as it was.

    Parameters:
        ``model``: a token classifier.
        ``rows``: as ``encode`` returns them where words have labels, with ``word_ids``.
        ``collate``: a ``Collator``.
        ``on_progress``: is called with the number of rows done.

    Raises ModelError for logits that are not finite, with the first row at fault.

    Example: ``teacher = predict_tokens(model, rows, Collator(tokenizer))``
    """
    logits: list[Any] = [None] * len(rows)
    words: list[Any] = [None] * len(rows)
    device = next(model.parameters()).device
    with frozen_eval(model), torch.no_grad():
        for some in row_batches(rows, collate, device):
            found = widened(model(**some.batch.inputs).logits).cpu()
            first, numbers = some.batch.first_tokens.cpu(), some.batch.word_numbers.cpu()
            for k, place in enumerate(some.places):
                logits[place] = found[k][first[k]].numpy()
                words[place] = numbers[k][first[k]].numpy()
            on_progress(len(some.places))
    found = TokenPredictions(tuple(logits), tuple(words))
    if not np.isfinite(found.flat).all():
        place = next(place for place, row in enumerate(logits) if not np.isfinite(row).all())
        raise not_finite("the PyTorch model", _shown_row(rows[place], collate))
    return found


def _shown_row(row: Any, collate: Any) -> str:
    """The text of a row, or its token ids where the collator knows no tokenizer."""
    ids, tokenizer = row["input_ids"], getattr(collate, "tokenizer", None)
    text = str(ids) if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)
    return shown_text([text])


def word_labels(rows: Rows) -> list[np.ndarray]:
    """The label ids of the words that ``predict_tokens`` predicts, of each encoded row; −100 in rows without labels."""
    found = []
    for numbers, labels in zip(rows["word_ids"][:], rows["labels"][:], strict=True):  # pyright: ignore
        own = np.asarray(numbers)
        first = (own >= 0) & (own != np.concatenate([[-1], own[:-1]]))
        found.append(np.asarray(labels)[first])
    return found
