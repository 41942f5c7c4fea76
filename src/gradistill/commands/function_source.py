"""A teacher that is a function from texts to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import getsource, isclass, isroutine
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
    """A hash of the function's name and, where Python knows it, of its source: an edited one is another teacher.

    What it calls is not looked at.
    """
    given: Any = function
    try:
        source = getsource(given if isroutine(given) or isclass(given) else type(given))
    except (OSError, TypeError):
        source = None
    return digest([function_name(function), source])
