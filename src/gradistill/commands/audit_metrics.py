"""The task's own metrics of every model of an audit, and warnings that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from gradistill.auditing.per_example import Columns, value_of
from gradistill.auditing.slices import MIN_ROWS
from gradistill.auditing.summary import Audited
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.data_warnings import constant_prediction_warning
from gradistill.data import Splits
from gradistill.data.constant_prediction import constant_metrics
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
    students = dict(
        zip(audited.names, (_predicted(columns, "student") for columns in audited.columns), strict=True)
    )
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
    warning = constant_prediction_warning(splits.task, _predicted(audited.columns[0], "teacher"), gold)
    return [warning] if warning else []


def weak_model_warnings(audited: Audited, splits: Splits) -> list[str]:
    """A warning for each student, and for the reference, that is no better than a constant prediction or finds no span
    of words. The reference needs ``MIN_ROWS`` labelled rows."""
    owners = {
        f"student {name!r}": columns for name, columns in zip(audited.names, audited.columns, strict=True)
    }
    if audited.reference and (rows := _labelled_rows(audited.reference.columns)) >= MIN_ROWS:
        owners[f"reference, on the {rows} rows that it is compared on,"] = audited.reference.columns
    weak = _finds_no_span if splits.task.token_labels else _is_no_better
    return [*filter(None, (weak(splits.task, columns, owner) for owner, columns in owners.items()))]


def _labelled_rows(columns: Columns) -> int:
    """The number of rows with a known label, or known tags."""
    return len(columns.get("gold", columns.get(f"student_{SPAN_F1}_count", ())))


def _is_no_better(task: Task, own: Columns, owner: str) -> str | None:
    gold = own.get("gold")
    return (
        None if gold is None else constant_prediction_warning(task, _predicted(own, "student"), gold, owner)
    )


def _finds_no_span(task: Task, own: Columns, owner: str, role: str = "student") -> str | None:
    if not own.get(f"{role}_span_recall_count", np.zeros(1)).any():  # no labels, or no span in any row
        return None
    return no_span_warning(_word_metrics(task, own, role), owner)


def scale_warnings(audited: Audited, splits: Splits) -> list[str]:
    """A warning for each student whose scores are shifted against the teacher's, or have another spread. Loyalty of
    scores is a correlation, which does not depend on shift and scale."""
    if splits.task.labels is not None or splits.task.token_labels:
        return []
    warnings = []
    for name, columns in zip(audited.names, audited.columns, strict=True):
        teacher, student = _predicted(columns, "teacher"), _predicted(columns, "student")
        shift, spread, scale = student.mean() - teacher.mean(), teacher.std(), student.std()
        if spread > 0 and (abs(shift) > spread / 2 or not 0.5 < scale / spread < 2):
            warnings.append(
                f"the scores of the student {name!r} are {shift:+.3g} from the teacher's on average, and their "
                f"standard deviation is {scale:.3g}, the teacher's {spread:.3g}; prediction loyalty is a correlation "
                "and does not show this"
            )
    return warnings


def flip_warnings(found: Mapping[str, Any], splits: Splits, choice: AuditChoice) -> list[str]:
    """A warning where no replaced word changes the teacher's label, so that there are no flips."""
    task = splits.task
    if task.labels is None or task.multi_label or task.token_labels or not choice.response_rows:
        return []
    measured = {name for student in found["students"] for name in student["figures"].get("loyalty", {})}
    if "flips" in measured:
        return []
    return [
        "flips and kept labels are left out: replaced words change the teacher's label on none of the rows for "
        "response loyalty, or only where no student had that label"
    ]


def _metrics_of_words(audited: Audited, task: Task) -> dict[str, dict[str, float]]:
    """The metrics of words and spans of every model; empty without labels."""
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    metrics_by_name = {
        name: _word_metrics(task, audited.columns[k], role) for name, (k, role) in owners.items()
    }
    return {name: metrics for name, metrics in metrics_by_name.items() if metrics}


def _word_metrics(task: Task, columns: Columns, role: str) -> dict[str, float]:
    """One model's metrics of words and spans, from the sums over rows; empty without labels."""
    if not any(name.startswith(f"{role}_") for name in columns):
        return {}
    return {name: _or_zero(value_of(columns, f"{role}_{name}")) for name in task.metrics}


def _or_zero(value: float) -> float:
    """The value, or 0 if it is not finite because there are no spans."""
    return value if isfinite(value) else 0.0


def _metrics_of_several(audited: Audited, splits: Splits, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """The task's metrics of every model from its flags and logits, on the rows whose labels are known."""
    known = splits.task.labelled(gold)
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    metrics = {}
    for name, (k, role) in owners.items() if known.any() else ():
        flags, logits = (audited.columns[k][f"{role}_{part}"][known] for part in ("flags", "logits"))
        values = {metric: MULTI_LABEL_METRICS[metric] for metric in splits.task.metrics}
        metrics[name] = {metric: of(gold[known] > 0, flags, logits) for metric, of in values.items()}
    return metrics


def _predicted(columns: Columns, role: str) -> np.ndarray:
    kind = next(kind for kind in ("flags", "label", "prediction") if f"{role}_{kind}" in columns)
    return columns[f"{role}_{kind}"]
