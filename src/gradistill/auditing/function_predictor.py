"""A function from texts to probabilities as a predictor: an API, a rule, another library's model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gradistill.auditing.predictor import (
    OnProgress,
    checked_logits,
    in_order,
    refused_heads,
    shown_text,
)
from gradistill.data.changed_copies import Copy
from gradistill.data.probabilities import logits_of, probability_faults
from gradistill.errors import GradistillError, ModelError, RecipeError

PREFIX = "python:"

TEXTS_AT_ONCE = 256

PredictFunction = Callable[[list[Any]], Any]
"""Takes texts, or pairs of texts, and returns probabilities ``(row, label)``; in a regression a score for each row."""


@dataclass(frozen=True)
class FunctionPredictor:
    """``function`` as a predictor. Logits are the logarithms of its probabilities (``data.probabilities``).

    ``labels``: the names of its columns; None for a score (regression); ``()`` if unknown, and their number follows
    from the first call. ``order``: for each returned label the index of the function's column. ``multi_label``: each
    column is a label's own probability, and its logit the log-odds.

    Words cannot be masked, as functions have no common mask token. They are replaced by other words.

    Example: ``FunctionPredictor(predict, ("no", "yes")).logits([Copy(("a fine film",))])[0]``
    """

    function: PredictFunction
    labels: tuple[str, ...] | None = ()
    order: tuple[int, ...] | None = None
    multi_label: bool = False
    on_progress: OnProgress = lambda done: None

    has_head = False
    can_mask = False

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``. Raises ModelError, with the faulty row, if the results are not probabilities."""
        refused_heads(heads, "a function")
        if any(copy.kept is not None for copy in copies):
            raise GradistillError(
                "A function has no mask token, so words cannot be masked.", expected="texts with other words"
            )
        parts = []
        for start in range(0, len(copies), TEXTS_AT_ONCE):
            chunk = copies[start : start + TEXTS_AT_ONCE]
            parts.append(self._predicted(chunk))
            self.on_progress(len(chunk))
        return in_order(np.concatenate(parts), self.order)[None]

    def _predicted(self, copies: Sequence[Copy]) -> Float[np.ndarray, "row label"]:
        owner = f"the function {self.name}"
        texts = [copy.texts[0] if len(copy.texts) == 1 else copy.texts for copy in copies]
        try:
            returned = self.function(texts)
        except Exception as error:
            raise ModelError(
                f"{owner} raised {type(error).__name__}: {error}",
                expected="a function that returns probabilities for a list of texts",
                remedy="test the function on a list of texts",
            ) from error
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{owner} returned {type(returned).__name__}, which is no array of numbers",
                expected="an array of probabilities (row, label)",
                remedy="return a NumPy array, or lists of numbers of equal length",
            ) from error
        if values.ndim == 1 and self.labels is None:
            values = values[:, None]
        if values.ndim != 2 or len(values) != len(texts):
            raise ModelError(
                f"{owner} returned an array of shape {values.shape} for {len(texts)} texts",
                expected="one row a text: (row, label), or (row,) for a regression",
                remedy="return one row of probabilities for each text",
            )
        values = checked_logits(values, self.labels, owner, copies)
        if self.labels is None:
            return values
        self._refuse_other_numbers(values, owner, copies)
        return logits_of(values, multi_label=self.multi_label)

    def _refuse_other_numbers(
        self, values: Float[np.ndarray, "row label"], owner: str, copies: Sequence[Copy]
    ) -> None:
        for what, faulty in probability_faults(values, multi_label=self.multi_label).items():
            if faulty.any():
                row = int(np.flatnonzero(faulty)[0])
                shown = ", ".join(f"{value:.4g}" for value in values[row])
                raise ModelError(
                    f"{owner} returned {shown} for {shown_text(copies[row].texts)}: they {what}",
                    expected="probabilities between 0 and 1"
                    if self.multi_label
                    else "probabilities that sum to 1",
                    remedy="return probabilities, not logits: apply a softmax first",
                )


def function_at(given: str) -> PredictFunction:
    """The function that ``python:module:function`` names. The module is imported, which runs its code.

    Use it only for names that the user typed on the command line, never for names from a file. The working directory
    is searched first. Raises RecipeError for a name of another form, or of an object that cannot be called.
    """
    module, _, name = given.removeprefix(PREFIX).partition(":")
    if not module or not name:
        raise RecipeError(
            f"{given!r} names no function", expected="python:module:function", remedy="write it in this form"
        )
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RecipeError(
            f"{given}: {error}",
            expected="a module that can be imported, with a function of that name",
            remedy="check both names, and that the module is in the working directory or installed",
        ) from error
    finally:
        with suppress(ValueError):  # an imported module may have changed the path
            sys.path.remove(folder)
    if not callable(function):
        raise RecipeError(
            f"{given} is {type(function).__name__}", expected="a function of texts", remedy="name a function"
        )
    return function
