"""Comparisons of two models' predicted labels: kappa, macro F1, pairs of labels, disagreements by confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

ClassIds = Float[np.ndarray, "resample batch"]
PerResample = Float[np.ndarray, " resample"]

CONFIDENCE_BOUNDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Bounds of the bins of the teacher's confidence in which disagreements are counted."""


def kappa(a: ClassIds, b: ClassIds) -> PerResample:
    """Cohen's kappa of class ids over the last axis: ``(p_o − p_e) / (1 − p_e)``.

    ``p_o`` is the share of examples with equal labels. ``p_e`` is the expected share for two models that draw labels at
    random with the same frequencies. So 0 is agreement by chance, however frequent a class is, and 1 is full agreement.
    NaN if both models predict one and the same label for every example.

    Source: J. Cohen, *A coefficient of agreement for nominal scales* (1960), Educational and Psychological
    Measurement 20.

    Example: ``kappa(np.array([[0., 1., 1.]]), np.array([[0., 1., 0.]]))[0]``
    """
    both, first, second = _shares(a, b)
    return _beyond_chance(both.sum(axis=1), (first * second).sum(axis=1))


def kappa_of_flags(
    same: Float[np.ndarray, "resample batch"],
    a: Float[np.ndarray, "resample batch"],
    b: Float[np.ndarray, "resample batch"],
) -> PerResample:
    """Cohen's kappa with several labels a row: of the yes and no of all labels of all rows together.

    ``same`` is the share of a row's labels on which both models agree. ``a`` and ``b`` are the shares of labels that
    each model assigns. NaN if both assign every label to every row, or no label to any row.

    Example: ``kappa_of_flags(*(np.array([[x]]) for x in (0.75, 0.5, 0.25)))[0]``
    """
    seen, first, second = same.mean(axis=1), a.mean(axis=1), b.mean(axis=1)
    return _beyond_chance(seen, first * second + (1 - first) * (1 - second))


def _beyond_chance(seen: np.ndarray, chance: np.ndarray) -> PerResample:
    """``(p_o − p_e) / (1 − p_e)``; NaN where ``p_e`` is 1."""
    constant = np.isclose(chance, 1)
    return np.where(constant, np.nan, (seen - chance) / np.where(constant, 1, 1 - chance))


def macro_f1(predicted: ClassIds, gold: ClassIds) -> PerResample:
    """The mean F1, over the last axis, of the classes that occur in ``predicted`` or ``gold``.

    Example: ``macro_f1(np.array([[0., 1., 1.]]), np.array([[0., 1., 0.]]))[0]``
    """
    both, first, second = _shares(predicted, gold)
    used = first + second > 0
    f1 = 2 * both / np.where(used, first + second, 1)
    return f1.sum(axis=1) / used.sum(axis=1)


def _shares(a: ClassIds, b: ClassIds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each resample and class: the share of examples with this class in both arrays, in ``a``, and in ``b``."""
    classes = int(max(a.max(), b.max())) + 1
    places = [np.arange(len(ids))[:, None] * classes + ids.astype(int) for ids in (a, b)]
    counted = (places[0][a == b], *(place.ravel() for place in places))
    both, first, second = (
        np.bincount(place, minlength=len(a) * classes).reshape(len(a), classes) / a.shape[1]
        for place in counted
    )
    return both, first, second


def label_pairs(
    student: Int[np.ndarray, " batch"], teacher: Int[np.ndarray, " batch"], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The confusion matrix of labels without its zeros, the most frequent pair first.

    Example: ``label_pairs(np.array([0, 1]), np.array([0, 0]), ["no", "yes"])[0]["n"]``
    """
    pairs, counts = np.unique(np.stack([teacher, student]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        {"teacher": names[pairs[0, k]], "student": names[pairs[1, k]], "n": int(counts[k])} for k in order
    ]


def label_rows(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> list[dict[str, Any]]:
    """With several labels a row: for each label the counts of both models and of the data, and the agreement.

    ``both`` counts the examples to which both models assign the label. ``agreement`` is the F1 of the student's labels
    against the teacher's; ``teacher_f1`` and ``student_f1`` are against the gold labels, if known.
    """
    flags = {owner: np.asarray(columns[f"{owner}_flags"], bool) for owner in ("teacher", "student")}
    rows = []
    for k, name in enumerate(names):
        teacher, student = (flags[owner][:, k] for owner in ("teacher", "student"))
        row: dict[str, Any] = {"label": name, "teacher": int(teacher.sum()), "student": int(student.sum())}
        row |= {"both": int((teacher & student).sum()), "agreement": _f1(student, teacher)}
        if "gold" in columns:
            known = np.isfinite(columns["gold"]).all(axis=1)
            gold = columns["gold"][known, k] > 0
            row["gold"] = int(gold.sum())
            row |= {f"{owner}_f1": _f1(of_one[known, k], gold) for owner, of_one in flags.items()}
        rows.append(row)
    return rows


def _f1(predicted: Bool[np.ndarray, " batch"], gold: Bool[np.ndarray, " batch"]) -> float | None:
    """F1 of one label; None if it is neither predicted nor gold."""
    total = int(predicted.sum() + gold.sum())
    return 2 * int((predicted & gold).sum()) / total if total else None


def disagreements(
    same: Bool[np.ndarray, " batch"], confidence: Float[np.ndarray, " batch"]
) -> list[dict[str, Any]]:
    """For each bin of the teacher's confidence: the number ``n`` of examples, and of those with an ``other`` label.

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
