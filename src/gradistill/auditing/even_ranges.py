"""Ranges of numbers with about as many examples each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Real


def even_ranges(
    values: Real[np.ndarray, " batch"], count: int
) -> list[tuple[float, float, Bool[np.ndarray, " batch"]]]:
    """Up to ``count`` ranges in their order: the lowest and highest bound of each, and which values lie in it.

    Bounds are quantiles. A value that several of them fall on, as 0 often is, becomes a range of its own: else one
    range would hold it and all that is next to it. A range ends before its upper bound, the last one with it.

    Example: ``[(low, high) for low, high, _ in even_ranges(np.arange(100.0), 4)]``
    """
    bounds, times = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)), return_counts=True)
    alone = set(bounds[times > 1].tolist())
    ranges = [(low, low, values == low) for low in alone]
    for low, high in pairwise(bounds.tolist()):
        above = values > low if low in alone else values >= low
        below = values <= high if high == bounds[-1] and high not in alone else values < high
        if (inside := above & below).any():
            ranges.append((float(values[inside].min()) if low in alone else low, high, inside))
    return sorted(ranges, key=lambda one: one[:2])
