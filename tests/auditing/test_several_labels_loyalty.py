"""Loyalty and effects where a row may have several labels, counted by hand and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit
from scipy.stats import pearsonr

from gradistill.auditing import Predictions, loyalty
from gradistill.auditing.loyalty_measures import bernoulli_agreement
from gradistill.auditing.per_example import by_label, columns_of
from gradistill.auditing.predicted_labels import label_rows
from gradistill.auditing.response import log_odds, response_columns
from gradistill.errors import GradistillError

STUDENT = np.array([[2.0, -1.0, -1.0], [1.0, 1.0, -2.0], [-1.0, -1.0, -1.0], [3.0, 2.0, 1.0]])
TEACHER = np.array([[1.0, -2.0, 0.5], [1.0, 2.0, -2.0], [-3.0, -1.0, -2.0], [-1.0, 2.0, 1.0]])


def predictions(logits: np.ndarray, thresholds: np.ndarray | None = None) -> Predictions:
    return Predictions(logits, multi_label=True, thresholds=thresholds)


def test_label_loyalty_is_the_share_of_labels_and_exact_match_that_of_rows() -> None:
    found = loyalty(predictions(STUDENT), predictions(TEACHER), resamples=50)
    assert found.label is not None
    assert found.exact_match is not None
    assert found.label.value == pytest.approx((2 / 3 + 1 + 1 + 2 / 3) / 4)
    assert found.exact_match.value == 2 / 4
    each = [
        1 - jensenshannon([expit(a), expit(-a)], [expit(b), expit(-b)], base=2)
        for a, b in zip(STUDENT.ravel(), TEACHER.ravel(), strict=True)
    ]
    assert found.probability is not None
    assert found.probability.value == pytest.approx(np.mean(each))
    np.testing.assert_array_equal(bernoulli_agreement(STUDENT, STUDENT), 1.0)
    assert found.as_dict()["exact_match"]["n"] == 4


def test_each_model_has_its_own_thresholds() -> None:
    """With 0.9 for the first label the student no longer predicts it in its second row (σ(1) = 0.73)."""
    strict = predictions(STUDENT, np.array([0.9, 0.5, 0.5]))
    found = loyalty(strict, predictions(TEACHER), resamples=50)
    assert found.exact_match is not None
    assert found.exact_match.value == 1 / 4


def test_a_model_of_one_label_a_row_is_no_partner() -> None:
    with pytest.raises(GradistillError, match="several labels a row"):
        loyalty(predictions(STUDENT), Predictions(TEACHER))
    single = loyalty(Predictions(STUDENT), Predictions(TEACHER), resamples=50)
    assert "exact_match" not in single.as_dict()


def test_effects_are_those_of_every_logit() -> None:
    generator = np.random.default_rng(0)
    student, teacher = (generator.normal(size=(3, 6, 2)) for _ in range(2))
    teacher[1, :, 0] = 1.0  # it reacts to nothing there: the other label alone counts
    found = response_columns(student, teacher, [5, 5, 2], multi_label=True)
    by_hand = [
        [pearsonr(student[r, 1:, k], teacher[r, 1:, k])[0] for k in range(2) if (r, k) != (1, 0)]
        for r in (0, 1)
    ]
    assert found["response"][:2] == pytest.approx([np.mean(each) for each in by_hand])
    assert np.isnan(found["response"][2])  # too short
    same = (student[:, 1:] > 0) == (teacher[:, 1:] > 0)
    assert found["response_labels"][0] == pytest.approx(same[0].mean())
    product = ((student[0, 1:] - student[0, :1]) * (teacher[0, 1:] - teacher[0, :1])).sum()
    assert found["response_product"][0] == pytest.approx(product)
    np.testing.assert_array_equal(
        log_odds(student, np.array([1, 0, 1]), multi_label=True)[0], student[0, :, 1]
    )


def test_the_table_of_labels_counts_models_and_data() -> None:
    gold = np.array([[1, 0, 0], [1, 1, 0], [np.nan] * 3, [1, 1, 1]])
    columns = columns_of(predictions(STUDENT), predictions(TEACHER), gold)
    table = label_rows(columns, ("a", "b", "c"))
    assert table[0] == {
        "label": "a", "teacher": 2, "student": 3, "both": 2, "agreement": pytest.approx(4 / 5),
        "gold": 3, "teacher_f1": pytest.approx(4 / 5), "student_f1": pytest.approx(1.0),
    }  # fmt: skip
    parts = by_label(columns, ("a", "b", "c"))
    assert parts["c"]["label"].tolist() == [False, True]
