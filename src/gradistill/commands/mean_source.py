"""A teacher that is several classifiers: the average of their probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from gradistill.auditing.function_predictor import FunctionPredictor
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor
from gradistill.commands.answer_sources import (
    Asked,
    Values,
    facts_of_outputs,
    predicted_values,
    predictions_of,
)
from gradistill.commands.audit_models import AnyModel, AuditModel, AuditModels, is_function, source_name
from gradistill.commands.data_warnings import refuse_other_kind_of_model, with_positive
from gradistill.commands.function_source import Remembering, function_name
from gradistill.commands.identity import of_onnx
from gradistill.commands.text_lengths import trained_length
from gradistill.data import DataChoice, Splits, Task, align_labels
from gradistill.errors import RecipeError
from gradistill.models.facts import ModelFacts
from gradistill.signals import Signal
from gradistill.store.fingerprint import digest, of_model, of_tokenizer

_SCORE = ("score",)
"""What stands for the name of a regression's output."""


@dataclass(frozen=True)
class _Member:
    """One of several teachers: ``labels`` are the names of its outputs."""

    name: str
    folder: str
    labels: tuple[str, ...]
    predictor: Predictor
    identity: str
    is_function: bool = False

    @classmethod
    def load(cls, given: AnyModel, task: Task) -> _Member:
        """A function is asked each text once."""
        source: Any = given
        if is_function(source):
            own = getattr(source, "labels", None)
            labels = task.labels if own is None else tuple(map(str, own))
            called = Remembering(FunctionPredictor(source, labels, None, task.multi_label))
            name = function_name(source)
            return cls(name, "", labels or _SCORE, called, name, True)
        name = source_name(source)
        model = AuditModel.load(source, f"teacher {name}", name)
        refuse_other_kind_of_model(task, model.multi_label, model.owner)
        length = AuditModels(model, []).text_length(None if model.reader else trained_length(model.folder))
        predictor = model.predicting(length, lambda done: None)
        return cls(name, model.folder, model.labels or _SCORE, predictor, _identity(model))


@dataclass(frozen=True, eq=False)
class MeanSource:
    """Several classifiers, each with a tokenizer of its own, as one: the average of their probabilities."""

    members: tuple[_Member, ...]
    predictor: MeanPredictor
    notes: dict[str, Any] = field(default_factory=dict)

    kind = "the mean of several teachers"

    @property
    def name(self) -> str:
        return "mean of " + ", ".join(Path(member.name).name for member in self.members)

    @property
    def calls_a_function(self) -> bool:
        return any(member.is_function for member in self.members)

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        return {"teacher": " ".join(member.identity for member in self.members)}

    def values(self, asked: Asked, signals: Sequence[Signal]) -> Values:
        return predicted_values(self.predictor, asked, signals)

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        return predictions_of(self.predictor, rows, task)


def mean_source(given: Sequence[AnyModel], data: DataChoice, splits: Splits) -> tuple[MeanSource, Splits]:
    """The teachers as one, and the rows with their labels in the order of the first.

    Raises RecipeError for fewer than two, or one twice, ModelError for what cannot be loaded, and DataError for one
    whose labels are not those of the data.
    """
    _refuse_other_lists(given)
    members, found = [], []
    for source in given:
        member = _Member.load(source, splits.task)
        names = dict(enumerate(member.labels))
        found.append(align_labels(splits, names, f"teacher {member.name}", label_map=data.label_map))
        members.append(member)
    first, task = found[0], found[0].task
    orders = tuple(_places(own.task, task) for own in found)
    kind = "scores" if task.labels is None else "multi_label" if task.multi_label else "classes"
    predictor = MeanPredictor(tuple(member.predictor for member in members), orders, kind)
    notes = {"teachers": [member.name for member in members]}
    splits = with_positive(first, data.positive, [member.folder for member in members if member.folder])
    return MeanSource(tuple(members), predictor, notes), splits


def _identity(model: AuditModel) -> str:
    assert model.tokenizer is not None
    weights = of_onnx(model.predictor) if model.model is None else of_model(model.model)
    return digest([weights, of_tokenizer(model.tokenizer)])


def _places(own: Task, first: Task) -> tuple[int, ...]:
    """Where the labels of the first teacher are among a teacher's outputs."""
    if own.labels is None or first.labels is None:
        return (0,)
    return tuple(own.labels.index(label) for label in first.labels)


def _refuse_other_lists(given: Sequence[Any]) -> None:
    if len(given) < 2:
        raise RecipeError(
            f"the list of teachers holds {len(given) or 'none'}",
            expected="two teachers or more",
            remedy="name one teacher without a list, or several",
        )
    paths = [os.path.realpath(each) for each in given if isinstance(each, str | os.PathLike)]
    if twice := [path for k, path in enumerate(paths) if path in paths[:k]]:
        raise RecipeError(
            f"the teacher {twice[0]} is named twice", expected="each teacher once", remedy="leave one out"
        )
