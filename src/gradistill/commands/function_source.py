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
    RowsToAnswer,
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
class CachingPredictor:
    """A predictor that caches predictions, so that each text is predicted once: a function may cost money."""

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
            logits = self.inner.logits(new)[0]
            self.known.update({copy.texts: row for copy, row in zip(new, logits, strict=True)})
        return np.stack([self.known[copy.texts] for copy in copies])[None]


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """A function from texts to probabilities, called once for each text."""

    name: str
    predictor: Predictor
    identity: str
    notes: dict[str, Any] = field(default_factory=dict)

    kind = "a function"

    @classmethod
    def of(cls, function: PredictFunction, name: str, task: Task) -> FunctionSource:
        """The source of a function whose columns are in the order of the task's labels."""
        predictor = FunctionPredictor(function, task.labels, None, task.multi_label)
        return cls(name, CachingPredictor(predictor), function_identity(function))

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        return {"teacher": self.identity}

    def values(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        return predicted_values(self.predictor, asked, signals)

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        return predictions_of(self.predictor, rows, task)


def function_name(function: PredictFunction) -> str:
    """The name of a function in messages and run folders: its module and qualified name."""
    given: Any = function
    qualified_name = getattr(given, "__qualname__", None) or type(given).__qualname__
    return f"{getattr(given, '__module__', None) or type(given).__module__}:{qualified_name}"


def function_identity(function: PredictFunction) -> str:
    """A hash of a function's name, source code (if Python has it) and bound values. A function with other code or other
    values is another teacher.

    Values are numbers, texts, tuples and functions, in ``functools.partial``, defaults and the scope around a function.
    Lists, dictionaries and objects can change while it runs, so they do not count; nor do functions that it calls.
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
"""Stands for a value that does not count."""


def _held(given: Any) -> list[Any]:
    """The defaults of a function or method, and the variables of the enclosing scope that it does not set itself."""
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
    except ValueError:  # the name has no value yet
        return _CHANGES


def _plain(value: Any) -> Any:
    """An immutable value in a form that can be hashed; ``_CHANGES`` for any other value."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, partial):
        return _plain((value.func, *value.args, *sorted(value.keywords.items())))
    return [function_name(value), _source(value)] if isroutine(value) else _CHANGES
