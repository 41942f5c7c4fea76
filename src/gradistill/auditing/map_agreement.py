"""Agreement of two models' maps of one example: saliency loyalty's rank correlation, and three more figures.

One value per example. Examples with fewer than ``MIN_TOKENS`` tokens are NaN. Of tokens with equal scores, the earlier
one counts as larger.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from gradistill.auditing.loyalty_measures import MIN_TOKENS, Maps, saliency_agreement

TOP = 0.2
"""The share of tokens that counts as the top tokens."""


def map_agreement(student: Maps, teacher: Maps) -> dict[str, np.ndarray]:
    """The columns ``saliency``, ``top_k_overlap``, ``cosine`` and ``kendall_tau``, with one value per example.

    A constant map has correlations of 0. Raises GradistillError as ``saliency_agreement`` does.
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
    """The indices of the ``count`` largest scores."""
    return np.argsort(-scores, kind="stable")[:count]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The share of one map's top fifth that is in the other map's top fifth."""
    k = ceil(TOP * len(a))
    return len(np.intersect1d(top(a, k), top(b, k))) / k


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / lengths, -1, 1)) if lengths else 0.0


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's τ-b, which accounts for ties."""
    result: Any = kendalltau(a, b)
    tau = float(result.statistic)
    return 0.0 if np.isnan(tau) else tau
