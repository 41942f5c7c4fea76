"""Checks of the texts and labels of one table, row by row; problems are collected."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradistill.data.json_rows import is_unicode
from gradistill.data.table import Table, nested_names
from gradistill.data.tasks import Task, label_key
from gradistill.errors import DataError, MissingColumn, Problem, nearest

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)", re.ASCII | re.IGNORECASE)
_LARGEST = float(np.finfo(np.float32).max)
UNKNOWN_LABEL = "unknown label"
TRUTH_VALUES = (
    ("0", "1"), ("false", "true"), ("falsch", "wahr"), ("faux", "vrai"), ("falso", "verdadero"), ("falso", "vero"),
)  # fmt: skip
"""How flags are written, no before yes; spreadsheets in other languages have their own words."""
NO_AND_YES = (
    ("no", "yes"),
    ("n", "y"),
    ("f", "t"),
    ("nein", "ja"),
    ("non", "oui"),
    ("no", "sí"),
    ("no", "si"),
)
"""What people write for no and for yes."""
_NOTHING = ("na", "n/a", "#n/a", "#na", "<na>", "nan", "null", "#null!")
NO_LABEL = " (no label?)"
"""Added to the fault of a cell that other tools write for a missing label."""
_HIDDEN = "missing label (-1 marks a label that is kept secret)"


def number(value: object) -> float | None:
    """The number that a label is written as, nan and inf included; None if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def all_numbers(values: Sequence[Any]) -> bool:
    """Whether a CSV column holds only numbers, at least two: a single one may be a text, as "1987"."""
    count = 0
    for value in values:
        if is_missing(value):
            continue
        count += 1
        if (parsed := number(value)) is None or not math.isfinite(parsed):
            return False
    return count > 1


def is_missing(value: object) -> bool:
    """Whether a label is missing: null, nan (how other tools write null), or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def stands_for_nothing(value: object) -> bool:
    """Whether a label is a text that other tools write for a missing one. It can be a label, as NA for Namibia."""
    return isinstance(value, str) and value.strip().casefold() in _NOTHING


def is_hidden(value: object) -> bool:
    """Whether a label is missing, or is -1, which the hub writes for the hidden labels of a test split."""
    return is_missing(value) or number(value) == -1


def is_no_label(labels: Sequence[str]) -> Callable[[object], bool]:
    """The check for a missing label, given the known ``labels``: -1 is a label if it is one of them.

    Example: ``is_no_label(("no", "yes"))(-1)`` returns True
    """
    return is_missing if "-1" in map(label_key, labels) else is_hidden


def letters_of(text: str, others: str = "") -> str:
    """A text with a blank for each character that is no letter, no digit, no mark on these, and not in ``others``.

    Vowels of Hindi and Thai are marks. Variation selectors and keycaps, which make a sign an emoji, are not.

    Example: ``letters_of("A+ & é!", "+")`` gives ``"A+   é "``
    """
    kept: list[str] = []
    for character in text:
        is_kept = character.isalnum() or character in others
        if not is_kept and kept and kept[-1] != " " and kept[-1] not in others:
            mark = unicodedata.category(character) in ("Mn", "Mc")
            is_kept = mark and not "\ufe00" <= character <= "\ufe0f"
        kept.append(character if is_kept else " ")
    return "".join(kept)


def shown(value: object) -> str:
    """A value as messages show it, shortened."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…")


def missing_columns(table: Table, needed: Sequence[str]) -> list[Problem]:
    """One problem for each column that the table lacks."""
    names = dict.fromkeys((*table.columns, *nested_names(table)))
    known = [name if len(name) <= 40 else name[:39] + "…" for name in names]
    return [
        MissingColumn(table.file, f"the column is missing; {nearest(name, known)}", column=name)
        for name in needed
        if name not in table.columns
    ]


def refuse_missing_columns(table: Table, named: Sequence[str]) -> None:
    """Raise DataError if the table lacks one of the ``named`` columns."""
    if problems := missing_columns(table, named):
        raise DataError(
            f"{table.file} lacks columns that were named.",
            problems=problems,
            remedy="name columns that it has",
        )


def text_problems(table: Table, column: str) -> list[Problem]:
    """The problems of a text column: cells that are missing, blank, or not text."""
    values = table.columns[column]
    typed_numbers = len(values) > 1 and all(number(v) is not None and not isinstance(v, str) for v in values)
    if typed_numbers or (not table.typed and all_numbers(values)):
        what = "numbers in every row where text belongs: probably the wrong column"
        return [Problem(table.file, what, column=column)]
    return [
        table.problem(row, fault, column) for row, value in enumerate(values) if (fault := text_fault(value))
    ]


def text_fault(value: object) -> str:
    """Why a cell is not a usable text; an empty string where it is one."""
    if value is None:
        return "the text is missing"
    if not isinstance(value, str):
        kind = "a number" if number(value) is not None else "a value that is not text"
        return f"{kind} ({shown(value)}) where text belongs"
    if not is_unicode(value):
        return "half of a surrogate pair (\\ud800 to \\udfff), which is no character"
    return "" if value.strip() else "the text is empty"


def class_ids(table: Table, column: str, task: Task) -> tuple[list[int | None], list[Problem]]:
    """The class id of each row; None where there is none, which is a problem unless the task skips it.

    A label is a class name in any letter case, or a class id. Where the names are numbers themselves, a
    number is a name: with classes "1" and "2" the label 1 is the first class.
    """
    names = task.labels or ()
    ids = {label_key(name): i for i, name in enumerate(names)}
    if all(number(name) is None for name in names):
        ids |= {str(i): i for i in range(len(names))}
    label_ids: list[int | None] = []
    problems = []
    for row, value in enumerate(table.columns[column]):
        key = label_key(value)
        label = ids.get(key)
        label_ids.append(label)
        if label is None and not (task.skip_unlabelled and key in ("-1", "-")):
            problems.append(table.problem(row, _label_fault(value, names), column))
    return label_ids, problems


def _label_fault(value: object, names: Sequence[str]) -> str:
    if is_missing(value):
        return "missing label"
    if label_key(value) == "-1":
        return f"{_HIDDEN}; known: {known_list(names)}"
    nothing = NO_LABEL if stands_for_nothing(value) else ""
    return f"{UNKNOWN_LABEL} {shown(value)}{nothing}; known: {known_list(names)}"


def known_list(names: Sequence[str]) -> str:
    """The known labels as a message lists them, at most the first twenty."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def scores(table: Table, column: str) -> tuple[list[float | None], list[Problem]]:
    """The score of each row; None, and a problem, where it is not a finite number."""
    values = table.columns[column]
    # A score of -1 is possible. A split with no other score is one whose scores the hub hides.
    hidden = len(values) > 1 and all(number(value) == -1 for value in values)
    numbers: list[float | None] = []
    problems = []
    for row, value in enumerate(values):
        fault = _HIDDEN if hidden else _score_fault(value)
        numbers.append(None if fault else number(value))
        if fault:
            problems.append(table.problem(row, fault, column))
    return numbers, problems


def _score_fault(value: object) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "missing label"
    score = number(value)
    nothing = NO_LABEL if stands_for_nothing(value) else ""
    if score is None:
        return f"{shown(value)} where a score (a number) belongs{nothing}"
    # Scores are stored as float32, so a number that overflows there counts as not finite.
    return "" if abs(score) <= _LARGEST else f"the score {shown(value)} is not a finite number{nothing}"
