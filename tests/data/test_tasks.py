"""Known tasks, what a task refuses to be, and metrics beside scikit-learn and scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from gradistill.data.multilabel_metrics import choose_thresholds
from gradistill.data.tasks import (
    TASKS,
    Task,
    compute_metrics,
    get_task,
    label_key,
)
from gradistill.errors import DataError, RecipeError

LOGITS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 60)


def test_known_tasks_agree_with_their_kind() -> None:
    assert set(TASKS) == {"cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli", "snli"}
    assert TASKS["stsb"].problem_type == "regression"
    assert TASKS["stsb"].num_labels == 1
    assert TASKS["mnli"].problem_type == "single_label_classification"
    assert TASKS["mnli"].num_labels == 3
    assert TASKS["mnli"].validation == "validation_matched"
    assert (TASKS["mrpc"].select, TASKS["qqp"].select, TASKS["stsb"].select) == ("f1", "accuracy", "spearman")


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no task 'sst-2'\.\nTo do: did you mean 'sst2'"):
        get_task("sst-2")


@pytest.mark.parametrize(
    ("fields", "printed"),
    [
        ({"text_columns": ()}, "text columns"),
        ({"text_columns": ("a", "a")}, "text columns"),
        ({"text_columns": ("label",)}, "'label'"),
        ({"labels": ("only",)}, "labels"),
        ({"labels": ("Yes", "yes")}, "letter case"),
        ({"metrics": ("pearson",)}, "'pearson'.*\n*.*accuracy"),
        ({"select": "f1"}, "select 'f1'"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(fields: dict[str, object], printed: str) -> None:
    good = {"text_columns": ("a",), "labels": ("x", "y"), "metrics": ("accuracy",), "select": "accuracy"}
    with pytest.raises(RecipeError, match=printed):
        Task("mine", **{**good, **fields})  # type: ignore[arg-type]


def test_the_metric_that_selects_is_the_first() -> None:
    """Searches, tables and cards take the first one."""
    task = Task("own", ("text",), ("x", "y", "z"), ("accuracy", "f1"), select="f1")
    assert (task.metrics, task.select) == (("macro_f1", "accuracy"), "macro_f1")
    assert [*compute_metrics(task, LOGITS, LABELS)] == ["macro_f1", "accuracy"]


def test_label_keys_join_spellings_of_one_label() -> None:
    assert {label_key(x) for x in (1, 1.0, "1", " 1.0 ", "+1")} == {"1"}
    assert label_key("01") == "01"
    assert label_key("Positive ") == label_key("positive")
    assert label_key("\ufeffposi\u00adtive \u200b") == "positive"
    assert label_key(True) == "true"
    assert len({label_key(x) for x in ("B", "B-", "B+", "1.5", 1)}) == 5


def test_class_metrics_are_those_of_scikit_learn() -> None:
    three = Task("t", ("a",), ("x", "y", "z"), ("accuracy", "f1", "matthews_correlation"), "f1")
    predicted = LOGITS.argmax(1)
    assert compute_metrics(three, LOGITS, LABELS) == {
        "accuracy": accuracy_score(LABELS, predicted),
        "macro_f1": f1_score(LABELS, predicted, average="macro"),
        "matthews_correlation": matthews_corrcoef(LABELS, predicted),
    }


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_f1_counts_the_positive_class(positive: int) -> None:
    two = Task("t", ("a",), ("x", "y"), ("f1",), "f1", positive=positive)
    labels, logits = LABELS.clip(max=1), LOGITS[:, :2]
    want = f1_score(labels, logits.argmax(1), pos_label=positive)
    assert compute_metrics(two, logits, labels) == {"f1": want}


def test_f1_of_a_class_that_never_occurs_is_zero() -> None:
    logits = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert compute_metrics(TASKS["mrpc"], logits, np.array([0, 0])) == {"f1": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_correlations_are_those_of_scipy(shape: tuple[int, ...]) -> None:
    truth = LABELS.astype(np.float32)
    found = compute_metrics(TASKS["stsb"], LOGITS[:, 0].reshape(shape), truth)
    scores = LOGITS[:, 0].astype(np.float64)
    assert found["spearman"] == pytest.approx(spearmanr(truth, scores).statistic, abs=1e-12)
    assert found["pearson"] == pytest.approx(pearsonr(truth, scores).statistic, abs=1e-12)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    found = compute_metrics(TASKS["stsb"], np.full(60, 2.5), LABELS)
    assert found == {"spearman": 0.0, "pearson": 0.0}


THREE = Task("three", ("text",), ("a", "b", "c"), ("micro_f1", "macro_f1", "average_precision", "exact_match"),
             "micro_f1", multi_label=True)  # fmt: skip


def test_metrics_of_several_labels_count_by_hand() -> None:
    """Two right of three predicted and of four gold; label c is in no row and has no average precision."""
    gold = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    logits = np.array([[2.0, -1, -3], [1, -2, 1], [-1, -1, -3], [-3, -4, -3]])
    found = compute_metrics(THREE, logits, gold)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)
    # b: rows by logit 0, 2, 1, 3 (the first two tie at −1); gold are 1 and 2
    assert found["average_precision"] == pytest.approx((1 + (1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)) / 2)
    assert found["exact_match"] == 2 / 4
    thresholds = choose_thresholds(logits, gold)
    assert compute_metrics(THREE, logits, gold, thresholds)["micro_f1"] == pytest.approx(2 * 4 / (6 + 4))


def test_thresholds_have_the_highest_f1_of_all() -> None:
    generator = np.random.default_rng(0)
    gold = (generator.random((60, 4)) < 0.3).astype(float)
    gold[:, 3] = 0
    logits = generator.normal(size=(60, 4)) + 2 * gold - 2
    thresholds = choose_thresholds(logits, gold)
    for k in range(3):
        cuts = (0.0, *expit(logits[:, k]))  # every other threshold gives the same labels as one of these
        every = [f1_score(gold[:, k], expit(logits[:, k]) > cut, zero_division=0) for cut in cuts]
        assert f1_score(gold[:, k], expit(logits[:, k]) > thresholds[k]) >= max(every)
    assert thresholds[3] == 0.5
    unlabelled = np.vstack([gold, np.full((1, 4), np.nan)])
    np.testing.assert_array_equal(choose_thresholds(np.vstack([logits, logits[:1]]), unlabelled), thresholds)


def test_a_task_of_several_labels_has_its_own_metrics() -> None:
    with pytest.raises(RecipeError, match="accuracy"):
        replace(THREE, metrics=("accuracy",), select="accuracy")
    with pytest.raises(RecipeError, match="no labels"):
        replace(THREE, labels=None)
    with pytest.raises(DataError, match="several labels a row"):
        replace(THREE, labels=("a", "b")).with_positive("a")
