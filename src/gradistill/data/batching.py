"""Encoded rows in batches of like length."""

from __future__ import annotations

from collections.abc import Sequence


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The places of all rows, in batches of like length that hold at most ``tokens`` once padded (one row at least).

    Longest first: what does not fit in memory fails at once. Next to nothing is padded, and short rows come many at
    a time, so every batch costs about the same.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches: list[list[int]] = []
    for place in order:
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(place)
    return batches
