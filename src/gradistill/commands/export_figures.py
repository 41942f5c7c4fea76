"""How far exported models decide as the student and the teacher do, on rows of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradistill.auditing.loyalty_measures import label_agreement, loyalty, pearson
from gradistill.auditing.metric_intervals import metric_estimates
from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.auditing.per_example import estimates, flat
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import Predictor
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.word_examiner import TextRows, WordExaminer
from gradistill.auditing.word_maps import row_texts
from gradistill.commands.audit_models import AuditModel
from gradistill.commands.data_warnings import log_splits, with_positive
from gradistill.commands.export_choice import LOYALTIES, ExportChoice
from gradistill.commands.row_sample import POOL_ROWS, drawn_rows
from gradistill.data import DataChoice, Task, align_labels, read_splits
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import Texts, word_pool


@dataclass(frozen=True)
class ExportRows:
    """Rows that exported models are compared on. ``gold`` are class ids or scores, None without labels."""

    task: Task
    texts: Sequence[Texts]
    gold: np.ndarray | None
    response: TextRows
    pool: Sequence[str]
    source: str

    @classmethod
    def read(cls, data: DataChoice, choice: ExportChoice, student: AuditModel) -> ExportRows:
        """The rows of the split, their labels in the student's order. Raises DataError for what does not fit."""
        names = student.labels or ("LABEL_0",)
        splits = read_splits(data, (choice.split,), outputs=names)
        splits = align_labels(splits, dict(enumerate(names)), label_map=data.label_map)
        splits = with_positive(splits, data.positive, [student.folder])
        log_splits(splits)
        every, task = splits.rows[choice.split], splits.task
        rows, few, words = (
            drawn_rows(every, n, choice.seed) for n in (choice.max_rows, choice.response_rows, POOL_ROWS)
        )
        gold = None if choice.split in splits.without_labels else np.asarray(rows["label"][:])
        response = TextRows(row_texts(few, task), few["index"][:])
        return cls(task, row_texts(rows, task), gold, response, word_pool(row_texts(words, task)), data.name)

    @property
    def copies(self) -> list[Copy]:
        """The texts as predictors take them."""
        return [Copy(texts) for texts in self.texts]

    def about(self, split: str) -> dict[str, Any]:
        """What ``export.json`` says of the rows."""
        return {
            "task": self.task.name,
            "split": split,
            "rows": len(self.texts),
            "positive": self.task.positive_label,
            "pairs": len(self.task.text_columns) == 2,
        }


@dataclass(frozen=True)
class ModelFigures:
    """Figures of several ``predictors`` by name, on the same rows; each is asked once."""

    predictors: Mapping[str, Predictor]
    rows: ExportRows
    seed: int = 0

    @cached_property
    def logits(self) -> dict[str, np.ndarray]:
        """Those of every row by every model."""
        return {name: predictor.logits(self.rows.copies)[0] for name, predictor in self.predictors.items()}

    def loyalties(self, reference: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Label, probability, prediction and response loyalty of models to a reference, by model; each as in an audit:
        value, interval, n."""
        found = {}
        responses = self._responses(reference, names)
        for name in names:
            figures = loyalty(
                Predictions(self.logits[name]), Predictions(self.logits[reference]), seed=self.seed
            ).figures
            figures["response"] = responses.get(name)
            known = {figure: figures[figure] for figure in LOYALTIES}
            found[name] = {figure: value.as_dict() for figure, value in known.items() if value is not None}
        return found

    def _responses(self, reference: str, names: Sequence[str]) -> dict[str, Estimate | None]:
        if not self.rows.response.texts or not names:
            return {}
        students = [self.predictors[name] for name in names]
        examiner = WordExaminer(self.predictors[reference], students, self.rows.pool, seed=self.seed)
        found = examiner.response(self.rows.response, masked=False)
        return {
            name: flat(estimates(one.columns, ["response"], seed=self.seed)).get("response")
            for name, one in zip(names, found, strict=True)
        }

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The task's metrics of every model with their intervals, on the rows that have a label."""
        gold, task = self.rows.gold, self.rows.task
        if gold is None:
            return {}
        known = np.isfinite(gold) if task.labels is None else gold >= 0
        if not known.any():
            return {}
        found = {
            name: metric_estimates(task, values[known], gold[known], seed=self.seed)
            for name, values in self.logits.items()
        }
        return {name: {k: e.as_dict() for k, e in estimate.items()} for name, estimate in found.items()}


def onnx_loyalty(predictor: OnnxPredictor, rows: ExportRows, student: np.ndarray) -> float:
    """The share of rows for which an ONNX model predicts the student's label; the correlation in a regression."""
    own = predictor.logits(rows.copies)[0]
    if rows.task.labels is None:
        return float(pearson(own[:, 0], student[:, 0]))
    return float(label_agreement(own, student).mean())
