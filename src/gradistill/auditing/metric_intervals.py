"""A task's metrics with intervals: the values of ``data.tasks.compute_metrics``, and a bootstrap over rows.

Metrics are computed for all resamples at once where a closed form allows it, as scikit-learn needs milliseconds each.
With several labels a row, a resample is a vector of row counts, and metrics are weighted sums over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from gradistill.auditing.loyalty_measures import pearson
from gradistill.auditing.predicted_labels import macro_f1
from gradistill.auditing.statistics import (
    Bounds,
    Estimate,
    bootstrap_statistic,
    resample_interval,
    wilson_share,
)
from gradistill.data.multilabel_metrics import assigned
from gradistill.data.tasks import Task, compute_metrics, metrics_of

RESAMPLES = 1000
AT_ONCE = 100
"""Resamples that are in memory at a time, with several labels a row."""

SHARE = (0.0, 1.0)
OVER_CLASSES = ("macro_f1", "average_precision")
"""Metrics that are means over classes or labels, some of which a resample may lack. Both are in 0..1."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def metric_estimates(
    task: Task, logits: np.ndarray, gold: np.ndarray, *, thresholds: np.ndarray | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """The metrics of ``task`` with 95 % intervals: Wilson's for accuracy and exact match, bootstrap for the others.

    ``logits`` has one row for each example. ``gold`` has the class id or score of each, or flags with several labels a
    row; a label is then predicted if its probability is above its entry of ``thresholds`` (½ by default).

    Example: ``metric_estimates(task, logits, labels)["accuracy"].low``
    """
    if task.multi_label:
        return _of_several_labels(task, logits, gold > 0, thresholds, seed)
    predicted = logits[:, 0] if task.labels is None else logits.argmax(axis=1)
    values, estimates = metrics_of(task, predicted, gold), dict[str, Estimate]()
    ours, theirs = predicted.astype(np.float64), gold.astype(np.float64)
    for name in task.metrics:
        if name == "accuracy":
            interval = wilson_share(ours == theirs)
        else:
            interval = bootstrap_statistic(
                resampled_metric(task, name), ours, theirs, resamples=RESAMPLES, seed=seed, within=_bounds(name)
            )  # fmt: skip
        estimates[name] = Estimate(values[name], interval.low, interval.high, interval.n)
    return estimates


def _bounds(metric: str) -> Bounds | None:
    """The bounds of a metric that resamples may bias, else None."""
    return SHARE if metric in OVER_CLASSES else None


def resampled_metric(task: Task, name: str) -> Statistic:
    """A metric over many resamples: from predicted and gold arrays ``(resample, batch)`` it computes one value each.

    Example: ``resampled_metric(task, "f1")(predicted, gold)``
    """
    known: dict[str, Any] = {
        "f1": lambda ours, gold: _f1(ours == task.positive, gold == task.positive),
        "macro_f1": macro_f1,
        "matthews_correlation": _zero_for_nan(
            pearson
        ),  # for two classes it equals Pearson's r of the class ids
        "pearson": _zero_for_nan(pearson),
        "spearman": _zero_for_nan(lambda ours, gold: pearson(rankdata(ours, axis=1), rankdata(gold, axis=1))),
    }
    if name == "matthews_correlation" and task.num_labels != 2:
        return lambda ours, gold: np.array(
            [metrics_of(task, a.astype(int), b.astype(int))[name] for a, b in zip(ours, gold, strict=True)]
        )
    return known[name]


def _f1(ours: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """F1 of a class; 0 if it is neither predicted nor in the gold labels."""
    both, sizes = (ours & gold).sum(axis=1), ours.sum(axis=1) + gold.sum(axis=1)
    return np.divide(2.0 * both, sizes, out=np.zeros(len(sizes)), where=sizes > 0)


def _zero_for_nan(statistic: Statistic) -> Statistic:
    """``statistic`` with 0 in place of NaN: a correlation without variance is 0 in a task's metrics."""
    return lambda ours, gold: np.nan_to_num(statistic(ours, gold))


def _of_several_labels(
    task: Task, logits: np.ndarray, gold: np.ndarray, thresholds: np.ndarray | None, seed: int
) -> dict[str, Estimate]:
    flags, count = assigned(logits, thresholds), len(gold)
    values = compute_metrics(task, logits, gold, thresholds)
    draw, drawn = np.random.default_rng(seed), list[dict[str, np.ndarray]]()
    for _ in range(0, RESAMPLES if count > 1 else 0, AT_ONCE):
        weights = draw.multinomial(count, np.full(count, 1 / count), AT_ONCE).astype(np.float64)
        drawn.append(weighted_metrics(logits, flags, gold, weights))
    estimates = {}
    for name in task.metrics:
        if name == "exact_match":
            interval = wilson_share((flags == gold).all(axis=1))
            low, high = interval.low, interval.high
        else:
            every = np.array([value for part in drawn for value in part[name]])
            low, high = resample_interval(every, values[name], _bounds(name))
        estimates[name] = Estimate(values[name], low, high, count)
    return estimates


def weighted_metrics(
    logits: Float[np.ndarray, "row label"],
    flags: Bool[np.ndarray, "_ _"],
    gold: Bool[np.ndarray, "_ _"],
    weights: Float[np.ndarray, "resample _"],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Micro F1, macro F1 and average precision of rows that are weighted by ``weights``, defined as in scikit-learn.

    Example: ``weighted_metrics(logits, logits > 0, gold, np.ones((1, len(gold))))["micro_f1"][0]``
    """
    both, sizes = weights @ (flags & gold), weights @ flags + weights @ gold
    f1 = np.divide(2 * both, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    micro = _ratio(2 * both.sum(axis=1), sizes.sum(axis=1))
    precisions = [_average_precision(logits[:, k], gold[:, k], weights) for k in range(gold.shape[1])]
    present = weights @ gold > 0
    averaged = _ratio((np.stack(precisions, axis=1) * present).sum(axis=1), present.sum(axis=1))
    return {"micro_f1": micro, "macro_f1": f1.mean(axis=1), "average_precision": averaged}


def _average_precision(
    scores: Float[np.ndarray, " row"],
    gold: Bool[np.ndarray, " row"],
    weights: Float[np.ndarray, "resample row"],
) -> Float[np.ndarray, " resample"]:
    """Average precision: the mean, over rows with the label, of the precision among rows scored at least as high."""
    order = np.argsort(-scores, kind="stable")
    ends = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    ordered = weights[:, order]
    right, every = np.cumsum(ordered * gold[order], axis=1), np.cumsum(ordered, axis=1)
    precision = _ratio(right[:, ends], every[:, ends])
    return _ratio((precision * ordered * gold[order]).sum(axis=1), right[:, -1])


def _ratio(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The quotient; 0 where the divisor is 0."""
    return np.divide(of, to, out=np.zeros(np.shape(of)), where=to > 0)
