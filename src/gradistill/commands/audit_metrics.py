"""The task's own metrics of every model of an audit, and what they raise doubts about."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from gradistill.auditing.per_example import Columns, value_of
from gradistill.auditing.slices import MIN_ROWS
from gradistill.auditing.summary import Audited
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.data_warnings import constant_answer_warning
from gradistill.data import Splits
from gradistill.data.constant_answer import constant_metrics
from gradistill.data.multilabel_metrics import MULTI_LABEL_METRICS
from gradistill.data.span_metrics import SPAN_F1, no_span_warning
from gradistill.data.tasks import Task, metrics_of


def task_metrics(audited: Audited, splits: Splits) -> dict[str, Any]:
    """The task's own metrics of every model, on the rows that have a label."""
    if splits.task.token_labels:
        return {"metrics": _metrics_of_words(audited, splits.task)}
    gold = audited.columns[0].get("gold")
    if gold is None:
        return {"metrics": {}}
    constant = {"constant_metrics": constant_metrics(splits.task, gold)}
    if splits.task.multi_label:
        return constant | {"metrics": _metrics_of_several(audited, splits, gold)}
    students = dict(zip(audited.names, (_predicted(own, "student") for own in audited.columns), strict=True))
    models = students | {"teacher": _predicted(audited.columns[0], "teacher")}
    known = splits.task.labelled(gold)
    if not known.any():
        return {"metrics": {}}
    order = dict.fromkeys(("teacher", *models))
    metrics = {name: metrics_of(splits.task, models[name][known], gold[known]) for name in order}
    return constant | {"metrics": metrics}


def teacher_doubts(audited: Audited, splits: Splits) -> list[str]:
    if splits.task.token_labels:
        problem = _finds_no_span(splits.task, audited.columns[0], "teacher", "teacher")
        return [problem] if problem else []
    gold = audited.columns[0].get("gold")
    if gold is None:
        return []
    warning = constant_answer_warning(splits.task, _predicted(audited.columns[0], "teacher"), gold)
    return [warning] if warning else []


def weak_models(audited: Audited, splits: Splits) -> list[str]:
    """Students that are no better than a constant answer, or find no span of words, where their teacher is better; and
    such a reference, where it predicts enough rows."""
    owners = {f"student {name!r}": own for name, own in zip(audited.names, audited.columns, strict=True)}
    if audited.reference and (rows := _labelled_rows(audited.reference.columns)) >= MIN_ROWS:
        owners[f"reference, on the {rows} rows that it is compared on,"] = audited.reference.columns
    weak = _finds_no_span if splits.task.token_labels else _is_no_better
    return [*filter(None, (weak(splits.task, own, owner) for owner, own in owners.items()))]


def _labelled_rows(columns: Columns) -> int:
    """How many rows there are whose label, or tags, are known."""
    return len(columns.get("gold", columns.get(f"student_{SPAN_F1}_count", ())))


def _is_no_better(task: Task, own: Columns, owner: str) -> str | None:
    gold = own.get("gold")
    return None if gold is None else constant_answer_warning(task, _predicted(own, "student"), gold, owner)


def _finds_no_span(task: Task, own: Columns, owner: str, role: str = "student") -> str | None:
    if not own.get(f"{role}_span_recall_count", np.zeros(1)).any():  # no labels, or no span in any row
        return None
    return no_span_warning(_word_metrics(task, own, role), owner)


def rescaled_scores(audited: Audited, splits: Splits) -> list[str]:
    """Students whose scores are shifted against the teacher's, or spread far more or less: loyalty of scores is a
    correlation, which no shift and no scale changes."""
    if splits.task.labels is not None or splits.task.token_labels:
        return []
    found = []
    for name, own in zip(audited.names, audited.columns, strict=True):
        teacher, student = _predicted(own, "teacher"), _predicted(own, "student")
        shift, spread, scale = student.mean() - teacher.mean(), teacher.std(), student.std()
        if spread > 0 and (abs(shift) > spread / 2 or not 0.5 < scale / spread < 2):
            found.append(
                f"the scores of the student {name!r} are {shift:+.3g} from the teacher's on average, and their "
                f"standard deviation is {scale:.3g}, the teacher's {spread:.3g}: a correlation sees neither"
            )
    return found


def without_flips(found: Mapping[str, Any], splits: Splits, choice: AuditChoice) -> list[str]:
    """That flips are left out where no change of words turned the teacher's label, so that there was nothing to see."""
    task = splits.task
    if task.labels is None or task.multi_label or task.token_labels or not choice.response_rows:
        return []
    there = {name for student in found["students"] for name in student["figures"].get("loyalty", {})}
    if "flips" in there:
        return []
    return [
        "flips and kept labels are left out: replaced words turn the label of the teacher on none of the rows for "
        "response loyalty, or only where no student had that label"
    ]


def _metrics_of_words(audited: Audited, task: Task) -> dict[str, dict[str, float]]:
    """The metrics of words and spans of every model; none without labels."""
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    found = {name: _word_metrics(task, audited.columns[k], role) for name, (k, role) in owners.items()}
    return {name: metrics for name, metrics in found.items() if metrics}


def _word_metrics(task: Task, columns: Columns, role: str) -> dict[str, float]:
    """The metrics of words and spans of a model, from the sums of the rows; empty without labels."""
    if not any(name.startswith(f"{role}_") for name in columns):
        return {}
    return {name: _or_zero(value_of(columns, f"{role}_{name}")) for name in task.metrics}


def _or_zero(value: float) -> float:
    """A figure of spans of which there are none is 0."""
    return value if isfinite(value) else 0.0


def _metrics_of_several(audited: Audited, splits: Splits, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """The task's metrics of every model from its flags and logits, on the rows whose labels are known."""
    known = splits.task.labelled(gold)
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    found = {}
    for name, (k, role) in owners.items() if known.any() else ():
        flags, logits = (audited.columns[k][f"{role}_{part}"][known] for part in ("flags", "logits"))
        values = {metric: MULTI_LABEL_METRICS[metric] for metric in splits.task.metrics}
        found[name] = {metric: of(gold[known] > 0, flags, logits) for metric, of in values.items()}
    return found


def _predicted(columns: Columns, role: str) -> np.ndarray:
    kind = next(kind for kind in ("flags", "label", "prediction") if f"{role}_{kind}" in columns)
    return columns[f"{role}_{kind}"]
