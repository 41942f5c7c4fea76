"""Which rows of a split are looked at where not all are."""

from __future__ import annotations

from datasets import Dataset

from gradistill.io import digest

WORD_POOL_ROWS = 1000
"""Rows whose words stand in for others: so many keep memory small, and do not depend on how many rows are compared."""


def drawn_rows(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """So many rows, in their order. Whether one is drawn depends on its number and the seed, and how many others are
    before it: of a larger draw every smaller one is a part, whichever rows stood beside it."""
    if count is None or count >= len(rows):
        return rows
    lots = [digest([seed, index]) for index in rows["index"][:]]
    return rows.select(sorted(sorted(range(len(rows)), key=lots.__getitem__)[:count]))
