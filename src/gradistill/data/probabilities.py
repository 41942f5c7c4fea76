"""From probabilities, votes and labels to the logits that objectives read."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

LEAST = 1e-12
"""Smaller probabilities are raised to this one, so that every logit is finite: log-odds stay within ±27.6."""

APART = 1e-3
"""How far the sum of a row's probabilities may be from 1."""


def logits_of(
    probabilities: Float[np.ndarray, "row label"], *, multi_label: bool = False
) -> Float[np.ndarray, "row label"]:
    """The logarithms of probabilities, with ``multi_label`` their log-odds. Each probability is at least ``LEAST``.

    Example: ``logits_of(np.array([[0.25, 0.75]]))``
    """
    if multi_label:
        return np.log(np.maximum(probabilities, LEAST)) - np.log(np.maximum(1 - probabilities, LEAST))
    return np.log(np.maximum(probabilities, LEAST))


def probability_faults(
    values: Float[np.ndarray, "row label"], *, multi_label: bool = False
) -> dict[str, Bool[np.ndarray, " row"]]:
    """The rows whose values are no probabilities, as a mask for each kind of fault."""
    outside = np.asarray(((values < 0) | (values > 1 + APART)).any(axis=1))
    other_sum = np.asarray(np.abs(values.sum(axis=1) - 1) > APART)
    return {"are outside 0 to 1": outside} | ({} if multi_label else {"do not sum to 1": other_sum})
