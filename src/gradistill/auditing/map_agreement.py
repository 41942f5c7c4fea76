"""How far two maps of one example agree, beside the rank correlation that saliency loyalty is (``loyalty``).

One value per example. Examples of fewer than ``MIN_TOKENS`` tokens are NaN, as they are skipped there. Where both
scores of two tokens tie the earlier one counts as larger.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from gradistill.auditing.loyalty_measures import MIN_TOKENS, Maps, saliency_agreement

TOP = 0.2
"""Share of the tokens that count as the top ones."""


def map_agreement(student: Maps, teacher: Maps) -> dict[str, np.ndarray]:
    """``saliency``, ``top_k_overlap``, ``cosine`` and ``kendall_tau`` by example.

    A constant map orders nothing: its correlations are 0. Raises GradistillError as ``saliency_agreement`` does.
    """
    long = np.array([len(scores) >= MIN_TOKENS for scores in teacher], dtype=bool)
    rho = np.full(len(long), np.nan)
    rho[long], _ = saliency_agreement(student, teacher)
    pairs = list(zip(student, teacher, long, strict=True))
    return {
        "saliency": rho,
        "top_k_overlap": np.array([_overlap(s, t) if enough else np.nan for s, t, enough in pairs]),
        "cosine": np.array([_cosine(s, t) if enough else np.nan for s, t, enough in pairs]),
        "kendall_tau": np.array([_kendall(s, t) if enough else np.nan for s, t, enough in pairs]),
    }


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the ``count`` largest scores."""
    return np.argsort(-scores, kind="stable")[:count]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the top fifth of one map that is in the top fifth of the other."""
    k = ceil(TOP * len(a))
    return len(np.intersect1d(top(a, k), top(b, k))) / k


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / lengths, -1, 1)) if lengths else 0.0


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    """τ-b, which allows for ties."""
    result: Any = kendalltau(a, b)
    tau = float(result.statistic)
    return 0.0 if np.isnan(tau) else tau
