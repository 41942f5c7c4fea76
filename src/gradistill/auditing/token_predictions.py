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
    """The predictions of one model for each row: logits ``(word, label)`` of the words that have tokens, and the
    indices of these words in the row. Words that are cut off are missing."""

    logits: tuple[np.ndarray, ...]
    words: tuple[np.ndarray, ...]

    @cached_property
    def labels(self) -> tuple[np.ndarray, ...]:
        """The predicted label ids of each row's words."""
        return tuple(row.argmax(-1) for row in self.logits)

    @property
    def flat(self) -> np.ndarray:
        """The logits of all words, concatenated over rows: ``(word, label)``."""
        return np.concatenate(self.logits)

    @property
    def counts(self) -> np.ndarray:
        """The number of words in each row."""
        return np.array([len(row) for row in self.logits])


def predict_tokens(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    on_progress: Callable[[int], object] = lambda done: None,
) -> TokenPredictions:
    """The predictions of a token classifier for encoded rows, in their order. The model's state is restored.

    Parameters:
        ``model``: a token classifier.
        ``rows``: as ``encode`` returns them for token classification, with ``word_ids``.
        ``collate``: a ``Collator``.
        ``on_progress``: is called with the number of rows done.

    Raises ModelError for logits that are not finite, with the first faulty row.

    Example: ``teacher = predict_tokens(model, rows, Collator(tokenizer))``
    """
    logits: list[Any] = [None] * len(rows)
    words: list[Any] = [None] * len(rows)
    device = next(model.parameters()).device
    with frozen_eval(model), torch.no_grad():
        for row_batch in row_batches(rows, collate, device):
            predictions = widened(model(**row_batch.batch.inputs).logits).cpu()
            first, numbers = row_batch.batch.first_tokens.cpu(), row_batch.batch.word_numbers.cpu()
            for k, place in enumerate(row_batch.places):
                logits[place] = predictions[k][first[k]].numpy()
                words[place] = numbers[k][first[k]].numpy()
            on_progress(len(row_batch.places))
    predictions = TokenPredictions(tuple(logits), tuple(words))
    if not np.isfinite(predictions.flat).all():
        place = next(place for place, row in enumerate(logits) if not np.isfinite(row).all())
        raise not_finite("the PyTorch model", _shown_row(rows[place], collate))
    return predictions


def _shown_row(row: Any, collate: Any) -> str:
    """The text of a row, or its token ids if the collator has no tokenizer."""
    ids, tokenizer = row["input_ids"], getattr(collate, "tokenizer", None)
    text = str(ids) if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=True)
    return shown_text([text])


def word_labels(rows: Rows) -> list[np.ndarray]:
    """The gold label ids, for each encoded row, of the words that ``predict_tokens`` predicts; −100 without labels."""
    label_ids = []
    for numbers, labels in zip(rows["word_ids"][:], rows["labels"][:], strict=True):  # pyright: ignore
        word_ids = np.asarray(numbers)
        first = (word_ids >= 0) & (word_ids != np.concatenate([[-1], word_ids[:-1]]))
        label_ids.append(np.asarray(labels)[first])
    return label_ids
