"""Parts, calibration and comparisons of columns against scipy and naive loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control, permutation_test

from gradistill.auditing.comparison import compared, compared_with, holm, sign_flip_p, swap_p
from gradistill.auditing.loyalty_measures import pearson
from gradistill.auditing.per_example import (
    ON_WORDS,
    by_confidence,
    by_label,
    calibration,
    columns_of,
    estimates,
    group_by_length,
    mean_values,
    without_groups,
)
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.statistics import ratio


def answers(labels: int, seed: int, rows: int = 60) -> Predictions:
    generator = np.random.default_rng(seed)
    maps = tuple(np.random.default_rng(k + 100 * seed).random(3 + k % 9) for k in range(rows))
    return Predictions(generator.normal(size=(rows, labels)), maps)


@pytest.mark.parametrize("labels", [1, 3])
def test_identical_models_agree_wholly(labels: int) -> None:
    teacher = answers(labels, 0)
    found = without_groups(estimates(columns_of(teacher, teacher, teacher.labels.astype(float))))
    names = ["prediction"] if labels == 1 else ["label", "probability"]
    for name in (*names, "saliency", "top_k_overlap", "cosine", "kendall_tau"):
        assert found[name].value == pytest.approx(1), name
    # Wilson's lower end for 60 of 60; a correlation of exactly 1 gives the bootstrap nothing to bound it with.
    lowest = binomtest(60, 60).proportion_ci(method="wilson").low
    if labels == 1:
        assert np.isnan(found["prediction"].low)
    else:
        assert found["label"].low == pytest.approx(lowest)
        assert found["probability"].low == pytest.approx(lowest)
    rho = found["saliency"]  # the same on a scale from −1 to 1, over fewer examples
    assert rho.low == pytest.approx(2 * binomtest(rho.n, rho.n).proportion_ci(method="wilson").low - 1)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_shares_have_wilsons_interval(same: list[bool]) -> None:
    columns = {"tokens": np.full(len(same), 5), "label": np.array(same)}
    found = without_groups(estimates(columns))["label"]
    exact = binomtest(sum(same), len(same)).proportion_ci(method="wilson")
    assert (found.value, found.n) == (pytest.approx(np.mean(same)), len(same))
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_parts_are_all_the_examples_once() -> None:
    columns = columns_of(answers(3, 1), answers(3, 0), np.zeros(60, dtype=int))
    for parts in (by_label(columns, ("a", "b", "c")), group_by_length(columns), by_confidence(columns)):
        assert sum(len(part["tokens"]) for part in parts.values()) == 60
        assert len(parts) == (5 if parts.keys() == by_confidence(columns).keys() else 3)
    for (low, high), part in by_confidence(columns).items():
        assert ((part["teacher_confidence"] >= low) & (part["teacher_confidence"] <= high)).all()
    for k, part in enumerate(by_label(columns, ("a", "b", "c")).values()):
        assert (part["teacher_label"] == k).all()


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.lists(st.sampled_from([0.5, 0.9, 1.0]), min_size=30),
)
def test_any_lengths_and_confidences_can_be_parted(tokens: list[int], sure: list[float]) -> None:
    columns = {"tokens": np.array(tokens), "teacher_confidence": np.array(sure[: len(tokens)])}
    for parts in (group_by_length(columns), by_confidence(columns)):
        assert sum(len(part["tokens"]) for part in parts.values()) == len(tokens)


def test_a_frequent_length_is_a_part_of_its_own() -> None:
    columns = {"tokens": np.array([3, 5, *[7] * 40, 9, 20])}
    parts = {name: len(part["tokens"]) for name, part in group_by_length(columns).items()}
    assert parts == {"3–5 tokens": 2, "7 tokens": 40, "9–20 tokens": 2}


def test_calibration_equals_a_loop() -> None:
    generator = np.random.default_rng(0)
    sure, right = np.append(generator.random(200), 1.0), generator.random(201) < 0.7
    found = calibration(sure, right)
    error = 0.0
    for k in range(10):
        inside = [i for i in range(201) if k / 10 <= sure[i] and (sure[i] < (k + 1) / 10 or k == 9)]
        error += len(inside) / 201 * abs(np.mean(sure[inside]) - np.mean(right[inside]))
    assert found["error"] == pytest.approx(error)


def test_the_paired_test_is_the_exact_one_on_few_examples() -> None:
    differences = np.array([0.3, -0.1, 0.25, 0.4, -0.05, 0.2, 0.1, 0.15])
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=8)]
    exact = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    # 20 000 flips: standard deviation of the estimate under 0.0035
    assert sign_flip_p(differences, draws=20_000) == pytest.approx(exact, abs=0.012)
    result = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert result.pvalue == pytest.approx(exact, abs=1e-9)
    assert sign_flip_p(np.zeros(5)) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(values: list[float]) -> None:
    corrected = holm(values)
    order = sorted(range(len(values)), key=lambda k: values[k])
    for rank, place in enumerate(order):
        steps = [min(1, (len(values) - j) * values[order[j]]) for j in range(rank + 1)]
        assert corrected[place] == pytest.approx(max(steps))
    # stricter than the false discovery rate of scipy
    assert (np.array(corrected) >= false_discovery_control(values) - 1e-12).all()


def test_students_are_compared_example_by_example() -> None:
    teacher, near, far = answers(3, 0), answers(3, 0), answers(3, 5)
    gold = teacher.labels
    columns = {"near": columns_of(near, teacher, gold), "far": columns_of(far, teacher, gold)}
    found = {entry.figure: entry for entry in compared([columns])}
    label = columns["near"]["label"].astype(float) - columns["far"]["label"]
    assert found["label"].difference.value == pytest.approx(label.mean())
    assert found["saliency"].difference.n == sum(len(m) >= 4 for m in teacher.maps)
    assert found["label"].p_corrected >= found["label"].p
    assert found["label"].p < 0.01


def test_every_student_is_compared_with_the_reference_and_no_student_with_another() -> None:
    teacher = answers(3, 0)
    near, far, own = (columns_of(answers(3, seed), teacher, teacher.labels) for seed in (0, 5, 7))
    own.pop("saliency")
    found = compared_with(("second teacher", own), {"near": near, "far": far})
    assert {(entry.a, entry.b) for entry in found} == {("near", "second teacher"), ("far", "second teacher")}
    assert {entry.figure for entry in found} == {"label", "probability", "top_k_overlap"}
    label = next(entry for entry in found if (entry.figure, entry.a) == ("label", "near"))
    assert label.difference.value == pytest.approx(1 - own["label"].mean())
    assert [e.p_corrected for e in found] == pytest.approx(holm([e.p for e in found]))


def test_maps_by_words_and_maps_by_tokens_are_not_compared() -> None:
    teacher = answers(3, 0)
    by_tokens, by_words = (columns_of(answers(3, seed), teacher, teacher.labels) for seed in (5, 7))
    by_words[ON_WORDS] = np.ones(60, dtype=bool)
    of_both = compared_with(("reference", by_words), {"other": by_tokens, "same": by_words})
    assert {e.figure for e in of_both if e.a == "other"} == {"label", "probability"}
    assert {e.figure for e in of_both if e.a == "same"} == {
        "label",
        "probability",
        "saliency",
        "top_k_overlap",
    }
    among = compared([{"a": by_tokens, "b": by_words}])
    assert {entry.figure for entry in among} == {"label", "probability", "student_accuracy"}


def witness(statistic: Any, ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """scipy's exact test: it swaps row numbers, of which those of the second model come behind the first's."""
    rows = len(ours[0])
    every = [np.concatenate(pair) for pair in zip(ours, theirs, strict=True)]

    def apart(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        del axis
        places = [side.astype(int).reshape(-1, rows) for side in (a, b)]
        a, b = (statistic(*(column[side] for column in every)) for side in places)
        return (a - b)[0] if len(a) == 1 else a - b

    found = permutation_test(
        (np.arange(rows), rows + np.arange(rows)), apart, permutation_type="samples", n_resamples=np.inf,
        vectorized=True,
    )  # fmt: skip
    return float(found.pvalue)


@pytest.mark.parametrize("statistic", [pearson, ratio])
def test_the_test_of_correlations_and_ratios_is_the_exact_one_on_few_examples(statistic: Any) -> None:
    generator = np.random.default_rng(4)
    teacher = generator.random(9) + 1
    ours = [teacher + generator.normal(0, 0.3, 9), teacher]
    theirs = [teacher + generator.normal(0, 1.0, 9) - 0.3, teacher + 0.1 * (statistic is ratio)]
    exact = witness(statistic, ours, theirs)
    assert 0.01 < exact < 0.9
    assert swap_p(statistic, ours, theirs, draws=20_000) == pytest.approx(exact, abs=0.012)
    assert swap_p(statistic, ours, [ours[0] + 1e-9, ours[1]]) == 1


def test_scores_are_compared_by_their_correlations() -> None:
    generator = np.random.default_rng(0)
    teacher = generator.normal(size=80)
    near, far = (
        {"student_prediction": teacher + generator.normal(0, noise, 80), "teacher_prediction": teacher}
        for noise in (0.1, 2.0)
    )
    (found,) = compared_with(("reference", far), {"near": near})
    expected = [np.corrcoef(own["student_prediction"], teacher)[0, 1] for own in (near, far)]
    assert (found.figure, found.difference.n) == ("prediction", 80)
    assert found.difference.value == pytest.approx(expected[0] - expected[1])
    assert (found.difference.low or 0) > 0
    assert found.p < 0.001
    (same,) = compared_with(("reference", near), {"near": near})
    assert (same.difference.value, same.p) == (0, 1)
    moved = near | {"student_prediction": near["student_prediction"] * 3 + 5}  # a correlation does not change
    (of_moved,) = compared_with(("reference", far), {"near": moved})
    assert (of_moved.difference.value, of_moved.p) == (pytest.approx(found.difference.value), found.p)


def test_words_and_spans_are_compared_by_the_sums_of_their_rows() -> None:
    generator = np.random.default_rng(0)
    words = generator.integers(3, 9, 60)

    def columns(share: float) -> dict[str, np.ndarray]:
        spans = generator.integers(0, 3, 60)
        return {
            "words": words, "label_sum": np.round(words * share), "label_count": words,
            "span_sum": np.round(spans * share), "span_count": spans,
        }  # fmt: skip

    near, far = columns(1.0), columns(0.5)
    found = {entry.figure: entry for entry in compared_with(("reference", far), {"near": near})}
    assert set(found) == {"label", "span"}
    for name, entry in found.items():
        shares = [own[f"{name}_sum"].sum() / own[f"{name}_count"].sum() for own in (near, far)]
        assert entry.difference.value == pytest.approx(shares[0] - shares[1])
        assert entry.p < 0.01
    fewer = far | {"words": words - 1}  # another tokenizer, which cut them
    assert compared_with(("reference", fewer), {"near": near}) == []


def test_rounding_is_no_difference() -> None:
    assert sign_flip_p(np.full(100, 1e-9)) == 1
    assert sign_flip_p(np.full(100, 1e-5)) < 0.001


def test_a_mean_over_draws_takes_those_that_have_the_figure():
    draws = [{"flips": np.array([1.0, 0.0, np.nan])}, {"flips": np.full(3, np.nan)}, {"flips": np.ones(3)}]
    assert mean_values(draws) == {"flips": 0.8}  # four of five edits
    others = [{"response": np.array([0.5, 0.1])}, {"response": np.array([-0.3, np.nan])}]
    assert mean_values(others) == {"response": pytest.approx(0.0)}
    assert mean_values([]) == {}
