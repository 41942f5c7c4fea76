"""A teacher that is a function from texts to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from dis import get_instructions
from functools import partial
from inspect import getsource, isclass, isfunction, isroutine
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from gradistill.auditing.function_predictor import FunctionPredictor, PredictFunction
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor, refused_heads
from gradistill.commands.answer_sources import (
    Asked,
    Values,
    facts_of_outputs,
    predicted_values,
    predictions_of,
)
from gradistill.data import Task
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import Texts
from gradistill.io import digest
from gradistill.models.facts import ModelFacts
from gradistill.signals import Signal


@dataclass(frozen=True, eq=False)
class Remembering:
    """A predictor that is asked each text once: a function may cost money."""

    inner: Predictor
    known: dict[Texts, np.ndarray] = field(default_factory=dict)

    has_head = False
    can_mask = False

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``."""
        refused_heads(heads, "a function")
        new = [Copy(t) for t in dict.fromkeys(copy.texts for copy in copies) if t not in self.known]
        if new:
            found = self.inner.logits(new)[0]
            self.known.update({copy.texts: row for copy, row in zip(new, found, strict=True)})
        return np.stack([self.known[copy.texts] for copy in copies])[None]


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """A function from texts to probabilities; each text is given to it once."""

    name: str
    predictor: Predictor
    identity: str
    notes: dict[str, Any] = field(default_factory=dict)

    kind = "a function"

    @classmethod
    def of(cls, function: PredictFunction, name: str, task: Task) -> FunctionSource:
        """The columns that the function returns must be in the order of the task's labels."""
        predictor = FunctionPredictor(function, task.labels, None, task.multi_label)
        return cls(name, Remembering(predictor), function_identity(function))

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        return {"teacher": self.identity}

    def values(self, asked: Asked, signals: Sequence[Signal]) -> Values:
        return predicted_values(self.predictor, asked, signals)

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        return predictions_of(self.predictor, rows, task)


def function_name(function: PredictFunction) -> str:
    """What messages and run folders call a function: its module and name."""
    given: Any = function
    own = getattr(given, "__qualname__", None) or type(given).__qualname__
    return f"{getattr(given, '__module__', None) or type(given).__module__}:{own}"


def function_identity(function: PredictFunction) -> str:
    """A hash of the function's name, of its source where Python knows it, and of the values that it is made with: an
    edited one, or one with other values, is another teacher.

    Values are numbers, texts, tuples and functions, in ``functools.partial``, defaults and the scope around a function.
    Lists, dictionaries and objects change while it runs. They are not looked at, nor what a function calls.
    """
    given: Any = function
    if isinstance(given, partial):
        with_values = (*given.args, *sorted(given.keywords.items()))
        return digest([function_identity(given.func), *map(_plain, with_values)])
    held = _held(given)
    return digest([function_name(given), _source(given), *([held] if held else [])])


def _source(given: Any) -> str | None:
    try:
        return getsource(given if isroutine(given) or isclass(given) else type(given))
    except (OSError, TypeError):
        return None


_CHANGES = "changes"
"""In the place of a value that is not looked at."""


def _held(given: Any) -> list[Any]:
    """The defaults of a function or method, and what it has from the scope around it and does not set itself."""
    inner = getattr(given, "__func__", given)
    if not isfunction(inner):
        return []
    sets = {found.argval for found in get_instructions(inner) if found.opname == "STORE_DEREF"}
    around = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
    cells = {name: _content(cell) for name, cell in around if name not in sets}
    values = {**dict(enumerate(inner.__defaults__ or ())), **(inner.__kwdefaults__ or {}), **cells}
    plain = {str(name): _plain(value) for name, value in values.items()}
    return [[name, value] for name, value in sorted(plain.items()) if value is not _CHANGES]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a name that has no value yet
        return _CHANGES


def _plain(value: Any) -> Any:
    """A value that cannot change, as it is compared; ``_CHANGES`` for any other."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, partial):
        return _plain((value.func, *value.args, *sorted(value.keywords.items())))
    return [function_name(value), _source(value)] if isroutine(value) else _CHANGES
