"""Rows that occur in two splits: a model should not be measured on rows that it was trained on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from gradistill.data.cell_checks import letters_of
from gradistill.data.raw_words import Texts
from gradistill.printing import printable

_NO_LETTERS = re.compile(r"[\W_]+", re.ASCII)
_AT_ONCE = 1000


def overlap(rows: Iterable[Texts], training: Iterable[Texts]) -> dict[str, Any]:
    """Count the ``rows`` that are in ``training`` too. Both are the texts of rows, with a pair as one tuple.

    ``exact`` counts the rows with the same texts. ``normalised`` counts those that are the same whatever the letter
    case, punctuation and blanks, the exact ones included. ``example`` has the numbers of one such row in both splits.
    The training rows are many, so none is kept in memory.
    """
    rows = list(rows)
    plain: dict[Texts, int | None] = dict.fromkeys(rows)
    loose: dict[Texts, int | None] = dict.fromkeys(map(_loosely, rows))
    for place, texts in enumerate(training):
        for known, wanted in ((plain, texts), (loose, _loosely(texts))):
            if wanted in known and known[wanted] is None:
                known[wanted] = place
    exact = [plain[texts] for texts in rows]
    matches = [
        loose[_loosely(texts)] if place is None else place for texts, place in zip(rows, exact, strict=True)
    ]
    examples = ({"row": row, "training_row": place} for row, place in enumerate(matches) if place is not None)
    return {
        "rows": len(rows),
        "exact": len(rows) - exact.count(None),
        "normalised": len(rows) - matches.count(None),
        "example": next(examples, None),
    }


def overlap_line(
    found: Mapping[str, Any] | None, split: str, rows: Dataset, columns: Sequence[str]
) -> str | None:
    """The message about an overlap; None if there is none."""
    if not found or not found["normalised"]:
        return None
    shown = shown_texts(rows[found["example"]["row"]], columns)
    return (
        f"overlap: {found['normalised']} of {found['rows']} {printable(split)} rows are training rows too "
        f"({found['exact']} of them letter for letter), such as '{shown}'. Figures on them are too good."
    )


def shown_texts(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The beginning of a row's texts, as messages show it."""
    text = " | ".join(as_text(row[name]) for name in columns)
    return printable(text if len(text) <= 60 else text[:59] + "…")


def texts_of(rows: Dataset, columns: Sequence[str]) -> Iterator[Texts]:
    """The texts of each row. Lists of words are joined by blanks."""
    for start in range(0, len(rows), _AT_ONCE):
        piece = rows[start : start + _AT_ONCE]
        yield from zip(*(map(as_text, piece[name]) for name in columns), strict=True)


def as_text(cell: object) -> str:
    """A cell as one text. A list of words is joined by blanks."""
    return " ".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell)


def normalised(text: str) -> str:
    """The letters and digits of a text in one case, with one blank between words. A text without any is unchanged."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        return _NO_LETTERS.sub(" ", folded).strip() or text
    return " ".join(letters_of(folded).split()) or text


def _loosely(texts: Texts) -> Texts:
    return tuple(map(normalised, texts))
