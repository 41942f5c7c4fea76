"""A teacher that is several classifiers: the mean of their probabilities, or one classifier for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset

from gradistill.auditing.function_predictor import FunctionPredictor
from gradistill.auditing.label_predictor import LabelPredictor
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor
from gradistill.commands.answer_sources import (
    RowsToAnswer,
    Values,
    facts_of_outputs,
    predicted_values,
    predictions_of,
)
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.data_warnings import refuse_other_kind_of_model
from gradistill.commands.function_source import CachingPredictor, function_identity, function_name
from gradistill.commands.given_models import OneModel, source_name
from gradistill.commands.identity import of_onnx
from gradistill.commands.recorded_data import with_positive
from gradistill.data import DataChoice, Splits, Task
from gradistill.io import digest
from gradistill.models.facts import ModelFacts
from gradistill.signals import Signal
from gradistill.store.fingerprint import model_hash, tokenization_hash

TeacherRows = Callable[[Sequence[str] | None], Splits]
"""Reads the rows, with class ids in the order of a teacher's outputs, if it names them."""


MEAN, ONE_A_LABEL = "the mean of several teachers", "one teacher a label"


@dataclass(frozen=True, eq=False)
class MeanSource:
    """Several classifiers, each with its own tokenizer, as one ``model``."""

    model: AuditModel
    predictor: Predictor
    notes: dict[str, Any] = field(default_factory=dict)
    kind: str = MEAN

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def calls_a_function(self) -> bool:
        return any(isinstance(member.predictor, FunctionPredictor) for member in self.model.members)

    def facts(self, task: Task) -> ModelFacts:
        return facts_of_outputs(task)

    def hashes(self) -> dict[str, str]:
        identities = list(map(_identity, self.model.members))
        if self.kind == ONE_A_LABEL:
            identities = [
                f"{label}={one}" for label, one in zip(self.model.labels or (), identities, strict=True)
            ]
        return {"teacher": " ".join(identities)}

    def values(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        return predicted_values(self.predictor, asked, signals)

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        return predictions_of(self.predictor, rows, task)


def mean_source(
    given: list[OneModel] | dict[str, OneModel], data: DataChoice, rows_for: TeacherRows
) -> tuple[MeanSource, Splits]:
    """The teachers as one source, and the rows. Class ids are in the order of the dictionary's keys, or of the first
    teacher that names its labels.

    The rows are read for the outputs of the teachers (``label_matching.Outputs``), as for one teacher. A function is
    called once for each text. Raises RecipeError for fewer than two teachers or the same one twice, ModelError for a
    model that cannot be loaded, and DataError for labels that differ from those of the others or of the data.
    """
    model = AuditModel.load(given, "teacher", source_name(given))
    splits = rows_for(None if model.labels == () else model.labels or ("LABEL_0",))
    task = splits.task
    by_label = isinstance(model.predictor, LabelPredictor)
    for member in (model,) if by_label else model.members:
        if not isinstance(member.predictor, FunctionPredictor):
            refuse_other_kind_of_model(task, member.multi_label, member.owner)
    model = model.ordered(model.labels or task.labels)
    model = model.reading(task.text_columns, multi_label=task.multi_label)
    assert isinstance(model.predictor, MeanPredictor | LabelPredictor)
    cached = [_once(predictor) for predictor in model.predictor.predictors]
    predictor = replace(model.predictor, predictors=tuple(cached))
    names = list(map(_full_name, model.members))
    notes = {"teachers": dict(zip(model.labels or (), names, strict=True)) if by_label else names}
    templates = [member.template for member in model.members]
    splits = with_positive(splits, data.positive, [m.folder for m in model.members if m.folder])
    kind = ONE_A_LABEL if by_label else MEAN
    return MeanSource(model, predictor, notes | _templates(templates), kind), splits


def _once(predictor: Predictor) -> Predictor:
    """The predictor; a function with a cache, so that it is called once for each text."""
    return CachingPredictor(predictor) if isinstance(predictor, FunctionPredictor) else predictor


def _full_name(member: AuditModel) -> str:
    """The member's name; for a function with its module."""
    return (
        function_name(member.predictor.function)
        if isinstance(member.predictor, FunctionPredictor)
        else member.name
    )


def _templates(every: Sequence[str | None]) -> dict[str, Any]:
    """The common prompt of all members, or the prompt of each."""
    if not any(every):
        return {}
    return {"template": every[0]} if len({*every}) == 1 else {"templates": list(every)}


def _identity(member: AuditModel) -> str:
    if isinstance(member.predictor, FunctionPredictor):
        return function_identity(member.predictor.function)
    assert member.tokenizer is not None
    weights = of_onnx(member.predictor) if member.model is None else model_hash(member.model)
    prompt = [] if member.template is None else [member.template]
    return digest([weights, tokenization_hash(member.tokenizer), *prompt])
