"""Agreement of two models' signed attributions of words, which support or oppose a label."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float

from gradistill.auditing.loyalty_measures import MIN_TOKENS, Maps, spearman
from gradistill.auditing.map_agreement import TOP
from gradistill.auditing.statistics import EQUAL


def signed_columns(student: Maps, teacher: Maps, words: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The columns ``signed`` and ``signed_top``: ``signed_agreement`` of the sums over each word's tokens.

    ``words`` holds the word index of each token, −1 for tokens of no word. Words without tokens, which were cut off, do
    not count.
    """
    values_of_rows = np.full((len(words), 2), np.nan)
    for row, (ours, theirs, numbers) in enumerate(zip(student, teacher, words, strict=True)):
        read, place = np.unique(numbers[numbers >= 0], return_inverse=True)
        sums = [
            np.bincount(place, weights=values[numbers >= 0], minlength=len(read)) for values in (ours, theirs)
        ]
        values_of_rows[row] = signed_agreement(*sums)
    return {"signed": values_of_rows[:, 0], "signed_top": values_of_rows[:, 1]}


def signed_agreement(
    student: Float[np.ndarray, " word"], teacher: Float[np.ndarray, " word"]
) -> tuple[float, float]:
    """Spearman's ρ of the signed values, and the share of the teacher's top fifth on which both signs are equal.

    The top fifth are the words with the teacher's largest absolute values, at least one. Both figures are NaN for fewer
    than ``MIN_TOKENS`` words, or if the teacher's values are all equal, as there is then nothing to agree with. If the
    student's values are all equal, ρ is 0. A value of 0 has no sign and never agrees.
    """
    if len(teacher) < MIN_TOKENS or np.ptp(teacher) <= EQUAL * np.abs(teacher).max():
        return float("nan"), float("nan")
    top = np.argsort(-np.abs(teacher), kind="stable")[: ceil(TOP * len(teacher))]
    rho = float(spearman(student[None], teacher[None])[0])
    return rho, float((student[top] * teacher[top] > 0).mean())
