"""A PyTorch or ONNX classifier as a callable on texts, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import expit, softmax

from gradistill.auditing.predictor import OnProgress, label_thresholds
from gradistill.commands.audit_model import AuditModel, text_length
from gradistill.commands.given_models import source_name
from gradistill.commands.recorded_data import data_record
from gradistill.commands.text_lengths import trained_windows
from gradistill.commands.token_predictor import TokenPredictor
from gradistill.data.cell_checks import text_fault
from gradistill.data.changed_copies import Copy
from gradistill.data.multilabel_metrics import above
from gradistill.data.prompt_template import PromptedTeacher, named_fields
from gradistill.data.raw_words import Texts
from gradistill.data.row_stream import CHUNK_ROWS
from gradistill.data.tokenization import refuse_no_room, text_losses
from gradistill.data.windows import Windows
from gradistill.errors import DataError, ModelError, first_line
from gradistill.models.model_source import ModelSource

CHARACTERS_AT_ONCE = 2_000_000
"""The most characters of texts that are tokenized together. A single text is never divided."""

_TRIED = "a b c d e f g h"
"""A text that every model predicts once after loading, as a check."""

AnyTexts = Sequence[str] | Sequence[Sequence[str]]
"""Texts, or pairs of texts."""


@dataclass(frozen=True)
class Predicted:
    """Predictions for some texts.

    ``values``: probabilities ``(text, label)``, or in a regression scores ``(text, 1)``, in float64, as thresholds may
    be nearer to 1 than float32 can be. ``cut``: texts that are cut at the model's length, or read in windows of it.
    ``blank``: texts whose only tokens are special ones. ``longest``: the largest length before cutting, in tokens.
    """

    values: Float[np.ndarray, "text label"]
    cut: Bool[np.ndarray, " text"]
    blank: Bool[np.ndarray, " text"]
    longest: int = 0


@dataclass(frozen=True)
class TextPredictor:
    """A classifier that is called with texts, or with pairs of texts, and returns probabilities.

    ``labels`` are the names of its outputs, None in a regression. ``max_length`` is the number of tokens that it reads
    of a text, special ones included. ``text_columns`` are the columns that its training run read, if that is recorded.
    With ``windows`` longer texts are read whole, as the model was trained (docs/long_texts.md). ``load_predictor``
    returns a ``TextPredictor``.

    Example::

        predictor = gradistill.load_predictor("runs/student")
        predictor(["a fine film", "a dull one"])  # array of shape (2, len(predictor.labels))
        predictor.predict(["a fine film"])  # ["positive"]
    """

    model: AuditModel
    max_length: int
    text_columns: tuple[str, ...] | None = None
    windows: Windows | None = None

    def __repr__(self) -> str:
        labels = "a score" if self.labels is None else ", ".join(self.labels[:5])
        more = f" and {len(self.labels) - 5} more" if self.labels and len(self.labels) > 5 else ""
        return f"TextPredictor({self.model.name}: {labels}{more}; {self.max_length} tokens)"

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the columns that a call returns, from ``id2label`` in ``config.json``; None in a regression."""
        return self.model.labels

    def __call__(self, texts: AnyTexts) -> Float[np.ndarray, "text label"]:
        """The probabilities of the labels ``(text, label)``, float32, in the order of ``labels``; each row sums to 1.

        For a multi-label classifier the probabilities are independent, and rows do not sum to 1. In a regression the
        scores are returned, ``(text, 1)``. Texts of similar length share a forward pass. ``gradistill predict`` writes
        the same numbers for the same rows.

        Parameters:
            ``texts``: a list of texts, or of pairs ``(first, second)``.

        Raises DataError for anything but a text, with its position.
        """
        return self.predicted(_checked(texts, self.text_columns)).values.astype(np.float32)

    def predict(self, texts: AnyTexts) -> list[str] | list[list[str]] | list[float]:
        """The predicted label of each text, or in a regression its score. ``texts`` are as for a call.

        For a multi-label classifier it is the list of labels above their thresholds (½ if none were saved).
        """
        values = self.predicted(_checked(texts, self.text_columns)).values
        labels = self.labels
        if labels is None:
            return values[:, 0].astype(np.float32).tolist()
        return self.chosen(values) if self.multi_label else [labels[k] for k in values.argmax(-1)]

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels, or none."""
        return self.model.multi_label

    def chosen(self, values: Float[np.ndarray, "text label"]) -> list[list[str]]:
        """The labels of each text whose probability is above its threshold."""
        labels = self.labels or ()
        predicted = above(values, label_thresholds(self.model.predictor))
        return [[labels[k] for k in np.flatnonzero(row)] for row in predicted]

    def predicted(self, texts: Sequence[Texts], on_progress: OnProgress = lambda done: None) -> Predicted:
        """The predictions for texts that have been checked, each a tuple of one or two strings."""
        windows = self.windows if texts and len(texts[0]) == 1 else None
        predictor: Any = self.model.predicting(self.max_length, on_progress, windows)
        width = 1 if self.labels is None else len(self.labels)
        none = np.zeros(0, bool)
        if texts:
            refuse_no_room(predictor.tokenizer, len(texts[0]), self.max_length)
        parts = [Predicted(np.zeros((0, width)), none, none)]
        for piece in _pieces(texts):
            losses = text_losses(
                predictor.tokenizer, [list(column) for column in zip(*piece, strict=True)], self.max_length
            )
            self.model.refuse_unknown_tokens(losses.largest)
            (logits,) = predictor.logits([Copy(pair) for pair in piece])
            values = self._probabilities(np.asarray(logits, np.float64))
            parts.append(Predicted(values, losses.cut, losses.blank, losses.longest))
        values, cut, blank = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "cut", "blank")
        )
        return Predicted(values, cut, blank, max(part.longest for part in parts))

    def _probabilities(self, logits: Float[np.ndarray, "text label"]) -> Float[np.ndarray, "text label"]:
        if self.labels is None:
            return logits
        return expit(logits) if self.multi_label else softmax(logits, axis=-1)


def load_predictor(
    model: ModelSource | PromptedTeacher, *, max_length: int | None = None
) -> TextPredictor | TokenPredictor:
    """Load a fine-tuned classifier as a callable from texts to probabilities, or a token classifier as one from words
    to tags.

    Parameters:
        ``model``: a folder (PyTorch, or ONNX as ``gradistill export`` writes it), a hub id, or a pair
            ``(model, tokenizer)``; with a prompt ``PromptedTeacher(model, template)``.
        ``max_length``: the most tokens to read of a text, special ones included; by default as the model was trained
            (``commands.text_lengths``).

    Returns a ``TextPredictor``, or a ``TokenPredictor`` for a token classifier. A PyTorch model computes on the
    accelerator, if there is one; an ONNX model computes on the CPU.

    Raises ModelError for a model that cannot be loaded or is no classifier.

    Example::

        predictor = gradistill.load_predictor("runs/student")
        probabilities = predictor([("The company rose 3 %.", "Shares fell."), ("One.", "Two.")])
        print(dict(zip(predictor.labels, probabilities[0])))
    """
    loaded = AuditModel.load(model, "model", source_name(model), tokens=True)
    length = text_length([loaded], max_length)
    columns = data_record(loaded.folder).get("text_columns")
    columns = tuple(map(str, columns)) if columns else None
    if loaded.token_labels:
        tagger = TokenPredictor(loaded, length, columns)
        _check(loaded.name, lambda: tagger([_TRIED.split(), _TRIED.split()[:1]]))
        return tagger
    if loaded.template is not None:
        columns = columns or tuple(named_fields(loaded.template))
        loaded = loaded.reading(columns)
    predictor = TextPredictor(loaded, length, columns, trained_windows(loaded.folder))
    texts = 1 if loaded.template is None else len(columns or ())
    _check(loaded.name, lambda: predictor.predicted([(_TRIED,) * texts]))
    if predictor.labels is not None and len(set(predictor.labels)) < len(predictor.labels):
        raise ModelError(
            f"Two labels of {loaded.name} have the same name: {', '.join(predictor.labels)}",
            expected="a name of its own for each label",
            remedy="correct id2label in config.json",
        )
    return predictor


def _check(name: str, predict: Callable[[], object]) -> None:
    """Call ``predict`` once, before any work, and raise ModelError if it fails: an ONNX file may hold any graph, and
    sizes may not fit."""
    try:
        predict()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:  # from torch, or from the model's own code
        raise ModelError(
            f"{name} cannot predict a text: {first_line(error)}",
            expected="a classifier whose configuration, weights and tokenizer fit each other",
            remedy="compare the sizes in config.json with the tokenizer's",
        ) from error


def _pieces(texts: Sequence[Texts]) -> Iterator[Sequence[Texts]]:
    """The texts in their order, in pieces whose tokens fit in memory."""
    bounds, rows, characters = [0], 0, 0
    for place, pair in enumerate(texts):
        size = sum(map(len, pair))
        if rows == CHUNK_ROWS or (rows and characters + size > CHARACTERS_AT_ONCE):
            bounds.append(place)
            rows = characters = 0
        rows, characters = rows + 1, characters + size
    for start, end in pairwise([*bounds, len(texts)]):
        if end > start:
            yield texts[start:end]


def _checked(texts: AnyTexts, columns: tuple[str, ...] | None) -> list[Texts]:
    if isinstance(texts, str | bytes) or not hasattr(texts, "__len__"):
        raise DataError(
            f"The texts are of the type {type(texts).__name__}.",
            expected="a list of texts, or of pairs of texts",
            remedy="put a single text into a list: predictor([text])",
        )
    checked = [(text,) if isinstance(text, str) else _pair(text, place) for place, text in enumerate(texts)]
    for place, pair in enumerate(checked):
        if fault := next((fault for text in pair if (fault := text_fault(text))), ""):
            raise DataError(
                f"Text {place} (from 0): {fault}", expected="texts with words", remedy="leave it out"
            )
        if len(pair) != len(checked[0]):
            raise DataError(
                f"Text {place} (from 0) is of another kind than text 0.", expected="texts or pairs, not both"
            )
    if checked:
        check_number(len(checked[0]), columns)
    return checked


def check_number(count: int, columns: tuple[str, ...] | None) -> None:
    """Raise DataError for another number of texts a row than the model's own run read."""
    if columns and len(columns) != count:
        raise DataError(
            f"{count} text{'s' if count > 1 else ''} a row, and the model was trained on {len(columns)}: "
            f"{', '.join(columns)}.",
            expected="pairs of texts" if len(columns) == 2 else "one text a row",
            remedy="name the text columns with --text-columns"
            if count > len(columns)
            else "give both texts of each pair",
        )


def _pair(given: Any, place: int) -> Texts:
    if isinstance(given, Sequence | np.ndarray) and not isinstance(given, bytes) and len(given) in (1, 2):
        return tuple(given)
    raise DataError(
        f"Text {place} (from 0) is of the type {type(given).__name__}.",
        expected="a text, or a pair of two",
        remedy="pass a list of texts, or of pairs (first, second)",
    )
