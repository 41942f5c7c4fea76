"""Copies of texts with words replaced or masked. A coalition is the random set of words that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from gradistill.data.raw_words import Kept, Texts, substitute_words

COARSE = (0.1, 0.9)
"""Range of the share of words that stay: half of them on average."""

FINE = (0.5, 0.95)
"""Range of the share of words that stay where 5 to 50 % are taken away."""

COPIES = 16
"""Number of coalitions of each text."""


class Copy(NamedTuple):
    """One text, or pair of texts, for a model to predict. If ``kept`` is given, words outside it are masked."""

    texts: Texts
    kept: Bool[np.ndarray, " word"] | None = None


MASK_TEXT = "[MASK]"
"""Replaces a masked word in the text, for predictors without a mask token."""


def as_texts(copy: Copy) -> Texts:
    """The texts of a copy, with ``MASK_TEXT`` in place of each masked word."""
    if copy.kept is None:
        return copy.texts
    masks = [[MASK_TEXT] * len(copy.kept)]
    return substitute_words(copy.texts, copy.kept[None], masks)[0]


def draw_coalitions(
    words: Sequence[int],
    *,
    copies: int = COPIES,
    keep: tuple[float, float] = COARSE,
    seed: int = 0,
    rows: Sequence[int] | None = None,
) -> list[Kept]:
    """Draw the coalitions of every row: each copy draws a rate from ``keep``, and each word stays with that rate.

    They depend on ``seed``, the row's number (its index unless ``rows`` gives it) and its count of ``words`` only. So
    all models get the same ones, and other rows do not matter. A copy that would keep every word loses one at random:
    an unchanged text has no effect.

    Example::

        kept = draw_coalitions([count_words(row) for row in texts], keep=FINE)
    """
    numbers = range(len(words)) if rows is None else rows
    return [
        coalitions_by_rate(count, copies, keep, np.random.default_rng([seed, number]))
        for count, number in zip(words, numbers, strict=True)
    ]


def coalitions_by_rate(
    words: int, copies: int, keep: tuple[float, float], generator: np.random.Generator
) -> Kept:
    """The words that stay in each copy of one row: see ``draw_coalitions``."""
    rates = generator.uniform(*keep, size=(copies, 1))
    kept = generator.random((copies, words)) < rates
    lost = generator.integers(max(words, 1), size=copies)
    whole = np.flatnonzero(kept.all(axis=1)) if words else np.empty(0, dtype=np.int64)
    kept[whole, lost[whole]] = False
    return kept


def masked_copies(texts: Texts, kept: Kept) -> list[Copy]:
    """The unchanged text, then its copies with words masked."""
    return [Copy(texts), *(Copy(texts, of_copy) for of_copy in kept)]


def substituted_copies(texts: Texts, kept: Kept, others: Sequence[Sequence[str]]) -> list[Copy]:
    """The unchanged text, then its copies with ``others[copy][word]`` in place of each word that is not kept."""
    return [Copy(texts), *(Copy(changed) for changed in substitute_words(texts, kept, others))]


def draw_words(pool: Sequence[str], shape: tuple[int, int], seed: int, row: int) -> list[list[str]]:
    """Random words of ``pool`` for every ``(copy, word)`` of a row; they depend on ``seed`` and the row's number."""
    generator = np.random.default_rng([seed, row, 1])  # another stream than the coalitions
    drawn = generator.integers(len(pool), size=shape).tolist()
    return [[pool[int(number)] for number in of_copy] for of_copy in drawn]
