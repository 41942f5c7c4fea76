"""The metrics that one constant prediction for every row reaches. A model below them has learnt nothing."""

from __future__ import annotations

from typing import cast

import numpy as np

from gradistill.data.tasks import SCORE_METRICS, Task, metric_title, metrics_of


def constant_metrics(task: Task, labels: np.ndarray) -> dict[str, float]:
    """The highest value of each metric of ``task`` that a constant prediction reaches.

    Two metrics may have different best predictions. ``labels`` are class ids, scores, or flags ``(row, label)``. Rows
    without a label are left out; if none remain, the result is empty. A correlation with a constant is 0, as in
    ``compute_metrics``. A constant tag for all words finds no spans, so tasks with tags have no such figures.

    Example: ``constant_metrics(get_task("mrpc"), np.array([1, 1, 0]))["f1"]`` is .8
    """
    if task.token_labels:
        return {}
    labels = np.asarray(labels)
    labels = labels[task.labelled(labels)]
    if not len(labels):
        return {}
    if task.multi_label:
        best = _of_several_labels(labels > 0)
        return {name: best[name] for name in task.metrics}
    if task.labels is None:
        return dict.fromkeys(task.metrics, 0.0)
    answers = {_most_frequent(task, labels)} | ({task.positive} if task.num_labels == 2 else set())
    metrics = [metrics_of(task, np.full_like(labels, answer), labels) for answer in answers]
    return {name: max(each[name] for each in metrics) for name in task.metrics}


def no_better_than_constant(task: Task, predicted: np.ndarray, labels: np.ndarray) -> str | None:
    """How predictions fail to be better than one prediction for every row; None where they are better.

    ``predicted`` are class ids, scores, or flags of several labels. Classes are compared by accuracy and by the metric
    that the task selects by. Rows without a label are left out. If all labels are equal, the result is None.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    known = task.labelled(labels)
    labels, predicted = labels[known], predicted[known]
    if task.multi_label:
        return _no_better_than_some_labels(task, predicted > 0, labels > 0)
    predicted = predicted.reshape(-1)
    if len(labels) < 2 or np.ptp(labels) == 0:
        return None
    if task.labels is None:
        value = SCORE_METRICS["spearman"](labels, predicted)
        return f"its predictions do not rise with the scores (Spearman {value:.3f})" if value <= 0 else None
    usual = _most_frequent(task, labels)
    accuracy, share = float((predicted == labels).mean()), float((labels == usual).mean())
    if accuracy <= share:
        return f"its accuracy is {accuracy:.3f}, and {task.labels[usual]!r} for every row gives {share:.3f}"
    select = task.select
    value, constant = metrics_of(task, predicted, labels)[select], constant_metrics(task, labels)[select]
    if value > constant:
        return None
    title = metric_title(select, task.positive_label)
    return f"its {title} is {value:.3f}, and one answer for every row gives {constant:.3f}"


def _most_frequent(task: Task, labels: np.ndarray) -> int:
    return int(np.bincount(labels, minlength=task.num_labels).argmax())


def _of_several_labels(flags: np.ndarray) -> dict[str, float]:
    """The highest metrics of predicted flags that are the same in every row, in closed form."""
    shares, present = flags.mean(axis=0), flags.any(axis=0)
    _, counts = np.unique(flags, axis=0, return_counts=True)
    return {
        "micro_f1": float(_micro_f1_of_the_first(flags).max()),
        "macro_f1": float((2 * shares / (1 + shares)).mean()),
        "average_precision": float(shares[present].mean()) if present.any() else 0.0,
        "exact_match": float(counts.max() / len(flags)),
    }


def _micro_f1_of_the_first(flags: np.ndarray) -> np.ndarray:
    """Micro F1 if every row gets the one, two, three … most frequent labels; no other set of that size is better."""
    right = np.sort(flags.sum(axis=0))[::-1].cumsum()
    given = len(flags) * np.arange(1, len(right) + 1)
    return 2 * right / (given + flags.sum())


def _no_better_than_some_labels(task: Task, predicted: np.ndarray, flags: np.ndarray) -> str | None:
    if not flags.any() or flags.all():
        return None
    constant = _micro_f1_of_the_first(flags)
    best = int(constant.argmax())
    value = 2 * (flags & predicted).sum() / (flags.sum() + predicted.sum())
    if value > constant[best]:
        return None
    usual = cast("tuple[str, ...]", task.labels)[int(flags.sum(axis=0).argmax())]
    same = repr(usual) if not best else f"the same {best + 1} labels"
    return f"its micro F1 is {value:.3f}, and {same} for every row gives {constant[best]:.3f}"
