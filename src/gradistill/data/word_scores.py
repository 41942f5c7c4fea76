"""From token scores to word scores.

People read words; tokenizers cut them into pieces at places that mean nothing to a reader. The score of a word is
the sum over its pieces, so the words of a text sum to what its tokens sum to.

``BatchEncoding.word_ids()`` gives the units of a tokenizer's pre-tokenizer, which differ from family to family: BERT's
cuts "isn't" into three, a byte-level one into "isn" and "'t", and SentencePiece keeps "good,ok" whole. Here the raw
text decides where the offsets of two pieces touch, whatever the tokenizer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from gradistill.data.unspaced_scripts import CHARACTER
from gradistill.errors import GradistillError
from gradistill.printing import JOINERS

APOSTROPHES = "'\u2019"


@dataclass(frozen=True)
class WordScore:
    """One word: the slice ``text[start:end]`` of segment number ``segment``, unchanged, and its summed score.

    ``text`` may hold any characters: pass it through ``printable`` or escape it before you show it.
    """

    text: str
    start: int
    end: int
    score: float
    segment: int = 0


@dataclass
class _Span:
    start: int
    end: int
    score: float


def words_from_pieces(
    text: str | Sequence[str],
    offsets: Sequence[Sequence[int]],
    scores: Sequence[float],
    special: Sequence[int] | Sequence[bool],
    *,
    sequence_ids: Sequence[int | None] | None = None,
) -> list[WordScore]:
    """Words of one text, or of the segments of a pair, in reading order.

    ``offsets`` are the tokenizer's character offsets, one ``(start, end)`` per token into that token's segment;
    ``sequence_ids`` holds the segment of each (needed for a pair), ``None`` for a token of none. Special tokens are
    left out. Pieces are glued where their offsets overlap, or touch between two word characters (letters, digits,
    marks, ``_``), save in scripts that write no spaces. Whitespace at the ends of a piece is not part of the word
    (byte-level tokenizers write it first); a piece of nothing else adds its score to the word after it.
    Raises ``GradistillError`` if lengths or offsets do not fit the text, or scores are NaN or infinite.
    """
    texts = (text,) if isinstance(text, str) else tuple(text)
    ids = [0] * len(offsets) if sequence_ids is None and len(texts) == 1 else sequence_ids
    _check_lengths(len(offsets), scores=scores, special=special, sequence_ids=ids)
    assert ids is not None  # _check_lengths refuses it
    words: list[WordScore] = []
    for segment, part in enumerate(texts):
        pieces = [
            (_checked_offset(part, place), _finite(score, index))
            for index, (place, score) in enumerate(zip(offsets, scores, strict=True))
            if ids[index] == segment and not special[index]
        ]
        for span in _glued(part, pieces):
            words.append(WordScore(part[span.start : span.end], span.start, span.end, span.score, segment))
    return words


def _glued(text: str, pieces: Sequence[tuple[tuple[int, int], float]]) -> list[_Span]:
    spans: list[_Span] = []
    waiting = 0.0  # sum of the scores of whitespace pieces since the last word
    for (start, end), score in pieces:
        start, end = _without_blanks(text, start, end)
        if start == end:
            waiting += score
        elif spans and _one_word(text, spans[-1], start):
            spans[-1].start = min(spans[-1].start, start)
            spans[-1].end = max(spans[-1].end, end)
            spans[-1].score += score + waiting
            waiting = 0.0
        else:
            spans.append(_Span(start, end, score + waiting))
            waiting = 0.0
    if spans:
        spans[-1].score += waiting
    return spans


def _one_word(text: str, word: _Span, start: int) -> bool:
    """Whether a piece that begins at ``start`` continues the word before it."""
    if start != word.end:
        return start < word.end
    left, right = text[start - 1], text[start]
    if _inner_apostrophe(text, start) or _inner_apostrophe(text, start - 1):
        return True
    if left in JOINERS or right in JOINERS or unicodedata.category(right).startswith("M"):
        return True
    return all(_is_word(c) and not CHARACTER.match(c) for c in (left, right))


def _inner_apostrophe(text: str, at: int) -> bool:
    """Whether an apostrophe is between two letters, as in ``isn't``: one word, but three pieces to most tokenizers."""
    around = text[at - 1 : at] + text[at + 1 : at + 2] if at else ""
    return text[at] in APOSTROPHES and len(around) == 2 and around.isalpha()


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _is_word(c: str) -> bool:
    return c == "_" or c.isalnum() or unicodedata.category(c).startswith("M")


def _check_lengths(tokens: int, **columns: Sequence[object] | None) -> None:
    for name, column in columns.items():
        if column is None:
            raise GradistillError(
                "A pair of texts has no sequence ids.",
                expected="the segment number of every token",
                remedy="pass sequence_ids=encoding.sequence_ids(row)",
            )
        if len(column) != tokens:
            raise GradistillError(
                f"{name} has {len(column)} entries for {tokens} tokens.", expected="one entry per token"
            )


def _checked_offset(text: str, place: Sequence[int]) -> tuple[int, int]:
    start, end = (int(bound) for bound in place)
    if not 0 <= start <= end <= len(text):
        raise GradistillError(
            f"A token has the offset ({start}, {end}) in a text of {len(text)} characters.",
            expected="0 <= start <= end <= length",
            remedy="pass the very text that was tokenised, and the segment of every token",
        )
    return start, end


def _finite(score: float, token: int) -> float:
    if not isfinite(score):
        raise GradistillError(f"The score of token {token} is {score}.", expected="finite scores")
    return float(score)
