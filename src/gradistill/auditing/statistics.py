"""Estimates with intervals: Wilson's interval for shares, and the percentile bootstrap over examples for the others.

Sources: E. B. Wilson, *Probable inference, the law of succession, and statistical inference* (1927), JASA 22; B. Efron
and R. J. Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13. The bootstrap is ``scipy.stats.bootstrap``:
examples are resampled with replacement, the statistic is recomputed, and its quantiles bound the interval. A comparison
of two students is paired: bootstrap the differences of examples. An interval never has zero width: if no width can be
estimated, its bounds are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import DegenerateDataWarning, bootstrap, norm

from gradistill.errors import GradistillError

Bounds = tuple[float, float]

EQUAL = 1e-6
"""Values that differ by less than this are equal except for rounding in float32."""
MAX_BIAS = 0.25
"""A bias of resamples that can be ignored, in their standard deviations."""
DRAWS_AT_ONCE = 1 << 20
"""Most indices in memory at a time (8 MiB), unless a single resample is larger."""


@dataclass(frozen=True)
class Estimate:
    """A figure over ``n`` examples with its interval. Undefined values and bounds are NaN."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The JSON form ``{value, low, high, n}``; JSON has no NaN, so it becomes ``None``."""
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if isfinite(v) else None for k, v in bounds.items()} | {"n": self.n}

    def with_floor(self, floor: float, *, at_most_1: bool = True) -> FlooredEstimate:
        """The figure with its floor, the value of a model that cannot have learnt to agree."""
        return FlooredEstimate(self.value, self.low, self.high, self.n, floor, at_most_1)

    def __str__(self) -> str:
        between = f" [{self.low:.3f}, {self.high:.3f}]" if isfinite(self.low) else ""
        return f"{self.value:.3f}{between}"


@dataclass(frozen=True)
class FlooredEstimate(Estimate):
    """A figure of agreement with its ``floor``: the value of a model that cannot have learnt to agree."""

    floor: float
    at_most_1: bool = True
    """Whether 1 is the largest value. A slope, which may pass it, has no gain."""

    @property
    def gain(self) -> float:
        """``(value − floor) / (1 − floor)``: the share of the range above the floor. NaN if that is undefined."""
        return (self.value - self.floor) / (1 - self.floor) if self.at_most_1 and self.floor < 1 else nan

    def as_dict(self) -> dict[str, float | int | None]:
        """The JSON form ``{value, low, high, n, floor, gain}``."""
        more = {"floor": self.floor, "gain": self.gain}
        return super().as_dict() | {name: v if isfinite(v) else None for name, v in more.items()}


def mean_estimate(
    values: Float[np.ndarray, " batch"] | Bool[np.ndarray, " batch"],
    *,
    bounds: Bounds | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of one value per example with its 95 % interval: Wilson's for booleans, the bootstrap's for other values.

    ``bounds`` are the smallest and the largest value that an example can have.
    """
    if values.dtype == np.bool_:
        return wilson_share(values)
    return bootstrap_mean(values, bounds=bounds, resamples=resamples, seed=seed)


def wilson_share(values: Bool[np.ndarray, " batch"], *, level: float = 0.95) -> Estimate:
    """Share of true examples with its score interval (Wilson 1927), without a continuity correction.

    Unlike the bootstrap's, the interval has a width at shares of 0 and 1, and keeps its level with few examples.
    """
    n = _checked_size([np.asarray(values, dtype=np.float64)], level, 1)
    if n == 0:
        return Estimate(nan, nan, nan, 0)
    share = float(values.mean())
    return Estimate(share, *_wilson(share, n, level), n)


def rows_to_show(share: float, *, within: float = 0.05, level: float = 0.95) -> int:
    """The smallest number of examples for which the interval of ``wilson_share`` lies ``within`` this distance of
    ``share``.

    Example: ``rows_to_show(1.0)`` returns 73
    """
    n = 1
    while max(abs(end - share) for end in _wilson(share, n, level)) > within:
        n += 1
    return n


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Both ends of the score interval of a share of n examples."""
    z2 = _z(level) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * share * (1 - share) / n + z2 * z2 / (4 * n * n)) ** 0.5 / (1 + z2 / n)
    # Rounding errors must not exclude the value, nor exceed 0..1.
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def bootstrap_mean(
    values: Float[np.ndarray, " batch"] | Bool[np.ndarray, " batch"],
    *,
    bounds: Bounds | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of one value per example and its percentile interval (Efron & Tibshirani 1993, section 13.3).

    The interval is in the unit of ``values`` and depends on the seed. Without examples all is NaN; one example has no
    interval. If all resamples have the same mean c, the bootstrap has no interval. With ``bounds`` a and b there still
    is one: by Wilson at most the share u = z² / (n + z²) of all examples differs from c, so the mean lies between
    c − u (c − a) and c + u (b − c). Raises ``GradistillError`` for NaN or infinite values.
    """
    estimate = bootstrap_statistic(_mean, values, level=level, resamples=resamples, seed=seed)
    return estimate if bounds is None or isfinite(estimate.low) else _within(estimate, bounds, level)


def bootstrap_share(
    above: Float[np.ndarray, " batch"],
    below: Float[np.ndarray, " batch"],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The ratio of two sums over examples with its percentile interval, such as the share of all words.

    ``above`` must not be larger than ``below``. If all resamples agree, the interval is that of ``bootstrap_mean``.

    Example: ``bootstrap_share(np.array([3.0, 1.0, 2.0]), np.array([4.0, 1.0, 5.0]))``
    """
    estimate = bootstrap_statistic(ratio, above, below, level=level, resamples=resamples, seed=seed)
    return (
        estimate
        if isfinite(estimate.low) or not isfinite(estimate.value)
        else _within(estimate, (0.0, 1.0), level)
    )


def _within(found: Estimate, bounds: Bounds, level: float) -> Estimate:
    """The interval of equal values: by Wilson, a share of all examples may differ from them, up to ``bounds``."""
    if found.n < 2:
        return found
    value, others = float(np.clip(found.value, *bounds)), _z(level) ** 2 / (found.n + _z(level) ** 2)
    return Estimate(
        found.value, value - others * (value - bounds[0]), value + others * (bounds[1] - value), found.n
    )


def _z(level: float) -> float:
    return float(norm.ppf((1 + level) / 2))


def bootstrap_statistic(
    statistic: Callable[..., Float[np.ndarray, " resample"]],
    *arrays: Float[np.ndarray, " _"] | Bool[np.ndarray, " _"],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    within: Bounds | None = None,
) -> Estimate:
    """Any statistic with its bootstrap interval, over examples that are resampled jointly from all ``arrays``.

    ``within`` are the bounds of a statistic that resamples may bias (``resample_interval``).

    ``statistic`` takes as many arrays of shape ``(resample, batch)`` as there are ``arrays`` and returns one value for
    each resample. Resamples with NaN (a correlation without variance) are left out; this is ours, as Efron & Tibshirani
    do not treat them. The interval is NaN for one example, or if all resamples agree.
    """
    columns = [np.asarray(array, dtype=np.float64) for array in arrays]
    n = _checked_size(columns, level, resamples)
    if n == 0:
        return Estimate(nan, nan, nan, 0)
    value = float(statistic(*(column[None] for column in columns))[0])
    if n == 1:
        return Estimate(value, nan, nan, 1)
    with catch_warnings():
        simplefilter(
            "ignore", DegenerateDataWarning
        )  # from scipy's own interval, which is NaN if any resample is
        result: Any = bootstrap(
            columns,
            lambda *resample, axis: statistic(*resample),
            n_resamples=resamples,
            batch=max(1, DRAWS_AT_ONCE // n),
            paired=True,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return Estimate(value, *resample_interval(result.bootstrap_distribution, value, within, level), n)


def resample_interval(
    drawn: Float[np.ndarray, " resample"], value: float, within: Bounds | None = None, level: float = 0.95
) -> Bounds:
    """The interval of a statistic from its values on resamples, ``drawn``; ``value`` is its value on the sample.

    It is the percentile interval (Efron & Tibshirani 1993, section 13.3), and NaN if all resamples agree. NaN values of
    resamples are left out. ``within`` are the bounds of a statistic that resamples may bias, such as a mean over
    classes, some of which a resample lacks. If then the mean of the resamples differs from ``value`` by more than a
    quarter of their standard deviation (section 10.3), the basic interval is returned (Davison & Hinkley 1997, section
    5.2), in which the bias does not count twice. It is the mirror image of the percentiles around ``value``, clipped to
    the bounds, and extended to include the value.

    Example: ``resample_interval(np.array([0.1, 0.2, 0.3]), 0.3, (0.0, 1.0))``
    """
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size or np.ptp(drawn) <= EQUAL:
        return nan, nan
    low, high = map(float, np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    if within is None or abs(drawn.mean() - value) <= MAX_BIAS * drawn.std():
        return low, high
    mirrored = np.clip([2 * value - high, 2 * value - low], *within)
    return float(min(mirrored[0], value)), float(max(mirrored[1], value))


def ratio(
    above: Float[np.ndarray, "resample batch"], below: Float[np.ndarray, "resample batch"]
) -> Float[np.ndarray, " resample"]:
    """The sum of ``above`` over the last axis divided by the sum of ``below``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return above.sum(axis=-1) / below.sum(axis=-1)


def _mean(values: Float[np.ndarray, "resample batch"]) -> Float[np.ndarray, " resample"]:
    return values.mean(axis=-1)


def _checked_size(columns: list[np.ndarray], level: float, resamples: int) -> int:
    """The common number of examples. Raises GradistillError for unequal shapes, non-finite values or bad settings."""
    if not 0 < level < 1:
        raise GradistillError(f"The level of the interval is {level}.", expected="a number between 0 and 1")
    if resamples < 1:
        raise GradistillError(f"The number of resamples is {resamples}.", expected="at least 1")
    sizes = {column.shape for column in columns}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        raise GradistillError(
            f"The bootstrap got arrays of shapes {sorted(sizes)}.",
            expected="arrays with one value per example, all of one length",
        )
    for column in columns:
        if not np.isfinite(column).all():
            rows = np.flatnonzero(~np.isfinite(column))
            raise GradistillError(
                f"{rows.size} of {column.size} values are NaN or infinite, first at example row {rows[0]}.",
                expected="one finite value per example",
            )
    return columns[0].size
