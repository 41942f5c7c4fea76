"""Metrics of tasks with intervals: the values are scikit-learn's, also those of every resample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradistill.auditing.metric_intervals import metric_estimates, resampled_metric
from gradistill.data.tasks import Task, metrics_of

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
