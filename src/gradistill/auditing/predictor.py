"""The interface of a classifier as a function of texts, which response loyalty, flips and Shapley values use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.attribution.gradients import widened
from gradistill.data import Collator
from gradistill.data.batching import RowBatch, in_row_order
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import Kept
from gradistill.data.text_reader import encoded_copies
from gradistill.errors import GradistillError, ModelError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.facts import is_multi_label, thresholds_of
from gradistill.models.probe import ProbedModel
from gradistill.models.random_head import has_head, head_logits, stacked_heads

SHOWN = 60
"""Most characters of a text in a message."""


OnProgress = Callable[[int], object]
"""A callback with the number of texts that were predicted since the last call."""


@runtime_checkable
class Predictor(Protocol):
    """A classifier as a function of texts.

    ``has_head``: whether its head can be randomised. ``can_mask``: whether it can replace words by a mask token.
    """

    @property
    def has_head(self) -> bool: ...

    @property
    def can_mask(self) -> bool: ...

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """The logits of every copy, float64: first with the model's own head, then with a random head for each seed in
        ``heads``. Raises GradistillError for random heads or masks that the model does not support."""
        ...


CopiesOf = Callable[[int, Kept], Sequence[Copy]]
"""A function of a row's index and its kept words. It returns the unchanged row, then copies with only these words."""


def predict_by_row(
    predictor: Predictor, kept: Mapping[int, Kept], copies_of: CopiesOf, *, heads: Sequence[int] = ()
) -> dict[int, Float[np.ndarray, "head copy label"]]:
    """The logits of rows and their copies, by row; the first copy is the unchanged row. Numbers of copies may differ.

    ``kept`` holds masks of the words that each copy keeps, by the row's index.
    """
    copies = {row: copies_of(row, masks) for row, masks in kept.items()}
    flat = [copy for of_row in copies.values() for copy in of_row]
    if not flat:
        return {}
    ends = np.cumsum([len(of_row) for of_row in copies.values()])[:-1]
    return dict(zip(copies, np.split(predictor.logits(flat, heads=heads), ends, axis=1), strict=True))


def label_thresholds(predictor: Predictor) -> np.ndarray | None:
    """The thresholds of a predictor's labels, with several labels a row; None for ½ or without thresholds."""
    return getattr(predictor, "thresholds", None)


def refused_heads(heads: Sequence[int], owner: str) -> None:
    """Raise GradistillError for random ``heads`` of a predictor whose head cannot be randomised."""
    if heads:
        raise GradistillError(f"{owner} has no head to randomise.", expected="a PyTorch classifier")


def checked_logits(
    values: np.ndarray, labels: Sequence[str] | None, owner: str, copies: Sequence[Copy]
) -> Float[np.ndarray, "row label"]:
    """A model's outputs for ``copies``, checked and in float64. ``labels``: the names of the columns, None for one
    score, ``()`` for any number of columns.

    Raises ModelError for a wrong number of columns, and for NaN or infinite values, with the first faulty text.
    """
    columns = 1 if labels is None else len(labels)
    if values.ndim != 2 or not values.shape[1] or (columns and values.shape[1] != columns):
        names = ", ".join(labels or ())
        raise ModelError(
            f"{owner} returned an array of shape {values.shape}",
            expected="one column, the score" if labels is None else f"one column for each label: {names}",
            remedy="check that the model belongs to this task",
        )
    if len(rows := np.flatnonzero(~np.isfinite(values).all(axis=1))):
        copy = copies[rows[0]]
        masked = 0 if copy.kept is None else int((~copy.kept).sum())
        hidden = f" with {masked} word{'s' if masked > 1 else ''} masked" if masked else ""
        raise not_finite(owner, shown_text(copy.texts) + hidden)
    return values.astype(np.float64)


def not_finite(owner: str, text: str) -> ModelError:
    """The error for NaN or infinite outputs. ``text``: the text as ``shown_text`` formats it."""
    return ModelError(
        f"{owner} returned NaN or infinite values for {text}",
        expected="finite numbers",
        remedy="predict this text alone to find the cause",
    )


def in_order(
    logits: Float[np.ndarray, "row label"], order: Sequence[int] | None
) -> Float[np.ndarray, "row label"]:
    """``logits`` with the columns in ``order``; unchanged without an ``order``."""
    return logits if order is None else logits[:, list(order)]


def shown_text(texts: Sequence[str]) -> str:
    """The first characters of a row's ``texts``, for a message."""
    text = " | ".join(texts)
    return f"the text {text[:SHOWN]!r}{'…' if len(text) > SHOWN else ''}"


@dataclass(frozen=True)
class ClassifierPredictor:
    """A PyTorch classifier with its tokenizer. It computes in eval mode; its state is restored.

    Each text is tokenized once for all of its masked copies: token ids are replaced, nothing is decoded. The body runs
    once for all heads. ``classifier`` is the model, which may already be probed.

    Example: ``ClassifierPredictor(model, tokenizer).logits([Copy(("a fine film",))])[0]``
    """

    classifier: nn.Module | ProbedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int = 128
    on_progress: OnProgress = lambda done: None

    @property
    def model(self) -> nn.Module:
        """The classifier without its probe."""
        return self.classifier.model if isinstance(self.classifier, ProbedModel) else self.classifier

    @property
    def has_head(self) -> bool:
        return has_head(self.model)

    @property
    def can_mask(self) -> bool:
        return bool(self.tokenizer.is_fast)

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return is_multi_label(self.model)

    @property
    def thresholds(self) -> np.ndarray | None:
        """The threshold of each label's probability, with several labels a row; None for ½."""
        return thresholds_of(self.model)

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``. Raises ModelError for logits that are not finite."""
        stacked = stacked_heads(self.model, heads) if heads else None

        def logits(some: RowBatch) -> np.ndarray:
            inputs = some.batch.inputs
            of_heads = (
                self.model(**inputs).logits[None]
                if stacked is None
                else head_logits(self.model, inputs, stacked)
            )
            return widened(of_heads).cpu().numpy().swapaxes(0, 1)

        device = next(self.model.parameters()).device
        with frozen_eval(self.model), torch.no_grad():
            values = in_row_order(
                logits,
                encoded_copies(copies, self.tokenizer, self.max_length),
                Collator(self.tokenizer),
                device,
                on_progress=self.on_progress,
            )
        checked = checked_logits(values.reshape(len(values), -1), (), "the PyTorch model", copies)
        return checked.reshape(values.shape).swapaxes(0, 1)
