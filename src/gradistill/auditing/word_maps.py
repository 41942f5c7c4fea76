"""Rows as people read them: token scores as shares of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from gradistill.data import Task
from gradistill.data.raw_words import count_words, token_words
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
    def word_numbers(self) -> np.ndarray:
        """The number of each token's word in the raw text, those of both texts counted through; −1 for none."""
        return token_words(self.texts, self.places.offsets, self.places.segments)

    def raw_words(self, scores: np.ndarray) -> np.ndarray:
        """The sum of the scores of the own tokens of each word of the raw text; NaN for a word that has none."""
        words = self.word_numbers[self.own]
        found = np.full(count_words(self.texts), np.nan)
        found[words[words >= 0]] = 0
        np.add.at(found, words[words >= 0], scores[words >= 0])
        return found

    def raw_shares(self, scores: np.ndarray) -> list[float | None]:
        """The words of the raw text with their shares of the scores; None for a word that has no token."""
        total = float(scores.sum()) or 1.0
        return [None if np.isnan(value) else float(value) / total for value in self.raw_words(scores)]


def row_texts(rows: Dataset, task: Task) -> list[tuple[str, ...]]:
    """The text of each row, or its pair."""
    return list(zip(*(rows[name][:] for name in task.text_columns), strict=True))


def readings(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> list[TokenizedText]:
    places = token_places(rows, tokenizer, task, max_length=max_length)
    return [
        TokenizedText(text, place, np.array([segment is not None for segment in place.segments]))
        for text, place in zip(row_texts(rows, task), places, strict=True)
    ]


def watched_share(words: Sequence[WordScore], watched: Sequence[str]) -> float:
    """The share that falls on watched words, letter case aside; NaN for a text without any."""
    wanted = {word.casefold() for word in watched}
    hits = [word.score for word in words if word.text.casefold() in wanted]
    return float(sum(hits)) if hits else float("nan")
