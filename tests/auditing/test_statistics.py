"""The bootstrap against closed forms, scipy's bootstrap and simulated samples."""

from __future__ import annotations

import json
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from gradistill.auditing import Estimate, bootstrap_mean, bootstrap_statistic, mean_estimate, wilson_share
from gradistill.auditing.comparison import sign_flip_p
from gradistill.auditing.loyalty_measures import pearson
from gradistill.auditing.predicted_labels import macro_f1
from gradistill.auditing.statistics import (
    EQUAL,
    FlooredEstimate,
    resample_interval,
    rows_to_show,
)
from gradistill.errors import GradistillError


def test_no_example_and_one_example():
    empty = bootstrap_mean(np.array([]))
    assert empty.n == 0
    assert np.isnan([empty.value, empty.low, empty.high]).all()
    one = bootstrap_mean(np.array([0.25]), bounds=(0.0, 1.0))
    assert (one.value, one.n) == (0.25, 1)
    assert np.isnan([one.low, one.high]).all()


def test_text_and_json_form():
    assert str(Estimate(0.8123, 0.775, 0.8461, 408)) == "0.812 [0.775, 0.846]"
    assert str(bootstrap_mean(np.array([0.25]))) == "0.250"
    assert Estimate(0.5, 0.4, 0.6, 9).as_dict() == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    undefined = json.dumps(bootstrap_mean(np.array([])).as_dict(), allow_nan=False)
    assert json.loads(undefined) == {"value": None, "low": None, "high": None, "n": 0}


def test_a_figure_beside_its_floor():
    figure = FlooredEstimate(0.8, 0.7, 0.9, 40, floor=0.2)
    assert figure.gain == pytest.approx(0.75)
    assert figure.as_dict() == {
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "n": 40,
        "floor": 0.2,
        "gain": figure.gain,
    }
    for floor in (1.0, np.nan):
        assert FlooredEstimate(0.8, 0.7, 0.9, 40, floor).as_dict()["gain"] is None


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_agrees_with_scipy_bootstrap():
    values = np.random.default_rng(1).exponential(size=80)
    ours = bootstrap_mean(values, resamples=9999)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(5))
    # Two independent draws of 9999: a quantile of the mean wavers by about 0.02 standard errors; 0.1 is 5 of that.
    tolerance = 0.1 * values.std() / np.sqrt(80)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def resampled_by_hand(statistic, *columns, resamples, seed):
    """The loop that stood here before scipy's bootstrap did: the quantiles of finite statistics of resamples."""
    generator, n = np.random.default_rng(seed), len(columns[0])
    drawn = []
    for _ in range(resamples):
        rows = generator.integers(n, size=(1, n))
        drawn.append(statistic(*(column[rows] for column in columns))[0])
    return np.quantile([value for value in drawn if np.isfinite(value)], [0.025, 0.975])


@pytest.mark.parametrize("n", [5, 60, 400])
@pytest.mark.parametrize("name", ["mean", "paired difference", "correlation"])
def test_the_interval_is_that_of_a_loop_by_hand(name, n):
    generator = np.random.default_rng(n)
    a = generator.exponential(size=n)
    b = a + generator.normal(size=n)
    statistic, columns = {
        "mean": (lambda x: x.mean(-1), (a,)),
        "paired difference": (lambda x, y: (x - y).mean(-1), (a, b)),
        "correlation": (pearson, (a, b)),
    }[name]
    found = bootstrap_statistic(statistic, *columns, resamples=4000, seed=1)
    low, high = resampled_by_hand(statistic, *columns, resamples=4000, seed=2)
    # A 2.5 % quantile of 4000 draws of a normal law wavers by 0.042 standard deviations, two of them differ by 0.06;
    # 0.25 is four times that, and leaves room for the skewed law at five examples.
    tolerance = 0.25 * (high - low) / 4
    assert (found.low, found.high) == (pytest.approx(low, abs=tolerance), pytest.approx(high, abs=tolerance))


@pytest.mark.parametrize("n", [8, 30, 300])
def test_the_paired_test_is_scipys(n):
    differences = np.random.default_rng(n).normal(0.1, 1.0, n)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(1)
    )
    # Two estimates of one p from 10 000 draws each: their difference has a standard deviation of at most 0.007.
    assert sign_flip_p(differences, seed=2) == pytest.approx(theirs.pvalue, abs=0.03)


def test_the_interval_covers_the_true_mean_at_its_level():
    generator = np.random.default_rng(2)
    estimates = [bootstrap_mean(generator.normal(1.0, 2.0, 60), resamples=500, seed=k) for k in range(200)]
    covered = np.mean([e.low <= 1.0 <= e.high for e in estimates])
    # 200 trials at 94 % (the percentile interval is a little narrow at n = 60) have a standard error of 1.7 %.
    assert 0.90 <= covered <= 0.99


def test_a_higher_level_gives_a_wider_interval():
    values = np.random.default_rng(3).normal(size=40)
    narrow, wide = bootstrap_mean(values, level=0.8), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_booleans_are_shares():
    estimate = bootstrap_mean(np.array([True, False, True, True]))
    assert estimate.value == 0.75
    assert 0 <= estimate.low <= estimate.high <= 1


def test_arrays_are_drawn_together():
    values = np.random.default_rng(4).normal(size=30)
    # The mean difference of an array and itself is zero on every resample only if rows stay paired.
    paired = bootstrap_statistic(lambda a, b: (a - b).mean(axis=-1), values, values, resamples=200)
    assert (paired.value, paired.n) == (0.0, 30)
    assert np.isnan([paired.low, paired.high]).all()  # resamples that all agree bound nothing


def test_undefined_resamples_are_left_out():
    def ratio(a):
        with np.errstate(invalid="ignore"):
            return a.sum(-1) / a.sum(-1)  # NaN where only zeros were drawn

    assert bootstrap_statistic(lambda a: ratio(a) + a.mean(-1), np.array([0.0, 1.0])) == Estimate(
        1.5, 1.5, 2.0, 2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy's warning about its own interval is none of ours
        bootstrap_statistic(lambda a: ratio(a) + a.mean(-1), np.array([0.0, 1.0]))
    never = bootstrap_statistic(ratio, np.zeros(3))
    assert np.isnan([never.value, never.low, never.high]).all()
    assert never.n == 3


def test_memory_stays_bounded():
    values = np.random.default_rng(5).normal(size=100_000)
    tracemalloc.start()
    bootstrap_mean(values, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All at once would be 80 MB of indices and 80 MB of draws; a block is 8 MiB of each.
    assert peak < 40e6


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ([[1.0, np.nan]], {}, "1 of 2 values are NaN or infinite, first at example row 1"),
        ([[1.0, 2.0], [1.0]], {}, "shapes"),
        ([], {}, "shapes"),
        ([[1.0]], {"level": 1.0}, "level of the interval is 1.0"),
        ([[1.0]], {"resamples": 0}, "number of resamples is 0"),
    ],
)
def test_refusals(arrays, options, message):
    columns = [np.array(array) for array in arrays]
    with pytest.raises(GradistillError, match=message):
        bootstrap_statistic(lambda *a: a[0].mean(axis=-1), *columns, **options)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
@example([0.0, 0.0, 0.0, 0.0, 6e-8])
@example([0.0] * 29 + [2e-6])
def test_the_interval_stays_within_the_values(values):
    estimate = bootstrap_mean(np.array(values), resamples=50)
    if np.isnan(estimate.low):  # means of resamples differ by a share of 1 / n of what values do, at least
        assert len(values) == 1 or np.ptp(values) <= len(values) * EQUAL
        return
    slack = 1e-9 * max(1.0, *map(abs, values))  # rounding of a sum of thirty terms
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack


@settings(max_examples=100)
@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_a_share_has_scipys_wilson_interval(n, share, level):
    right = round(share * n)
    values = np.arange(n) < right
    found = wilson_share(values, level=level)
    exact = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert (found.value, found.n) == (pytest.approx(right / n), n)
    assert (found.low, found.high) == (
        pytest.approx(exact.low, abs=1e-12),
        pytest.approx(exact.high, abs=1e-12),
    )
    assert found.low < found.high
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilsons_interval_covers_a_rare_share_where_the_bootstrap_does_not():
    generator = np.random.default_rng(7)
    draws = [generator.random(30) < 0.97 for _ in range(400)]
    wilson = np.mean([e.low <= 0.97 <= e.high for e in map(wilson_share, draws)])
    bootstrap = [bootstrap_mean(draw.astype(float), resamples=200, seed=k) for k, draw in enumerate(draws)]
    # 40 % of the draws are 30 of 30, where the bootstrap has nothing to say.
    assert wilson > 0.9
    assert np.mean([e.low <= 0.97 <= e.high for e in bootstrap]) < 0.7


def test_a_mean_over_many_classes_is_covered_though_resamples_lack_some():
    """Classes of two rows or so: percentiles lie below the truth, since a resample has lost some of them."""
    generator = np.random.default_rng(3)
    weights = 1 / np.sqrt(np.arange(1, 78))
    weights /= weights.sum()

    def drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
        gold, other = (generator.choice(77, rows, p=weights).astype(float) for _ in range(2))
        return np.where(generator.random(rows) < 0.8, gold, other), gold

    ours, gold = drawn(200_000)
    truth = macro_f1(ours[None], gold[None])[0]
    plain, mended = [], []
    for _ in range(40):
        rows = drawn(300)
        for within, found in ((None, plain), ((0.0, 1.0), mended)):
            interval = bootstrap_statistic(macro_f1, *rows, resamples=200, within=within)
            found.append(interval.low <= truth <= interval.high)
    assert np.mean(plain) < 0.65
    assert np.mean(mended) > 0.8


def test_resamples_without_bias_keep_their_percentiles():
    resamples = np.random.default_rng(0).normal(0.5, 0.1, 2000)
    assert resample_interval(resamples, 0.51, (0.0, 1.0)) == resample_interval(resamples, 0.51)
    low, high = resample_interval(resamples, 0.51)
    assert resample_interval(resamples, 0.6, (0.0, 1.0)) == pytest.approx((1.2 - high, 1.2 - low))
    assert resample_interval(resamples, 0.8, (0.0, 1.0)) == (0.8, 1.0)  # mirrored it lies above the value
    assert resample_interval(resamples, 1.0, (0.0, 1.0)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(1.0, (0.0, 1.0)), (0.0, (0.0, 1.0)), (0.0, (-1.0, 1.0)), (-1.0, (-1.0, 1.0)), (0.25, (0.0, 1.0))],
)
def test_equal_values_have_an_interval_within_their_bounds(value, bounds):
    n = 20
    found = bootstrap_mean(np.full(n, value), bounds=bounds)
    others = 1 - stats.binomtest(n, n).proportion_ci(method="wilson").low  # that may differ, though none did
    assert found.low == pytest.approx((1 - others) * value + others * bounds[0])
    assert found.high == pytest.approx((1 - others) * value + others * bounds[1])
    assert np.isnan(bootstrap_mean(np.full(n, value)).low)  # without bounds nothing is known of the others


def test_values_whose_resamples_agree_have_an_interval_within_their_bounds():
    values = np.zeros(30)
    values[0] = 2 * EQUAL  # not one value, but all means of resamples are
    found = bootstrap_mean(values, bounds=(0.0, 1.0))
    assert 0 <= found.low <= found.value < 0.05 < found.high < 0.2


def test_booleans_take_wilsons_way_and_numbers_the_bootstraps():
    values = np.array([True, False, True, True])
    assert mean_estimate(values) == wilson_share(values)
    assert mean_estimate(values.astype(float), seed=1) == bootstrap_mean(values, seed=1)


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (1, 1), (1, 2), (9, 10), (97, 100)])
def test_rows_to_show_a_share_are_the_fewest_whose_interval_is_so_narrow(hits: int, of: int) -> None:
    """By scipy's interval, at the nearest numbers of rows that have this share."""

    def widest(n: int) -> float:
        found = stats.binomtest(hits * n // of, n).proportion_ci(method="wilson")
        return max(found.high - hits / of, hits / of - found.low)

    needed = rows_to_show(hits / of)
    assert widest(-(-needed // of) * of) <= 0.05 < widest((needed - 1) // of * of)
    assert rows_to_show(1.0) == 73


def test_a_slope_may_pass_1_and_has_no_gain() -> None:
    """One that overreacts 2.8 times had the gain 2.8."""
    slope = Estimate(2.8, 2.5, 3.1, 40)
    assert slope.with_floor(0.1).as_dict()["gain"] == pytest.approx(3)
    assert slope.with_floor(0.1, at_most_1=False).as_dict() == slope.as_dict() | {"floor": 0.1, "gain": None}
