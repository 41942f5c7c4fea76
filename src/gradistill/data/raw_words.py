"""Words of the raw text, the same whatever tokenizer reads it: runs of characters that are no white space, and single
characters of scripts that write no spaces between words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from gradistill.data.unspaced_scripts import CHARACTER, CHARACTERS, MARKS, STACKERS

Texts = tuple[str, ...]
"""The text of one row, or its pair of texts."""
Kept = Bool[np.ndarray, "_ _"]
"""``(copy, word)``: for each copy of one row the words that stay; those of a pair are counted through."""

_WORD = re.compile(rf"[{CHARACTERS}](?:[{MARKS}]|(?<=[{STACKERS}])[{CHARACTERS}])*|[^\s{CHARACTERS}]+")
"""A character with its marks, as in Chinese or Thai; else all up to white space, or to such a character."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word.

    Example: ``word_spans("a fine 电影")`` gives ``[(0, 1), (2, 6), (7, 8), (8, 9)]``
    """
    return [match.span() for match in _WORD.finditer(text)]


def word_places(texts: Texts) -> list[tuple[int, int, int]]:
    """Text, start and end of each word of a row, those of both texts of a pair one after the other."""
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


def token_words(
    texts: Texts, offsets: Sequence[tuple[int, int]], segments: Sequence[int | None]
) -> Int[np.ndarray, " token"]:
    """The number of each token's word; −1 for special tokens and for tokens of white space.

    ``offsets`` are start and end of each token in the text of its segment. A token that spans several words counts
    to the first that it touches.
    """
    spans = [word_spans(text) for text in texts]
    first = np.cumsum([0, *map(len, spans)])
    starts = [np.array([start for start, _ in of_text], dtype=np.int64) for of_text in spans]
    ends = [np.array([end for _, end in of_text], dtype=np.int64) for of_text in spans]
    words = np.full(len(offsets), -1, dtype=np.int64)
    for token, ((start, end), segment) in enumerate(zip(offsets, segments, strict=True)):
        if segment is None or start == end:
            continue
        word = int(np.searchsorted(ends[segment], start, side="right"))
        if word < len(ends[segment]) and starts[segment][word] < end:
            words[token] = first[segment] + word
    return words


def mask_tokens(
    token_ids: Int[np.ndarray, " token"], words: Int[np.ndarray, " token"], kept: Kept, mask_token_id: int
) -> Int[np.ndarray, "copy token"]:
    """Token ids of every copy: all tokens of a word that does not stay are the mask token."""
    gone = (words >= 0) & ~kept[:, np.maximum(words, 0)] if kept.shape[1] else np.zeros((len(kept), 1), bool)
    return np.where(gone, mask_token_id, token_ids)


def _would_join(before: str, after: str) -> bool:
    """Whether two words that touch become one, as "good" and "film" do in the place of two Chinese characters."""
    touching = before[-1:], after[:1]
    return all(character.isalnum() and not CHARACTER.match(character) for character in touching)


def substitute_words(texts: Texts, kept: Kept, others: Sequence[Sequence[str]]) -> list[Texts]:
    """The texts of every copy of a row, with ``others[copy][word]`` in the place of each word that does not stay."""
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
