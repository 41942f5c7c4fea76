"""Rows as people read them: token scores as shares of words."""

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
    """One row: its texts, the places of its tokens in them, and which of its tokens are its ``own`` (not special)."""

    texts: tuple[str, ...]
    places: TokenPlaces
    own: np.ndarray

    def words(self, scores: np.ndarray) -> list[WordScore]:
        """The words with their shares of the scores of the own tokens; 0 where these are all 0."""
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
        """The first and the last word of the raw text that each token touches, those of both texts counted through; −1
        for none."""
        return token_word_ranges(self.texts, self.places.offsets, self.places.segments)

    @property
    def word_numbers(self) -> Int[np.ndarray, " token"]:
        """The first of them."""
        return self.word_ranges[:, 0]

    def raw_words(self, scores: np.ndarray) -> Float[np.ndarray, " word"]:
        """The sum of the scores of the own tokens of each word of the raw text; NaN for a word that has none.

        A token that holds several words counts in equal parts to each.
        """
        ranges = self.word_ranges[self.own]
        sizes = np.where(ranges[:, 0] >= 0, ranges[:, 1] - ranges[:, 0] + 1, 0)
        tokens = np.repeat(np.arange(len(ranges)), sizes)
        words = ranges[tokens, 0] + np.arange(len(tokens)) - (np.cumsum(sizes) - sizes)[tokens]
        found = np.full(count_words(self.texts), np.nan)
        found[words] = 0
        np.add.at(found, words, (scores / np.maximum(sizes, 1))[tokens])
        return found

    def units(self, scores: np.ndarray, first: Int[np.ndarray, " unit"]) -> Float[np.ndarray, " unit"]:
        """The sums of ``raw_words`` over units that begin at these words (``unit_starts``); NaN for one that is not
        read whole."""
        return np.add.reduceat(self.raw_words(scores), first)


def shared_units(reads: Sequence[TokenizedText]) -> Int[np.ndarray, " unit"]:
    """The first word of each unit of one text that all of these hold apart (``unit_starts``)."""
    return unit_starts(count_words(reads[0].texts), [read.word_ranges for read in reads])


def readings(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> list[TokenizedText]:
    places = token_places(rows, tokenizer, task, max_length=max_length)
    return [
        TokenizedText(text, place, np.array([segment is not None for segment in place.segments]))
        for text, place in zip(row_texts(rows, task), places, strict=True)
    ]
