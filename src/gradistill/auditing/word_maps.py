"""Tokenized rows whose token scores can be summed over words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerBase

from gradistill.data import Task
from gradistill.data.raw_words import count_words, row_texts, token_word_ranges, unit_starts
from gradistill.data.tokenization import TokenPlaces, token_places
from gradistill.data.word_scores import WordScore, words_from_pieces


@dataclass(frozen=True)
class TokenizedText:
    """One row: its texts, the positions of its tokens in them, and a mask of its ``own`` tokens (not special)."""

    texts: tuple[str, ...]
    places: TokenPlaces
    own: np.ndarray

    def words(self, scores: np.ndarray) -> list[WordScore]:
        """The words with their shares of the sum of the own tokens' scores; 0 if all scores are 0."""
        every = np.zeros(len(self.own))
        every[self.own] = scores
        total = float(scores.sum()) or 1.0
        words = words_from_pieces(
            self.texts if len(self.texts) == 2 else self.texts[0],
            self.places.offsets,
            (every / total).tolist(),
            (~self.own).tolist(),
            sequence_ids=self.places.segments if len(self.texts) == 2 else None,
        )
        return [replace(word, score=float(word.score)) for word in words]

    @cached_property
    def word_ranges(self) -> Int[np.ndarray, "token 2"]:
        """The first and the last word of the raw text that each token touches, −1 for none. Words of a text pair are
        counted through both texts."""
        return token_word_ranges(self.texts, self.places.offsets, self.places.segments)

    @property
    def word_numbers(self) -> Int[np.ndarray, " token"]:
        """The first word that each token touches, −1 for none."""
        return self.word_ranges[:, 0]

    def raw_words(self, scores: np.ndarray) -> Float[np.ndarray, " word"]:
        """The sum of the own tokens' scores for each word of the raw text; NaN for a word without tokens.

        The score of a token that covers several words is split equally among them.
        """
        ranges = self.word_ranges[self.own]
        sizes = np.where(ranges[:, 0] >= 0, ranges[:, 1] - ranges[:, 0] + 1, 0)
        tokens = np.repeat(np.arange(len(ranges)), sizes)
        words = ranges[tokens, 0] + np.arange(len(tokens)) - (np.cumsum(sizes) - sizes)[tokens]
        sums = np.full(count_words(self.texts), np.nan)
        sums[words] = 0
        np.add.at(sums, words, (scores / np.maximum(sizes, 1))[tokens])
        return sums

    def units(self, scores: np.ndarray, first: Int[np.ndarray, " unit"]) -> Float[np.ndarray, " unit"]:
        """The sums of ``raw_words`` over units that start at the words ``first`` (``unit_starts``). NaN for a unit that
        is not read whole."""
        return np.add.reduceat(self.raw_words(scores), first)


def shared_units(reads: Sequence[TokenizedText]) -> Int[np.ndarray, " unit"]:
    """The first word of each unit of one row that all tokenizations keep separate (``unit_starts``)."""
    return unit_starts(count_words(reads[0].texts), [read.word_ranges for read in reads])


def readings(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> list[TokenizedText]:
    places = token_places(rows, tokenizer, task, max_length=max_length)
    return [
        TokenizedText(text, place, np.array([segment is not None for segment in place.segments]))
        for text, place in zip(row_texts(rows, task), places, strict=True)
    ]
