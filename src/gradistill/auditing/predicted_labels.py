"""What the labels that two models predict have in common: kappa, macro F1, pairs of labels, where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from gradistill.auditing.statistics import Estimate, bootstrap_statistic

LabelIds = Int[np.ndarray, " batch"]

CONFIDENCE_BOUNDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bins of the teacher's confidence in which disagreements are counted."""


def kappa(student: LabelIds, teacher: LabelIds, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Cohen's kappa of two models' labels with its bootstrap interval: ``(p_o − p_e) / (1 − p_e)``.

    ``p_o`` is the share of examples with the same label. ``p_e`` is that share of two models that draw labels by chance
    with the frequencies of these two. So 0 is agreement by chance, however frequent a class is, and 1 is full
    agreement. NaN where both models predict one and the same label for every example.

    Parameters:
        ``student``, ``teacher``: predicted class ids, one per example.
        ``resamples``, ``seed``: of the bootstrap.

    Source: J. Cohen, *A coefficient of agreement for nominal scales* (1960), Educational and Psychological
    Measurement 20.

    Example: ``kappa(np.array([0, 1, 1]), np.array([0, 1, 0])).value``
    """
    return _estimate(_kappa, student, teacher, resamples=resamples, seed=seed)


def macro_f1(predicted: LabelIds, gold: LabelIds, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean F1 over the classes that are predicted or gold, with its bootstrap interval.

    Parameters:
        ``predicted``, ``gold``: class ids, one per example. Examples with a negative gold id have no label.
        ``resamples``, ``seed``: of the bootstrap.

    Example: ``macro_f1(np.array([0, 1, 1]), np.array([0, 1, 0])).value``
    """
    known = gold >= 0
    return _estimate(_macro_f1, predicted[known], gold[known], resamples=resamples, seed=seed)


def label_pairs(student: LabelIds, teacher: LabelIds, names: Sequence[str]) -> list[dict[str, Any]]:
    """The confusion matrix of labels without its zeros, the most frequent pair first.

    Example: ``label_pairs(np.array([0, 1]), np.array([0, 0]), ["no", "yes"])[0]["n"]``
    """
    pairs, counts = np.unique(np.stack([teacher, student]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        {"teacher": names[pairs[0, k]], "student": names[pairs[1, k]], "n": int(counts[k])} for k in order
    ]


def disagreements(same: np.ndarray, confidence: np.ndarray) -> list[dict[str, Any]]:
    """In each bin of the teacher's confidence: ``n`` examples, and ``other`` of them with another label.

    Example: ``disagreements(np.array([True, False]), np.array([0.9, 0.95]))[0]["other"]``
    """
    last = len(CONFIDENCE_BOUNDS) - 2
    which = np.clip(np.searchsorted(CONFIDENCE_BOUNDS, confidence, side="right") - 1, 0, last)
    return [
        {
            "low": CONFIDENCE_BOUNDS[k],
            "high": CONFIDENCE_BOUNDS[k + 1],
            "n": int((which == k).sum()),
            "other": int((~same[which == k]).sum()),
        }
        for k in np.unique(which)
    ]


Margins = Float[np.ndarray, "resample label"]
Statistic = Callable[[Margins, Margins, Margins], Float[np.ndarray, " resample"]]


def _estimate(statistic: Statistic, a: LabelIds, b: LabelIds, *, resamples: int, seed: int) -> Estimate:
    """A statistic of how often each label has both (its diagonal cell), the first, and the second of two readings."""
    used, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    places_of_both = np.split(numbers.astype(float), 2)  # what the bootstrap takes

    def of_resamples(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        places = [np.arange(len(x))[:, None] * len(used) + x.astype(int) for x in (first, second)]
        size, shape = len(first) * len(used), (len(first), len(used))
        firsts, seconds = (np.bincount(p.ravel(), minlength=size).reshape(shape) for p in places)
        both = np.bincount(places[0][first == second], minlength=size).reshape(shape)
        return statistic(*(count / first.shape[1] for count in (both, firsts, seconds)))

    return bootstrap_statistic(of_resamples, *places_of_both, resamples=resamples, seed=seed)


def _kappa(both: Margins, first: Margins, second: Margins) -> Float[np.ndarray, " resample"]:
    seen, chance = both.sum(axis=1), (first * second).sum(axis=1)
    constant = np.isclose(chance, 1)
    return np.where(constant, np.nan, (seen - chance) / np.where(constant, 1, 1 - chance))


def _macro_f1(both: Margins, first: Margins, second: Margins) -> Float[np.ndarray, " resample"]:
    used = first + second > 0
    f1 = 2 * both / np.where(used, first + second, 1)
    return f1.sum(axis=1) / used.sum(axis=1)
