"""A teacher that is several classifiers: the average of their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from gradistill.commands.audit_models import AuditModel, OneModel, source_name
from gradistill.commands.data_warnings import refuse_other_kind_of_model, with_positive
from gradistill.commands.function_source import Remembering, function_name
from gradistill.commands.identity import of_onnx
from gradistill.data import DataChoice, Splits, Task
from gradistill.models.facts import ModelFacts
from gradistill.signals import Signal
from gradistill.store.fingerprint import digest, of_model, of_tokenizer

TeacherRows = Callable[[Sequence[str] | None], Splits]
"""Reads the rows, with their labels in the order of a teacher's outputs, where it names them."""


@dataclass(frozen=True, eq=False)
class MeanSource:
    """Several classifiers, each with a tokenizer of its own, as one ``model``: the average of their probabilities."""

    model: AuditModel
    predictor: Predictor
    notes: dict[str, Any] = field(default_factory=dict)

    kind = "the mean of several teachers"

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def calls_a_function(self) -> bool:
        return any(isinstance(member.predictor, FunctionPredictor) for member in self.model.members)

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        return {"teacher": " ".join(map(_identity, self.model.members))}

    def values(self, asked: Asked, signals: Sequence[Signal]) -> Values:
        return predicted_values(self.predictor, asked, signals)

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        return predictions_of(self.predictor, rows, task)


def mean_source(
    given: Sequence[OneModel], data: DataChoice, rows_for: TeacherRows
) -> tuple[MeanSource, Splits]:
    """The teachers as one, and the rows with their labels in the order of the first that names any.

    The rows are read for the outputs of the teachers (``label_names.Outputs``), as for one teacher. A function is asked
    each text once. Raises RecipeError for fewer than two, or one twice, ModelError for what cannot be loaded, and
    DataError for one whose labels are not those of the others, or of the data.
    """
    every = list(given)
    model = AuditModel.load(every, "teacher", source_name(every))
    splits = rows_for(None if model.labels == () else model.labels or ("LABEL_0",))
    task = splits.task
    for member in model.members:
        if not isinstance(member.predictor, FunctionPredictor):
            refuse_other_kind_of_model(task, member.multi_label, member.owner)
    model = model.ordered(model.labels or task.labels)
    model = model.reading(task.text_columns, multi_label=task.multi_label)
    assert isinstance(model.predictor, MeanPredictor)
    asking = [_once(predictor) for predictor in model.predictor.predictors]
    predictor = replace(model.predictor, predictors=tuple(asking))
    notes = {"teachers": [_full_name(member) for member in model.members]}
    templates = [member.template for member in model.members]
    splits = with_positive(splits, data.positive, [m.folder for m in model.members if m.folder])
    return MeanSource(model, predictor, notes | _templates(templates)), splits


def _once(predictor: Predictor) -> Predictor:
    """A function is asked each text once."""
    return Remembering(predictor) if isinstance(predictor, FunctionPredictor) else predictor


def _full_name(member: AuditModel) -> str:
    """A function's own name has its module."""
    return (
        function_name(member.predictor.function)
        if isinstance(member.predictor, FunctionPredictor)
        else member.name
    )


def _templates(every: Sequence[str | None]) -> dict[str, Any]:
    """The prompt of all, or that of each."""
    if not any(every):
        return {}
    return {"template": every[0]} if len({*every}) == 1 else {"templates": list(every)}


def _identity(member: AuditModel) -> str:
    if isinstance(member.predictor, FunctionPredictor):
        return function_name(member.predictor.function)
    assert member.tokenizer is not None
    weights = of_onnx(member.predictor) if member.model is None else of_model(member.model)
    prompt = [] if member.template is None else [member.template]
    return digest([weights, of_tokenizer(member.tokenizer), *prompt])
