"""Metrics of tasks with intervals: the values are scikit-learn's, also those of every resample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradistill.auditing.metric_intervals import metric_estimates, resampled_metric, weighted_metrics
from gradistill.data.multilabel_metrics import assigned
from gradistill.data.tasks import Task, compute_metrics, metrics_of

TWO = Task("two", ("text",), ("no", "yes"), ("accuracy", "f1", "macro_f1", "matthews_correlation"), "f1")
THREE = replace(TWO, labels=("a", "b", "c"))
SCORE = Task("score", ("text",), None, ("spearman", "pearson"), "pearson")


@pytest.mark.parametrize(
    "task", [TWO, replace(TWO, positive=0), THREE, SCORE], ids=["two", "other", "three", "score"]
)
def test_every_resample_has_the_metric_of_scikit_learn(task: Task) -> None:
    draw = np.random.default_rng(0)
    shape = (20, 12)
    if task.labels is None:
        ours, gold = draw.normal(size=shape), draw.integers(0, 5, shape).astype(float)
        ours[0] = 1.0
    else:
        ours, gold = (draw.integers(0, len(task.labels), shape) for _ in range(2))
        ours[0] = gold[0] = 1 - min(task.positive, 1)
    for name in task.metrics:
        if name == "accuracy":
            continue
        found = resampled_metric(task, name)(ours.astype(float), gold.astype(float))
        wanted = [metrics_of(task, a, b)[name] for a, b in zip(ours, gold, strict=True)]
        assert found == pytest.approx(wanted), name


def test_intervals_hold_their_values() -> None:
    draw = np.random.default_rng(1)
    logits, gold = draw.normal(size=(60, 2)), draw.integers(0, 2, 60)
    found = metric_estimates(TWO, logits, gold)
    assert {name: e.value for name, e in found.items()} == metrics_of(TWO, logits.argmax(axis=1), gold)
    assert all(e.low < e.value < e.high and e.n == 60 for e in found.values())


def test_several_labels_a_row_have_the_metrics_of_scikit_learn_on_repeated_rows() -> None:
    """A row that is drawn twice is two rows. Scores are rounded, so that some are equal."""
    draw = np.random.default_rng(2)
    metrics = ("micro_f1", "macro_f1", "average_precision", "exact_match")
    task = replace(THREE, metrics=metrics, select="micro_f1", multi_label=True)
    gold = draw.random((15, 3)) < [0.5, 0.2, 0.05]
    logits = np.round(draw.normal(size=(15, 3)) + gold, 1)
    thresholds = np.array([0.4, 0.5, 0.7])
    weights = draw.multinomial(15, np.full(15, 1 / 15), 20)
    found = weighted_metrics(logits, assigned(logits, thresholds), gold, weights.astype(float))
    for k, counts in enumerate(weights):
        rows = np.repeat(np.arange(15), counts)
        wanted = compute_metrics(task, logits[rows], gold[rows], thresholds)
        assert {name: values[k] for name, values in found.items()} == pytest.approx(
            {name: wanted[name] for name in metrics[:3]}
        )
    estimates = metric_estimates(task, logits, gold.astype(float), thresholds=thresholds)
    for name, value in compute_metrics(task, logits, gold, thresholds).items():
        assert estimates[name].value == pytest.approx(value)
        assert estimates[name].low <= value <= estimates[name].high


def test_metrics_without_spread_have_no_interval() -> None:
    """One that begins and ends at its value would be read as certain."""
    metrics = ("micro_f1", "average_precision", "exact_match")
    task = replace(TWO, metrics=metrics, select="micro_f1", multi_label=True)
    gold = np.array([[1, 0], [0, 1], [1, 1], [1, 0]] * 3, dtype=float)
    found = metric_estimates(task, 10 * gold - 5, gold)
    for name in ("micro_f1", "average_precision"):
        assert (found[name].value, np.isnan(found[name].low)) == (1.0, True)
    assert found["exact_match"].low < found["exact_match"].high
