"""Metrics of tasks with several labels a row, and a threshold for each label chosen on rows with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from gradistill.errors import DataError

HALF = 0.5
"""The default threshold of a label."""


def _f1(average: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    def score(flags: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> float:
        from sklearn.metrics import f1_score  # loads when something is measured

        return float(f1_score(flags, predicted, average=average, zero_division=0.0))  # pyright: ignore

    return score


def _average_precision(flags: np.ndarray, _: np.ndarray, logits: np.ndarray) -> float:
    """The mean average precision over the labels that some row has; 0 if no row has a label."""
    from sklearn.metrics import average_precision_score

    present = flags.any(axis=0)
    if not present.any():
        return 0.0
    return float(average_precision_score(flags[:, present], logits[:, present], average="macro"))


def _exact_match(flags: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(flags, predicted))


MULTI_LABEL_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = MappingProxyType(
    {
        "micro_f1": _f1("micro"),
        "macro_f1": _f1("macro"),
        "average_precision": _average_precision,
        "exact_match": _exact_match,
    }
)
"""Functions of gold flags, predicted flags and logits, each ``(row, label)``. Between 0 and 1; larger is better."""


def assigned(
    logits: Float[np.ndarray, "*row label"], thresholds: Float[np.ndarray, " label"] | None = None
) -> Bool[np.ndarray, "*row label"]:
    """The predicted labels: those with σ(z) above the label's threshold, by default ½ for every label.

    Example: ``assigned(np.array([[0.3, -2.0]]))[0].tolist()``
    """
    return above(expit(np.asarray(logits, np.float64)), thresholds)


def above(
    probabilities: Float[np.ndarray, "*row label"], thresholds: Float[np.ndarray, " label"] | None
) -> Bool[np.ndarray, "*row label"]:
    """Which labels are predicted, from their probabilities: see ``assigned``."""
    return np.asarray(probabilities > (HALF if thresholds is None else np.asarray(thresholds, np.float64)))


def choose_thresholds(
    logits: Float[np.ndarray, "row label"], flags: Float[np.ndarray, "_ _"]
) -> Float[np.ndarray, " label"]:
    """For each label the threshold of σ(z) with the highest F1 on these rows.

    It lies half way between the probabilities of two rows. If several have the same F1, the one nearest to ½ is taken.
    A label that no row has keeps ½. Thresholds chosen on few rows are rough, and F1 on the same rows is too high.

    Parameters:
        ``logits``: the model's logits.
        ``flags``: which labels the rows have, 0 or 1; rows of NaN have no known labels and are left out.

    Raises DataError where the shapes differ.

    Example: ``choose_thresholds(np.array([[-3.0], [-1.0], [2.0]]), np.array([[0.0], [1.0], [1.0]]))``
    """
    if np.shape(logits) != np.shape(flags):
        raise DataError(
            f"The logits have shape {np.shape(logits)}, the labels {np.shape(flags)}.",
            expected="one number for each row and label, in both",
        )
    known = np.isfinite(flags).all(axis=1)
    probabilities, gold = expit(np.asarray(logits, np.float64)[known]), np.asarray(flags)[known] > 0
    return np.array([_best(probabilities[:, k], gold[:, k]) for k in range(gold.shape[1])])


def _best(probabilities: np.ndarray, gold: np.ndarray) -> float:
    if not gold.any():
        return HALF
    values, places = np.unique(probabilities, return_inverse=True)
    right = np.bincount(places, weights=gold, minlength=len(values))[::-1].cumsum()[::-1]
    above = np.bincount(places, minlength=len(values))[::-1].cumsum()[::-1]
    f1 = 2 * right / (above + gold.sum())  # of a threshold just below each value
    between = np.concatenate([[values[0] / 2], (values[:-1] + values[1:]) / 2])
    best = between[np.isclose(f1, f1.max(), rtol=1e-12, atol=0)]
    return float(best[np.abs(best - HALF).argmin()])
