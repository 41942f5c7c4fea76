"""Batches of like length: every row once, within the budget, hardly any padding."""

from __future__ import annotations

import numpy as np
import pytest

from gradistill.data.batching import by_length


@pytest.mark.parametrize("tokens", [1, 64, 1000])
def test_every_row_comes_once_within_the_budget(tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 200).tolist()
    batches = by_length(lengths, tokens)
    assert sorted(place for batch in batches for place in batch) == list(range(200))
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(
        len(batch) == 1 or len(batch) * width <= tokens for batch, width in zip(batches, longest, strict=True)
    )


def test_hardly_anything_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000).tolist()
    padded = sum(len(batch) * lengths[batch[0]] for batch in by_length(lengths, 1024))
    assert padded < 1.05 * sum(lengths)


def test_rows_of_one_length_keep_their_order() -> None:
    assert by_length([5, 7, 5, 5], 10) == [[1], [0, 2], [3]]
    assert by_length([], 10) == []
