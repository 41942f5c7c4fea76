"""Words of the raw text, the same for every tokenizer.

A word is a run of characters without white space, or one character of a script without spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Int

from gradistill.data.tasks import Task
from gradistill.data.unspaced_scripts import CHARACTER, CHARACTERS, MARKS, STACKERS

Texts = tuple[str, ...]
"""The text of one row, or its pair of texts."""
Kept = Bool[np.ndarray, "_ _"]
"""``(copy, word)``: which words of a row stay in each copy. The words of a pair are numbered through."""

_WORD = re.compile(rf"[{CHARACTERS}](?:[{MARKS}]|(?<=[{STACKERS}])[{CHARACTERS}])*|[^\s{CHARACTERS}]+")
"""A character with its marks, as in Chinese or Thai; else all characters up to white space or such a character."""


def row_texts(rows: Dataset, task: Task) -> list[tuple[str, ...]]:
    """The text of each row, or its pair."""
    return list(zip(*(rows[name][:] for name in task.text_columns), strict=True))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word.

    Example: ``word_spans("a fine 电影")`` gives ``[(0, 1), (2, 6), (7, 8), (8, 9)]``
    """
    return [match.span() for match in _WORD.finditer(text)]


def word_places(texts: Texts) -> list[tuple[int, int, int]]:
    """The text's number, start and end of each word of a row. For a pair, the words of the first text come first."""
    return [(segment, *span) for segment, text in enumerate(texts) for span in word_spans(text)]


def words_of(texts: Texts) -> list[str]:
    """The words of a row, in the order of ``word_places``."""
    return [texts[segment][start:end] for segment, start, end in word_places(texts)]


def count_words(texts: Texts) -> int:
    """The number of words of a row, of both texts of a pair."""
    return len(word_places(texts))


def word_pool(rows: Iterable[Texts]) -> list[str]:
    """All words of the data, as often as they occur: the words that replacements are drawn from."""
    return [word for row in rows for word in words_of(row)]


def token_word_ranges(
    texts: Texts, offsets: Sequence[tuple[int, int]], segments: Sequence[int | None]
) -> Int[np.ndarray, "token 2"]:
    """The numbers of the first and the last word that each token touches; −1 twice for special tokens and white space.

    ``offsets`` are start and end of each token in the text of its segment. A token holds several words where it has
    several characters of a script without spaces.

    Example: ``token_word_ranges(("电影 ok",), [(0, 2), (3, 5)], [0, 0])`` gives ``[[0, 1], [2, 2]]``
    """
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    owners = np.array([-1 if segment is None else segment for segment in segments])
    ranges = np.full(places.shape, -1, dtype=np.int64)
    words = 0
    for segment, text in enumerate(texts):
        starts, ends = np.array(word_spans(text), dtype=np.int64).reshape(-1, 2).T
        tokens = np.flatnonzero((owners == segment) & (places[:, 0] < places[:, 1]))
        first = np.searchsorted(ends, places[tokens, 0], side="right")
        last = np.searchsorted(starts, places[tokens, 1], side="left") - 1
        touching = first <= last
        ranges[tokens[touching]] = words + np.stack([first, last], axis=1)[touching]
        words += len(starts)
    return ranges


def unit_starts(words: int, ranges: Iterable[Int[np.ndarray, "_ 2"]]) -> Int[np.ndarray, " unit"]:
    """The first word of each unit of a text with ``words`` words that several tokenizers split differently.

    A unit is a word, or all words that share a token in any of the tokenizers, as in Japanese. ``ranges`` has the
    ``token_word_ranges`` of each tokenizer.

    Example: ``unit_starts(3, [np.array([[0, 1], [2, 2]]), np.array([[0, 0], [1, 1], [2, 2]])])`` gives ``[0, 2]``
    """
    first = np.ones(words, dtype=bool)
    for start, end in np.concatenate([*ranges]):
        first[start + 1 : end + 1] = False
    return np.flatnonzero(first)


def mask_tokens(
    token_ids: Int[np.ndarray, " token"], ranges: Int[np.ndarray, "token 2"], kept: Kept, mask_token_id: int
) -> Int[np.ndarray, "copy token"]:
    """Token ids of every copy, with the mask token for each token that touches a word that does not stay.

    ``ranges`` comes from ``token_word_ranges``.
    """
    lost_before = np.pad(np.cumsum(~kept, axis=1), ((0, 0), (1, 0)))
    touched = lost_before[:, ranges[:, 1] + 1] > lost_before[:, np.maximum(ranges[:, 0], 0)]
    return np.where(touched, mask_token_id, token_ids)


def _would_join(before: str, after: str) -> bool:
    """Whether two words without a space would become one, as "good" and "film" in place of two Chinese characters."""
    touching = before[-1:], after[:1]
    return all(character.isalnum() and not CHARACTER.match(character) for character in touching)


def substitute_words(texts: Texts, kept: Kept, others: Sequence[Sequence[str]]) -> list[Texts]:
    """The texts of every copy of a row, with ``others[copy][word]`` in place of each word that does not stay."""
    spans = [word_spans(text) for text in texts]
    copies = []
    for of_copy, words in zip(kept, others, strict=True):
        number, changed = 0, []
        for text, of_text in zip(texts, spans, strict=True):
            pieces, done = [""], 0
            for start, end in of_text:
                word = text[start:end] if of_copy[number] else words[number]
                between = text[done:start] or (" " if _would_join(pieces[-1], word) else "")
                pieces += [between, word]
                done, number = end, number + 1
            changed.append("".join([*pieces, text[done:]]))
        copies.append(tuple(changed))
    return copies
