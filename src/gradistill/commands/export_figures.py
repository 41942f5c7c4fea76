"""Loyalties of exported models to the student and to the teacher, and their metrics, on rows of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import numpy as np

from gradistill.auditing.changed_text_comparison import ChangedTextComparison, TextRows
from gradistill.auditing.loyalty_measures import label_agreement, loyalty, pearson
from gradistill.auditing.metric_intervals import metric_estimates
from gradistill.auditing.per_example import estimates, without_groups
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor, label_thresholds
from gradistill.auditing.statistics import Estimate
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.data_warnings import log_splits, refuse_other_kind_of_model
from gradistill.commands.export_choice import LOYALTIES, ExportChoice
from gradistill.commands.recorded_data import read_as_trained, with_positive
from gradistill.commands.row_sample import WORD_POOL_ROWS, drawn_rows
from gradistill.data import DataChoice, Task, align_labels, read_splits
from gradistill.data.changed_copies import Copy
from gradistill.data.label_matching import Outputs
from gradistill.data.multilabel_metrics import assigned
from gradistill.data.raw_words import Texts, row_texts, word_pool


@dataclass(frozen=True)
class ExportRows:
    """Rows on which exported models are compared. ``gold`` are class ids or scores, None without labels."""

    task: Task
    texts: Sequence[Texts]
    gold: np.ndarray | None
    response: TextRows
    pool: Sequence[str]
    source: str

    @classmethod
    def read(cls, data: DataChoice, choice: ExportChoice, student: AuditModel) -> ExportRows:
        """The rows of the split, with class ids in the student's order. Raises DataError if they do not fit."""
        names = student.labels or ("LABEL_0",)
        if student.multi_label:
            data = replace(data, kind=data.kind or "multi_label")
        outputs = Outputs(names, data.label_map or {})
        splits = read_as_trained(
            data, [student.folder], partial(read_splits, splits=(choice.split,), outputs=outputs)
        )
        refuse_other_kind_of_model(splits.task, student.multi_label, "student")
        splits = align_labels(splits, dict(enumerate(names)), label_map=data.label_map)
        splits = with_positive(splits, data.positive, [student.folder])
        log_splits(splits)
        every, task = splits.rows[choice.split], splits.task
        rows, few, words = (
            drawn_rows(every, n, choice.seed) for n in (choice.max_rows, choice.response_rows, WORD_POOL_ROWS)
        )
        gold = None if choice.split in splits.without_labels else np.asarray(rows["label"][:])
        response = TextRows(row_texts(few, task), few["index"][:])
        return cls(task, row_texts(rows, task), gold, response, word_pool(row_texts(words, task)), data.name)

    @property
    def copies(self) -> list[Copy]:
        """The texts as predictors take them."""
        return [Copy(texts) for texts in self.texts]

    def about(self, split: str) -> dict[str, Any]:
        """The part of ``export.json`` about the rows."""
        return {
            "task": self.task.name,
            "split": split,
            "rows": len(self.texts),
            "positive": self.task.positive_label,
            "pairs": len(self.task.text_columns) == 2,
        }


@dataclass(frozen=True)
class ModelFigures:
    """Figures of several ``predictors`` by name, on the same rows. ``logits`` has each model's ``row_logits``."""

    predictors: Mapping[str, Predictor]
    rows: ExportRows
    logits: Mapping[str, np.ndarray]
    seed: int = 0

    def _predictions(self, name: str) -> Predictions:
        limits = label_thresholds(self.predictors[name])
        return Predictions(self.logits[name], multi_label=self.rows.task.multi_label, thresholds=limits)

    def loyalties(self, reference: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The loyalties of models to a reference, by model: label, probability, prediction, response. Each has value,
        interval and n, as in an audit."""
        loyalties = {}
        responses = self._responses(reference, names)
        for name in names:
            compared = self._predictions(name), self._predictions(reference)
            figures = loyalty(*compared, seed=self.seed).figures
            figures["response"] = responses.get(name)
            known = {figure: figures[figure] for figure in LOYALTIES}
            loyalties[name] = {
                figure: value.as_dict() for figure, value in known.items() if value is not None
            }
        return loyalties

    def _responses(self, reference: str, names: Sequence[str]) -> dict[str, Estimate | None]:
        if not self.rows.response.texts or not names:
            return {}
        students = [self.predictors[name] for name in names]
        several = self.rows.task.multi_label
        judge = self.predictors[reference]
        comparison = ChangedTextComparison(
            judge, students, self.rows.pool, seed=self.seed, multi_label=several
        )
        responses = comparison.response(self.rows.response, masked=False)
        return {
            name: without_groups(estimates(one.columns, ["response"], seed=self.seed)).get("response")
            for name, one in zip(names, responses, strict=True)
        }

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The task's metrics of every model with their intervals, on the rows that have a label."""
        gold, task = self.rows.gold, self.rows.task
        if gold is None:
            return {}
        known = task.labelled(gold)
        if not known.any():
            return {}
        intervals = {
            name: metric_estimates(
                task,
                values[known],
                gold[known],
                thresholds=label_thresholds(self.predictors[name]),
                seed=self.seed,
            )
            for name, values in self.logits.items()
        }
        return {name: {k: e.as_dict() for k, e in estimate.items()} for name, estimate in intervals.items()}


def row_logits(predictor: Predictor, rows: ExportRows) -> np.ndarray:
    """The logits ``(row, label)`` of a model for every row."""
    return predictor.logits(rows.copies)[0]


def loyalty_of(own: np.ndarray, student: np.ndarray, task: Task, thresholds: np.ndarray | None) -> float:
    """The share of rows with the same predicted label in both models; multi-label: the share of equal labels. In a
    regression it is the correlation, and 0 if that is not defined because all scores are equal."""
    if task.labels is None:
        correlated = float(pearson(own[:, 0], student[:, 0]))
        return correlated if isfinite(correlated) else 0.0
    if task.multi_label:
        return float((assigned(own, thresholds) == assigned(student, thresholds)).mean())
    return float(label_agreement(own, student).mean())
