"""What the same prediction for every row reaches, found by trying every one of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill.data.constant_prediction import constant_metrics, no_better_than_constant
from gradistill.data.tasks import Task, compute_metrics, get_task, inferred_task, metrics_of

SEVERAL = inferred_task(("text",), ("a", "b", "c"), "", multi_label=True)
FOUR = Task("four", ("text",), tuple("wxyz"), ("accuracy", "macro_f1", "matthews_correlation"), "macro_f1")


@pytest.mark.parametrize("task", [get_task("mrpc"), get_task("cola"), FOUR], ids=lambda task: task.name)
@given(data=st.data())
def test_of_classes_no_answer_is_better_in_any_metric(task: Task, data: st.DataObject) -> None:
    ids = st.integers(0, task.num_labels - 1)
    labels = np.array(data.draw(st.lists(ids, min_size=1, max_size=20)))
    every = [metrics_of(task, np.full_like(labels, answer), labels) for answer in range(task.num_labels)]
    best = {name: max(each[name] for each in every) for name in task.metrics}
    assert constant_metrics(task, labels) == pytest.approx(best)


@settings(max_examples=10)
@given(flags=st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=12))
def test_of_several_labels_no_set_of_them_is_better_in_any_metric(flags: list[tuple[bool, ...]]) -> None:
    gold = np.array(flags, float)
    every = [
        compute_metrics(SEVERAL, np.tile(np.where(answer, 1.0, -1.0), (len(gold), 1)), gold)
        for answer in product((False, True), repeat=3)
    ]
    best = {name: max(each[name] for each in every) for name in SEVERAL.metrics}
    assert constant_metrics(SEVERAL, gold) == pytest.approx(best)


def test_rows_without_a_label_are_left_out() -> None:
    assert constant_metrics(get_task("mrpc"), np.array([1, 1, -1, 0])) == pytest.approx(
        {"f1": 0.8, "accuracy": 2 / 3}
    )
    assert constant_metrics(get_task("stsb"), np.array([1.0, np.nan])) == {"spearman": 0.0, "pearson": 0.0}
    assert constant_metrics(get_task("sst2"), np.array([-1, -1])) == {}
    assert constant_metrics(SEVERAL, np.full((2, 3), np.nan)) == {}


def test_accuracy_above_the_most_frequent_class_is_not_enough() -> None:
    """Of 70 rows with the positive class 29 are missed: accuracy .71 is above .70, F1 82 / 111 below 140 / 170."""
    gold = np.repeat([1, 0], [70, 30])
    predicted = np.repeat([1, 0], [41, 59])
    assert (
        no_better_than_constant(get_task("mrpc"), predicted, gold)
        == "its f1 (equivalent) is 0.739, and one answer for every row gives 0.824"
    )
    assert no_better_than_constant(get_task("qqp"), predicted, gold) is None  # selects by accuracy
    assert no_better_than_constant(get_task("mrpc"), gold, gold) is None


def test_predicted_labels_that_are_no_better_than_the_same_for_every_row() -> None:
    gold = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]], float)
    same = np.tile([True, True, False], (4, 1))
    assert no_better_than_constant(SEVERAL, gold > 0, gold) is None
    # a and b for every row: 2 · 5 / (8 + 6)
    assert "gives 0.714" in str(no_better_than_constant(SEVERAL, same, gold))
    assert no_better_than_constant(SEVERAL, gold > 0, np.full((4, 3), np.nan)) is None
