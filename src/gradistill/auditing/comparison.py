"""Paired comparisons of two models on the same examples: differences, and their p-values.

The test swaps the two models at random in each example (Fisher's randomisation test), ``DRAWS`` times. For a figure
that is a mean, a swap flips the sign of the example's difference. A correlation, or a ratio of sums over words or
spans, is recomputed. The p-values of all comparisons are corrected together by Holm's method (1979).

``scipy.stats.permutation_test`` computes the same values, and tests compare with it. For means it takes 10 times as
long with 200 examples and 37 times with 10 000 (11 s for a p-value): too long for an audit with some ninety p-values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gradistill.auditing.per_example import (
    AGREEMENT,
    CORRELATIONS,
    ON_WORDS,
    Columns,
    bounds_of,
    measured_columns,
    statistic_of,
)
from gradistill.auditing.statistics import (
    DRAWS_AT_ONCE,
    EQUAL,
    Estimate,
    bootstrap_mean,
    bootstrap_statistic,
    ratio,
)

DRAWS = 10_000
COMPARED = (
    "label", "exact_match", "probability", "span", "prediction", "response", "flips", "shapley", "expected_gradients",
    "saliency", "top_k_overlap", "student_accuracy", "student_comprehensiveness", "student_sufficiency",
    "student_token_f1", "student_watched_share",
)  # fmt: skip
"""The figures that are compared: means over examples, loyalties of words and spans, and the correlation of scores."""

OF_MAPS = ("expected_gradients", "saliency", "top_k_overlap")
"""Figures of maps. Maps over tokens of one model and over words of another are not comparable."""

_Named = tuple[str, Columns]


@dataclass(frozen=True)
class Comparison:
    """A figure's difference ``a − b`` with its interval, and its p-value, alone and corrected for all comparisons."""

    figure: str
    a: str
    b: str
    difference: Estimate
    p: float
    p_corrected: float

    def as_dict(self) -> dict[str, Any]:
        names = {"figure": self.figure, "a": self.a, "b": self.b}
        return {
            **names,
            "difference": self.difference.as_dict(),
            "p": self.p,
            "p_corrected": self.p_corrected,
        }


def compared(parts: Sequence[Mapping[str, Columns]], *, seed: int = 0) -> list[Comparison]:
    """Compare every pair of students on every figure that both have, over the examples where both have a value.

    Each part holds the columns of all students over its own set of examples, such as the sample for faithfulness.
    """
    return _tested(
        [((a, students[a]), (b, students[b])) for students in parts for a, b in combinations(students, 2)],
        seed,
    )


def compared_with(
    reference: tuple[str, Columns], students: Mapping[str, Columns], *, seed: int = 0
) -> list[Comparison]:
    """Compare every student (``a``) with one reference model (``b``) on every figure of agreement that both have. All
    columns are of the same examples.

    Example: ``compared_with(("second teacher", theirs), {"kd": ours})``
    """
    figures = [name for name in COMPARED if name in AGREEMENT]
    return _tested([(student, reference) for student in students.items()], seed, figures)


def _tested(
    pairs: Sequence[tuple[_Named, _Named]], seed: int, figures: Sequence[str] = COMPARED
) -> list[Comparison]:
    """Compare each pair on every figure that both have, with p-values that are corrected together."""
    tested = [
        (figure, a, b, *difference)
        for (a, ours), (b, theirs) in pairs
        for figure in figures
        if (difference := _difference_and_p(figure, ours, theirs, seed)) is not None
    ]
    corrected = holm([entry[-1] for entry in tested])
    return [Comparison(*entry, p) for entry, p in zip(tested, corrected, strict=True)]


def _difference_and_p(
    figure: str, ours: Columns, theirs: Columns, seed: int
) -> tuple[Estimate, float] | None:
    """The difference in a figure, and its p-value. None if a model lacks the figure, or has it for other words."""
    a, b = measured_columns(ours, figure), measured_columns(theirs, figure)
    if a is None or b is None or not _of_the_same(figure, ours, theirs):
        return None
    known = np.isfinite(np.stack([np.asarray(column, np.float64) for column in (*a, *b)])).all(axis=0)
    if not known.any():
        return None
    a, b = ([column[known].astype(np.float64) for column in columns] for columns in (a, b))
    if (statistic := statistic_of(ours, figure)) is None:
        (least, most), differences = bounds_of(figure), a[0] - b[0]
        difference = bootstrap_mean(differences, bounds=(least - most, most - least), seed=seed)
        return difference, sign_flip_p(differences, seed=seed)
    count = len(a)
    difference = bootstrap_statistic(
        lambda *both: statistic(*both[:count]) - statistic(*both[count:]), *a, *b, seed=seed
    )
    if figure in CORRELATIONS:  # a correlation has no offset and no scale, which a swap would mix
        a, b = ([_standardised(values) for values in side] for side in (a, b))
    return (difference, swap_p(statistic, a, b, seed=seed)) if np.isfinite(difference.value) else None


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred / spread if (spread := values.std()) > 0 else centred


def _of_the_same(figure: str, ours: Columns, theirs: Columns) -> bool:
    """Whether two models' figures are of the same tokens or words. Models with different tokenizers may differ."""
    if figure in OF_MAPS:
        return (ON_WORDS in ours) == (ON_WORDS in theirs)
    return statistic_of(ours, figure) is not ratio or np.array_equal(ours["words"], theirs["words"])


def sign_flip_p(differences: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p-value: the share of random sign flips whose mean is at least as far from zero as the observed one.

    The observed signs count as one of them. Differences that are only rounding errors count as 0.
    """
    nonzero = differences[np.abs(differences) > EQUAL]  # flipping a zero changes nothing
    if not len(nonzero):
        return 1.0
    return _share_as_far(
        abs(nonzero.sum()), lambda swaps: np.abs((swaps * 2 - 1) @ nonzero), len(nonzero), draws, seed
    )


def swap_p(
    statistic: Callable[..., np.ndarray],
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the difference in a ``statistic`` of several columns: the share of random swaps after which
    the two models differ at least as much (see ``sign_flip_p``).

    Example: ``swap_p(ratio, [sums, counts], [their_sums, their_counts])``
    """

    def distances(swaps: np.ndarray) -> np.ndarray:
        pairs = [(a, b, swaps == 1) for a, b in zip(ours, theirs, strict=True)]
        sides = [
            [np.where(swap, b, a) for a, b, swap in pairs],
            [np.where(swap, a, b) for a, b, swap in pairs],
        ]
        return np.abs(statistic(*sides[0]) - statistic(*sides[1]))

    rows = len(ours[0])
    seen = float(distances(np.zeros((1, rows), np.int8))[0])
    return 1.0 if seen <= EQUAL else _share_as_far(seen, distances, rows, draws, seed)


def _share_as_far(
    seen: float, distances: Callable[[np.ndarray], np.ndarray], rows: int, draws: int, seed: int
) -> float:
    """The share of random swaps, ``(draw, row)`` of 0 or 1, whose distance is at least ``seen``. The observed pairing
    counts as one of them. Swaps under which the figure has no value are left out."""
    generator, reached, known, left = np.random.default_rng(seed), 0, 0, draws
    while left:
        count = min(left, max(1, DRAWS_AT_ONCE // rows))
        swaps = generator.integers(0, 2, (count, rows), dtype=np.int8)
        values = distances(swaps)
        reached += int((values >= seen * (1 - 1e-12)).sum())
        known += int((~np.isnan(values)).sum())
        left -= count
    return (reached + 1) / (known + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values with Holm's step-down correction: the k-th smallest of m is multiplied by m − k + 1, in rising order."""
    order = np.argsort(p_values, kind="stable")
    corrected, least = np.zeros(len(p_values)), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = least
    return corrected.tolist()
