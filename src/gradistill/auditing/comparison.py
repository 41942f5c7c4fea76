"""Two models on the same examples: paired differences, and how likely they are by chance.

The test swaps the two models at each example or not (Fisher's randomisation test), ``DRAWS`` times. Of a figure that is
a mean, that flips the sign of the example's difference; a correlation, and a ratio of sums over words or spans, are
computed anew. p-values of all comparisons together are corrected by Holm's method (1979).
``scipy.stats.permutation_test`` computes the same, and is the tests' witness. Of means it takes 10 times as long for
200 examples and 37 times for 10 000 (11 s a p-value), too long for an audit with some ninety of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from gradistill.auditing.per_example import (
    AGREEMENT,
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
"""The figures that are tested: means over examples, loyalties of words and spans, and the correlation of scores."""

OF_MAPS = ("expected_gradients", "saliency", "top_k_overlap")
"""Those of maps: by tokens for one model and by words for another they are not alike, and are not compared."""

_Named = tuple[str, Columns]


@dataclass(frozen=True)
class Comparison:
    """The mean of ``a − b`` with its interval; ``p`` alone and corrected for all comparisons that were made with it."""

    figure: str
    a: str
    b: str
    difference: Estimate
    p: float
    p_corrected: float

    def as_dict(self) -> dict[str, Any]:
        own = {"figure": self.figure, "a": self.a, "b": self.b}
        return {**own, "difference": self.difference.as_dict(), "p": self.p, "p_corrected": self.p_corrected}


def compared(parts: Sequence[Mapping[str, Columns]], *, seed: int = 0) -> list[Comparison]:
    """Every pair of students on every figure that both have, over the examples that both have it on.

    Each part holds the columns of all students over examples of its own, such as the few that faithfulness looks at.
    """
    return _tested(
        [((a, students[a]), (b, students[b])) for students in parts for a, b in combinations(students, 2)],
        seed,
    )


def compared_with(
    reference: tuple[str, Columns], students: Mapping[str, Columns], *, seed: int = 0
) -> list[Comparison]:
    """Every student (``a``) with one other model (``b``), on every figure of agreement that both have; columns are of
    the same examples.

    Example: ``compared_with(("second teacher", theirs), {"kd": ours})``
    """
    figures = [name for name in COMPARED if name in AGREEMENT]
    return _tested([(student, reference) for student in students.items()], seed, figures)


def _tested(
    pairs: Sequence[tuple[_Named, _Named]], seed: int, figures: Sequence[str] = COMPARED
) -> list[Comparison]:
    """Each pair on every figure that both have, with p-values that are corrected together."""
    found = [
        (figure, a, b, *apart)
        for (a, ours), (b, theirs) in pairs
        for figure in figures
        if (apart := _apart(figure, ours, theirs, seed)) is not None
    ]
    corrected = holm([entry[-1] for entry in found])
    return [Comparison(*entry, p) for entry, p in zip(found, corrected, strict=True)]


def _apart(figure: str, ours: Columns, theirs: Columns, seed: int) -> tuple[Estimate, float] | None:
    """The difference in a figure, and its p-value; None where one of the models lacks it, or has it of other words."""
    a, b = measured_columns(ours, figure), measured_columns(theirs, figure)
    if a is None or b is None or not _of_the_same(figure, ours, theirs):
        return None
    known = np.isfinite(np.stack([np.asarray(column, np.float64) for column in (*a, *b)])).all(axis=0)
    if not known.any():
        return None
    a, b = ([column[known].astype(np.float64) for column in columns] for columns in (a, b))
    if (statistic := statistic_of(ours, figure)) is None:
        (least, most), apart = bounds_of(figure), a[0] - b[0]
        difference = bootstrap_mean(apart, bounds=(least - most, most - least), seed=seed)
        return difference, sign_flip_p(apart, seed=seed)
    count = len(a)
    difference = bootstrap_statistic(
        lambda *both: statistic(*both[:count]) - statistic(*both[count:]), *a, *b, seed=seed
    )
    return (difference, swap_p(statistic, a, b, seed=seed)) if np.isfinite(difference.value) else None


def _of_the_same(figure: str, ours: Columns, theirs: Columns) -> bool:
    """Whether two models' figures are of the same tokens or words: with another tokenizer each may read some of its
    own."""
    if figure in OF_MAPS:
        return (ON_WORDS in ours) == (ON_WORDS in theirs)
    return statistic_of(ours, figure) is not ratio or np.array_equal(ours["words"], theirs["words"])


def sign_flip_p(differences: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided; the share of sign flips whose mean is as far from zero, the one that was seen among them. A difference
    of rounding alone is none."""
    moved = differences[np.abs(differences) > EQUAL]  # flipping a zero changes nothing
    if not len(moved):
        return 1.0
    return _share_as_far(
        abs(moved.sum()), lambda swaps: np.abs((swaps * 2 - 1) @ moved), len(moved), draws, seed
    )


def swap_p(
    statistic: Callable[..., np.ndarray],
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """As ``sign_flip_p``, of a ``statistic`` of several columns (example): the share of random swaps after which the
    two models are as far apart.

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
    """The share of random swaps (draw, row), each 0 or 1, whose distance is at least the one that was ``seen``, which
    counts among them. Swaps under which a figure has no value count for nothing."""
    generator, reached, known, left = np.random.default_rng(seed), 0, 0, draws
    while left:
        count = min(left, max(1, DRAWS_AT_ONCE // rows))
        swaps = generator.integers(0, 2, (count, rows), dtype=np.int8)
        found = distances(swaps)
        reached += int((found >= seen * (1 - 1e-12)).sum())
        known += int((~np.isnan(found)).sum())
        left -= count
    return (reached + 1) / (known + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times m − k + 1, never below the one before."""
    order = np.argsort(p_values, kind="stable")
    corrected, least = np.zeros(len(p_values)), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = least
    return corrected.tolist()
