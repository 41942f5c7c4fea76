"""Rows that stand in two splits: what a model is measured on, it should not have been trained on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from gradistill.printing import printable

_NO_LETTERS = re.compile(r"[\W_]+")


def overlap(rows: Mapping[str, Sequence[str]], training: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How many of ``rows`` are rows of ``training`` too; both hold columns of texts, the two of a pair together.

    ``exact`` counts the rows whose texts are the same, ``normalised`` those that are the same but for letter case,
    punctuation and blanks, the exact ones included. ``example`` has the places of one in the two splits.
    """
    plain: dict[tuple[str, ...], int] = {}
    loose: dict[tuple[str, ...], int] = {}
    for place, texts in enumerate(zip(*training.values(), strict=True)):
        plain.setdefault(texts, place)
        loose.setdefault(tuple(map(normalised, texts)), place)
    exact = alike = count = 0
    example = None
    for place, texts in enumerate(zip(*(rows[name] for name in training), strict=True)):
        count += 1
        found = plain.get(texts)
        exact += found is not None
        found = loose.get(tuple(map(normalised, texts))) if found is None else found
        alike += found is not None
        example = example or ((place, found) if found is not None else None)
    return {
        "rows": count,
        "exact": exact,
        "normalised": alike,
        "example": None if example is None else {"row": example[0], "training_row": example[1]},
    }


def overlap_line(
    found: Mapping[str, Any] | None, split: str, rows: Dataset, columns: Sequence[str]
) -> str | None:
    """What people read of an overlap; None where there is none."""
    if not found or not found["normalised"]:
        return None
    row = rows[found["example"]["row"]]
    text = " | ".join(as_text(row[name]) for name in columns)
    shown = printable(text if len(text) <= 60 else text[:59] + "…")
    return (
        f"overlap: {found['normalised']} of {found['rows']} {printable(split)} rows are training rows too "
        f"({found['exact']} of them letter for letter), such as '{shown}'. Figures on them flatter a model."
    )


def texts_of(rows: Dataset, columns: Sequence[str]) -> dict[str, Sequence[str]]:
    """The columns of texts; words of a list with blanks between."""
    return {name: [as_text(cell) for cell in rows[name][:]] for name in columns}


def as_text(cell: object) -> str:
    """A cell as one text: the words of a list with blanks between."""
    return " ".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell)


def normalised(text: str) -> str:
    """The letters and digits of a text in one case, with one blank between words; a text without any as it is."""
    return _NO_LETTERS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() or text
