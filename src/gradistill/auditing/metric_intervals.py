"""A task's metrics with their intervals: the same values as ``data.tasks.metrics_of``, and a bootstrap over rows.

Metrics are computed for all resamples at once where a closed form allows it, as scikit-learn needs milliseconds each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata

from gradistill.auditing.loyalty_measures import pearson
from gradistill.auditing.predicted_labels import macro_f1
from gradistill.auditing.statistics import Estimate, bootstrap_statistic, wilson_share
from gradistill.data.tasks import Task, metrics_of

RESAMPLES = 1000

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def metric_estimates(
    task: Task, logits: np.ndarray, gold: np.ndarray, *, seed: int = 0
) -> dict[str, Estimate]:
    """The metrics of ``task`` with 95 % intervals: Wilson's for accuracy, the bootstrap's for all else.

    ``logits`` has one row an example, ``gold`` the class id or score of each.

    Example: ``metric_estimates(task, logits, labels)["accuracy"].low``
    """
    predicted = logits[:, 0] if task.labels is None else logits.argmax(axis=1)
    values, found = metrics_of(task, predicted, gold), dict[str, Estimate]()
    ours, theirs = predicted.astype(np.float64), gold.astype(np.float64)
    for name in task.metrics:
        if name == "accuracy":
            interval = wilson_share(ours == theirs)
        else:
            interval = bootstrap_statistic(
                resampled_metric(task, name), ours, theirs, resamples=RESAMPLES, seed=seed
            )
        found[name] = Estimate(values[name], interval.low, interval.high, interval.n)
    return found


def resampled_metric(task: Task, name: str) -> Statistic:
    """A metric of many resamples at once: of predicted and gold arrays ``(resample, batch)``, one value a row.

    Example: ``resampled_metric(task, "f1")(predicted, gold)``
    """
    known: dict[str, Any] = {
        "f1": lambda ours, gold: _f1(ours == task.positive, gold == task.positive),
        "macro_f1": macro_f1,
        "matthews_correlation": _zero_for_nan(pearson),  # of two classes it is Pearson's r of their ids
        "pearson": _zero_for_nan(pearson),
        "spearman": _zero_for_nan(lambda ours, gold: pearson(rankdata(ours, axis=1), rankdata(gold, axis=1))),
    }
    if name == "matthews_correlation" and task.num_labels != 2:
        return lambda ours, gold: np.array(
            [metrics_of(task, a.astype(int), b.astype(int))[name] for a, b in zip(ours, gold, strict=True)]
        )
    return known[name]


def _f1(ours: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """F1 of a class, 0 where neither side has it."""
    both, sizes = (ours & gold).sum(axis=1), ours.sum(axis=1) + gold.sum(axis=1)
    return np.divide(2.0 * both, sizes, out=np.zeros(len(sizes)), where=sizes > 0)


def _zero_for_nan(statistic: Statistic) -> Statistic:
    """Without spread there is no correlation; the metrics of a task call that 0."""
    return lambda ours, gold: np.nan_to_num(statistic(ours, gold))
