"""How far two models' signed attributions of the same words agree: what supports a label, and what opposes it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float

from gradistill.auditing.loyalty_measures import MIN_TOKENS, Maps, spearman
from gradistill.auditing.map_agreement import TOP
from gradistill.auditing.statistics import EQUAL


def signed_columns(student: Maps, teacher: Maps, words: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """``signed`` and ``signed_top`` of each row: ``signed_agreement`` of the sums over the tokens of each word.

    ``words`` holds the number of each token's word, −1 for a token of none. Words without a token were cut off, and
    play no part.
    """
    found = np.full((len(words), 2), np.nan)
    for row, (ours, theirs, numbers) in enumerate(zip(student, teacher, words, strict=True)):
        read, place = np.unique(numbers[numbers >= 0], return_inverse=True)
        sums = [
            np.bincount(place, weights=values[numbers >= 0], minlength=len(read)) for values in (ours, theirs)
        ]
        found[row] = signed_agreement(*sums)
    return {"signed": found[:, 0], "signed_top": found[:, 1]}


def signed_agreement(
    student: Float[np.ndarray, " word"], teacher: Float[np.ndarray, " word"]
) -> tuple[float, float]:
    """Spearman's ρ of the signed values, and the share of the teacher's top fifth to which both give the same sign.

    The top fifth are the words with the largest absolute values of the teacher, at least one. Both are NaN for fewer
    than ``MIN_TOKENS`` words and where the teacher's values are all equal: there is nothing to agree with. Where the
    student's are all equal ρ is 0; a value of 0 has no sign and agrees with none.
    """
    if len(teacher) < MIN_TOKENS or np.ptp(teacher) <= EQUAL * np.abs(teacher).max():
        return float("nan"), float("nan")
    top = np.argsort(-np.abs(teacher), kind="stable")[: ceil(TOP * len(teacher))]
    rho = float(spearman(student[None], teacher[None])[0])
    return rho, float((student[top] * teacher[top] > 0).mean())
