"""Draw a sample of the rows of a split."""

from __future__ import annotations

from datasets import Dataset

from gradistill.io import digest

WORD_POOL_ROWS = 1000
"""The number of rows whose words replace others. It keeps memory small, whatever number of rows is compared."""


def drawn_rows(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """At most ``count`` rows, in their order; all for None. Seed and row number give each row a rank, so a smaller draw
    is part of a larger one."""
    if count is None or count >= len(rows):
        return rows
    ranks = [digest([seed, index]) for index in rows["index"][:]]
    return rows.select(sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:count]))
