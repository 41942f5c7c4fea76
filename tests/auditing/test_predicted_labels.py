"""Kappa and macro F1 against scikit-learn, pairs of labels against a naive count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score

from gradistill.auditing.per_example import columns_of, estimates
from gradistill.auditing.predicted_labels import disagreements, label_pairs
from gradistill.auditing.predictions import Predictions


def labels(classes: int, rows: int, agree: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two models' labels, the first class in half of the rows."""
    rng = np.random.default_rng(seed)
    teacher = rng.choice(classes, rows, p=[0.5, *[0.5 / (classes - 1)] * (classes - 1)])
    return np.where(rng.random(rows) < agree, teacher, rng.integers(0, classes, rows)), teacher


def estimated(student: np.ndarray, teacher: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    """The figures of the audit."""
    columns = {"student_label": student, "teacher_label": teacher, "gold": gold}
    return {name: e for group in estimates(columns).values() for name, e in group.items()}


@pytest.mark.parametrize(("classes", "rows"), [(2, 60), (5, 200), (77, 400)])
def test_kappa_and_macro_f1_are_those_of_scikit_learn(classes: int, rows: int) -> None:
    (student, teacher), gold = labels(classes, rows, 0.7), labels(classes, rows, 0.5, seed=1)[1]
    found = estimated(student, teacher, gold)
    assert found["kappa"].value == pytest.approx(cohen_kappa_score(student, teacher))
    assert found["teacher_macro_f1"].value == pytest.approx(f1_score(gold, teacher, average="macro"))
    assert found["student_macro_f1"].value == pytest.approx(f1_score(gold, student, average="macro"))
    for figure in found.values():
        assert figure.low < figure.value < figure.high
        assert figure.n == rows


def test_kappa_of_several_labels_is_that_of_all_yes_and_no_together() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.random((80, 5)) < 0.3
    student = teacher ^ (rng.random((80, 5)) < 0.15)
    both = [Predictions(np.where(flags, 1.0, -1.0), multi_label=True) for flags in (student, teacher)]
    found = estimates(columns_of(*both, None))["loyalty"]["kappa"]
    assert found.value == pytest.approx(cohen_kappa_score(student.ravel(), teacher.ravel()))
    assert found.low < found.value < found.high
    assert (found.n, estimates(columns_of(both[1], both[1], None))["loyalty"]["kappa"].value) == (80, 1.0)


def test_the_interval_of_kappa_is_the_bootstrap_of_scikit_learns() -> None:
    student, teacher = labels(3, 120, 0.6)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, 120, 120) for _ in range(1000)]
    low, high = np.quantile([cohen_kappa_score(student[d], teacher[d]) for d in drawn], [0.025, 0.975])
    found = estimated(student, teacher, teacher)["kappa"]
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)  # of 1,000 and 2,000 resamples


def test_a_frequent_class_makes_label_loyalty_high_and_leaves_kappa_at_zero() -> None:
    teacher = np.array([0] * 95 + [1] * 5)
    always = np.zeros(100, int)
    assert (always == teacher).mean() == 0.95
    assert estimated(always, teacher, teacher)["kappa"].value == pytest.approx(0)
    assert np.isnan(estimated(always, always, teacher)["kappa"].value), "chance agrees on every row"


def test_pairs_are_the_confusion_matrix_without_its_zeros() -> None:
    student, teacher = labels(4, 50, 0.5)
    matrix = confusion_matrix(teacher, student)
    pairs = label_pairs(student, teacher, "abcd")
    assert sum(pair["n"] for pair in pairs) == 50
    assert {("abcd".index(p["teacher"]), "abcd".index(p["student"])): p["n"] for p in pairs} == {
        (t, s): matrix[t, s] for t, s in zip(*matrix.nonzero(), strict=True)
    }
    assert [p["n"] for p in pairs] == sorted((p["n"] for p in pairs), reverse=True)


def test_disagreements_by_confidence() -> None:
    same = np.array([True, False, False, True, False])
    assert disagreements(same, np.array([0.4, 0.95, 0.9, 1.0, 0.55])) == [
        {"low": 0.0, "high": 0.5, "n": 1, "other": 0},
        {"low": 0.5, "high": 0.6, "n": 1, "other": 1},
        {"low": 0.9, "high": 1.0, "n": 3, "other": 2},
    ]
