"""Watched words, such as the words of a known shortcut: their positions, and their share of a map."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from gradistill.auditing.word_maps import TokenizedText
from gradistill.data.raw_words import Texts
from gradistill.data.unspaced_scripts import CHARACTERS

_LETTER = rf"[^\W{CHARACTERS}]"


def watched_spans(texts: Texts, watched: Sequence[str]) -> list[list[tuple[int, int]]]:
    """The spans ``(start, end)`` of watched words in each text.

    Case is ignored letter by letter: "straße" does not match "STRASSE". An entry may be several words. In a script
    without spaces it matches anywhere.

    Example: ``watched_spans(("A New  York day",), ["new york"])`` returns ``[[(2, 11)]]``
    """
    if not watched:
        return [[] for _ in texts]
    return [[match.span() for match in _pattern(tuple(watched)).finditer(text)] for text in texts]


def watched_share(read: TokenizedText, scores: Float[np.ndarray, " token"], watched: Sequence[str]) -> float:
    """The share of the scores of a text's own tokens on watched words; NaN for a text without watched words.

    A token counts by the share of its characters that belong to watched words.
    """
    spans = watched_spans(read.texts, watched)
    hits = [
        0.0 if segment is None else _overlap(start, end, spans[segment])
        for (start, end), segment in zip(read.places.offsets, read.places.segments, strict=True)
    ]
    on_them = np.array(hits)[read.own]
    return float(scores @ on_them / (scores.sum() or 1.0)) if on_them.any() else float("nan")


def _overlap(start: int, end: int, spans: Sequence[tuple[int, int]]) -> float:
    """The share of a token's characters inside ``spans``."""
    inside = sum(max(0, min(end, to) - max(start, begin)) for begin, to in spans)
    return inside / max(end - start, 1)


def unseen_words(texts: Sequence[Texts], watched: Sequence[str]) -> list[str]:
    """The watched words that occur in none of the texts."""
    return [word for word in watched if not any(any(watched_spans(row, [word])) for row in texts)]


@cache
def _pattern(watched: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that matches any of the words, the longest first."""
    marks = _marks()
    return re.compile(
        "|".join(_word(word, marks) for word in sorted(watched, key=len, reverse=True)), re.IGNORECASE
    )


def _word(word: str, marks: str) -> str:
    """A pattern for a word that is not part of a longer one: not "isn" in "isn't", no letter without its mark. At a
    sign such as "!" a word may start or end anywhere."""
    before = rf"(?<!{_LETTER})(?<![{marks}])(?<!{_LETTER}['’])"
    after = rf"(?!['’]?{_LETTER})(?![{marks}])"
    parts = r"\s+".join(map(re.escape, word.split()))
    letter = re.compile(rf"{_LETTER}|[{marks}]")
    first, last = (bool(letter.match(edge)) for edge in (word.strip()[0], word.strip()[-1]))
    return before * first + re.sub("['’]", "['’]", parts) + after * last


@cache
def _marks() -> str:
    """All combining marks that belong to the letter before them, without variation selectors."""
    codes = (chr(code) for code in range(0x110000))
    return "".join(
        mark
        for mark in codes
        if unicodedata.category(mark) in ("Mn", "Mc")
        and not unicodedata.name(mark, "").startswith("VARIATION")
    )
