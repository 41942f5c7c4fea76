"""Loyalty against scipy, naive loops and closed forms."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, fsum, log2, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from gradistill.auditing import (
    Predictions,
    label_agreement,
    loyalty,
    probability_agreement,
    saliency_agreement,
)
from gradistill.errors import GradistillError


def measured(student_logits, teacher_logits, student_maps, teacher_maps, *, method):
    return loyalty(
        Predictions(student_logits, tuple(student_maps or ())),
        Predictions(teacher_logits, tuple(teacher_maps or ())),
        method=method,
    )


def _logits(seed: int, rows: int = 40, labels: int = 3, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(rows, labels))


def _maps(seed: int, lengths: list[int], digits: int | None = None) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    drawn = [generator.exponential(size=length) for length in lengths]
    return [scores.round(digits) for scores in drawn] if digits is not None else drawn


def _naive_agreement(z_s: np.ndarray, z_t: np.ndarray) -> float:
    def probabilities(z: np.ndarray) -> list[float]:
        weights = [exp(float(v) - float(max(z))) for v in z]
        return [w / fsum(weights) for w in weights]

    p, q = probabilities(z_t), probabilities(z_s)
    js = fsum(0.5 * a * log2(2 * a / (a + b)) for a, b in zip(p, q, strict=True) if a)
    js += fsum(0.5 * b * log2(2 * b / (a + b)) for a, b in zip(p, q, strict=True) if b)
    return 1 - sqrt(max(js, 0.0))


def test_label_agreement():
    student = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    teacher = np.array([[9.0, -9.0], [1.0, 0.0], [3.0, 2.0]])
    assert label_agreement(student, teacher).tolist() == [True, False, True]  # a tie is the first label


def test_probability_agreement_is_one_minus_scipys_distance():
    student, teacher = _logits(0), _logits(1)
    ours = probability_agreement(student, teacher)
    scipys = 1 - jensenshannon(softmax(teacher, axis=1), softmax(student, axis=1), base=2, axis=1)
    loops = [_naive_agreement(s, t) for s, t in zip(student, teacher, strict=True)]
    assert ours == pytest.approx(scipys, abs=1e-12)  # float64; the divergences here are far from the root's 0
    assert ours == pytest.approx(loops, abs=1e-12)


def test_probability_agreement_of_opposites_is_zero_and_symmetric():
    student, teacher = np.array([[2000.0, -2000.0]]), np.array([[-2000.0, 2000.0]])
    assert probability_agreement(student, teacher).tolist() == [0.0]
    student, teacher = _logits(2), _logits(3)
    forth, back = probability_agreement(student, teacher), probability_agreement(teacher, student)
    assert forth == pytest.approx(back, abs=1e-15)


@pytest.mark.parametrize("gap", [700.0, 744.4, 745.0, 1e4, 1e308, 1.7e308])
def test_saturated_logits_make_no_nan(gap):
    # 744.4 leaves the smallest subnormal probability, whose half is zero.
    student, teacher = np.array([[0.0, -gap], [gap, -gap]]), np.array([[0.0, -1e5], [gap, -gap]])
    values = probability_agreement(student, teacher)
    assert values == pytest.approx([1.0, 1.0])
    assert values[1] == 1.0


@settings(max_examples=80)
@given(st.data(), st.integers(1, 5), st.integers(2, 4))
def test_probability_agreement_is_within_bounds_and_one_on_identical(data, rows, labels):
    finite = st.floats(allow_nan=False, allow_infinity=False)
    student, teacher = (data.draw(arrays(np.float64, (rows, labels), elements=finite)) for _ in range(2))
    values = probability_agreement(student, teacher)
    assert ((values >= 0) & (values <= 1)).all()
    assert (probability_agreement(student, student) == 1).all()
    assert label_agreement(student, student).all()


def test_float16_logits_are_taken_in_double_precision():
    student, teacher = _logits(4).astype(np.float16), _logits(5).astype(np.float16)
    exact = probability_agreement(student.astype(np.float64), teacher.astype(np.float64))
    assert (probability_agreement(student, teacher) == exact).all()


@pytest.mark.parametrize("digits", [None, 1])
def test_saliency_agreement_is_scipys_spearman_in_order(digits):
    lengths = [7, 4, 12, 7, 30, 5, 4]
    student, teacher = _maps(0, lengths, digits), _maps(1, lengths, digits)
    values, skipped = saliency_agreement(student, teacher)
    expected = [stats.spearmanr(s, t).statistic for s, t in zip(student, teacher, strict=True)]
    assert skipped == 0
    assert values == pytest.approx(expected, abs=1e-12)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=12))
def test_saliency_agreement_with_many_ties(pairs):
    student, teacher = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    (value,), _ = saliency_agreement([student], [teacher])
    if np.ptp(student) == 0 or np.ptp(teacher) == 0:
        assert value == 0
    else:
        assert value == pytest.approx(stats.spearmanr(student, teacher).statistic, abs=1e-12)


def test_short_examples_are_skipped_and_counted():
    lengths = [3, 5, 0, 4, 1]
    maps = _maps(2, lengths)
    values, skipped = saliency_agreement(maps, maps)
    assert skipped == 3
    assert values.tolist() == [1.0, 1.0]
    values, skipped = saliency_agreement([], [])
    assert (values.tolist(), skipped) == ([], 0)


def test_a_constant_map_agrees_with_nothing():
    flat, slope = np.full(5, 0.1), np.arange(5.0)
    values, _ = saliency_agreement([flat, slope, flat], [slope, flat, flat])
    assert values.tolist() == [0.0, 0.0, 0.0]


def test_identical_models_are_wholly_loyal():
    logits, maps = _logits(6), _maps(3, [4 + k % 9 for k in range(40)])
    found = measured(logits, logits, maps, maps, method="gradient_x_input")
    # Forty of forty examples may still be chance: the lower end is Wilson's, which scipy knows.
    lowest = stats.binomtest(40, 40).proportion_ci(method="wilson").low
    scales = ((found.label, lowest), (found.probability, lowest), (found.saliency, 2 * lowest - 1))
    for part, low in scales:
        assert part is not None
        assert (part.value, part.low, part.high, part.n) == (1.0, pytest.approx(low), 1.0, 40)
    assert found.prediction is None


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_give_a_correlation_no_interval(rows: int):
    found = measured(_logits(20, rows, 1), _logits(21, rows, 1), None, None, method="m")
    assert found.prediction is not None
    assert np.isnan([found.prediction.low, found.prediction.high]).all()


def test_the_form_of_metrics_json():
    lengths = [2, 6, 6, 9]
    found = measured(
        _logits(7, 4), _logits(8, 4), _maps(4, lengths), _maps(5, lengths), method="gradient_x_input"
    )
    form = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert list(form) == ["label", "probability", "prediction", "response", "saliency"]
    assert set(form["label"]) == {"value", "low", "high", "n"}
    assert form["saliency"]["skipped"] == 1
    assert form["saliency"]["n"] == 3
    assert form["saliency"]["method"] == "gradient_x_input"
    assert form["prediction"] is form["response"] is None
    floored = json.loads(json.dumps(replace(found, floors={"label": 0.25}).as_dict(), allow_nan=False))
    assert floored["label"]["floor"] == 0.25
    assert floored["label"]["gain"] == pytest.approx((floored["label"]["value"] - 0.25) / 0.75)
    assert floored["saliency"] == form["saliency"]


def test_regression_has_a_prediction_and_no_labels():
    teacher = _logits(9, 50, 1)
    student = teacher + _logits(10, 50, 1, scale=1.0)
    found = measured(student, teacher, None, None, method="gradient_x_input")
    assert found.label is found.probability is found.saliency is None
    assert found.prediction is not None
    r = stats.pearsonr(student[:, 0], teacher[:, 0])
    assert found.prediction.value == pytest.approx(r.statistic, abs=1e-12)
    fisher = r.confidence_interval(0.95)
    # Two methods for one interval: at n = 50 they agree to a few hundredths.
    assert found.prediction.low == pytest.approx(fisher.low, abs=0.06)
    assert found.prediction.high == pytest.approx(fisher.high, abs=0.06)
    assert found.as_dict()["label"] is None


def test_a_constant_prediction_has_no_correlation():
    constant = np.full((5, 1), 0.1)
    found = measured(constant, _logits(11, 5, 1), None, None, method="m")
    assert found.as_dict()["prediction"] == {"value": None, "low": None, "high": None, "n": 5}


def test_what_is_not_finite_is_named_by_row():
    bad = _logits(12, 20)
    bad[[3, 17], 1] = [np.nan, np.inf]
    with pytest.raises(GradistillError, match="student's logits are NaN or infinite for example rows 3, 17"):
        label_agreement(bad, _logits(13, 20))
    with pytest.raises(GradistillError, match="teacher's logits"):
        probability_agreement(_logits(13, 20), bad)
    maps = _maps(6, [5] * 20)
    worse = [np.full(5, np.nan) for _ in maps]
    with pytest.raises(GradistillError, match=r"teacher's saliency maps .* 0, 1, 2, .* and 10 more"):
        saliency_agreement(maps, worse)


def test_what_does_not_fit_is_refused():
    logits, maps = _logits(14, 4), _maps(7, [5, 5, 5, 5])
    with pytest.raises(GradistillError, match=r"\(4, 3\), the teacher's \(1, 3\)"):
        label_agreement(logits, logits[:1])
    with pytest.raises(GradistillError, match="one column"):
        label_agreement(logits[:, :1], logits[:, :1])
    with pytest.raises(GradistillError, match="do not have the same tokens for example rows 2"):
        saliency_agreement(maps, [*maps[:2], maps[2][:4], maps[3]])
    with pytest.raises(GradistillError, match="has 4 saliency maps, the teacher 3"):
        saliency_agreement(maps, maps[:3])
    with pytest.raises(GradistillError, match="maps for 3 examples and logits for 4"):
        measured(logits, logits, maps[:3], maps[:3], method="m")
    with pytest.raises(GradistillError, match="student has 0 saliency maps"):
        measured(logits, logits, None, maps, method="m")
