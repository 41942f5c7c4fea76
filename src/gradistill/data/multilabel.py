"""Several labels a row: lists of names, vectors or columns of flags, or text with a separator."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gradistill.data.cell_checks import (
    TRUTH_VALUES,
    UNKNOWN_LABEL,
    is_hidden,
    is_missing,
    known_list,
    number,
    shown,
)
from gradistill.data.table import Table
from gradistill.data.tasks import Task, label_key
from gradistill.errors import DataError, Problem

_OPENING = {"[": "]", "(": ")", "{": "}"}
_ARRAY = re.compile(r"\[\s*-?[\d.]+(?:\s+-?[\d.]+)*\s*\]")
"""How numpy writes a vector: "[1 1 0]"."""
_FLAGS = re.compile(r"[01](?:\s*[\s,;|]\s*[01])+")
"""A vector of zeros and ones without brackets: "1 0 1"."""
_SEPARATORS = ("|", ";", ",", "/", "+")
_TRUTH = {"0.0": 0.0, "1.0": 1.0} | {
    word: float(place) for pair in TRUTH_VALUES for place, word in enumerate(pair)
}
MERGED = ","
"""Joins the names of several columns of flags to the name of their merged column."""

Cells = Sequence[Any]
"""The cells of a label column: a tuple for a list, None for a missing cell, or else the cell itself."""


@dataclass(frozen=True)
class ListForm:
    """How a column writes lists of labels.

    ``bare``: as vectors without brackets ("1 0 1"). ``flags``: as a 0 or 1 for each label, not by names or numbers.
    """

    bare: bool = False
    flags: bool = False


@dataclass(frozen=True)
class Parts:
    """The cells of a label column, split into labels, and the form in which they were written."""

    cells: Cells
    form: ListForm


def with_flag_columns(table: Table, names: Sequence[str]) -> Table:
    """The table with one column of vectors in place of several columns of flags. The labels have the columns' names.

    A row whose flags are all missing has no label. If all of the columns are missing, the table stays as it is; if some
    are, each is a problem.
    """
    present = [name for name in names if name in table.columns]
    if not present:
        return table
    lacking = [
        Problem(table.file, "the column of flags is missing", column=n) for n in names if n not in present
    ]
    rows = zip(*(table.columns[name] for name in present), strict=True)
    cells = [None if all(map(is_hidden, row)) else tuple(row) for row in rows]
    merged = MERGED.join(names)
    columns = {name: values for name, values in table.columns.items() if name not in names}
    return replace(
        table,
        columns=columns | ({} if lacking else {merged: cells}),
        problems=(*table.problems, *lacking),
        class_names={**table.class_names, merged: tuple(names)},
    )


def several_labels(
    table: Table, column: str, separator: str | None = None, form: ListForm | None = None
) -> Parts | None:
    """The cells of a label column, split into labels; None if there is one label a row.

    Lists are always split, also vectors and lists written as text. Other text is split only at a ``separator``; a blank
    text then has no label. Other cells stay as they are. Without a ``form``, the form of most cells is used. A few
    cells do not show it: "1 0 1" may be a name, and ``[0, 1]`` two flags or two numbers.

    Raises DataError for labels that are mappings or of a type that is not read.
    """
    values = table.columns.get(column, ())
    _refuse_unread(table, column)
    if separator is not None:
        return Parts(_separated(table, column, separator), ListForm())
    bare = form.bare or form.flags if form else _are_vectors(values)
    cells = [_parts(value, bare=bare and _is_vector(value)) for value in values]
    if not any(isinstance(cell, tuple) for cell in cells):
        return None
    return Parts(cells, form or ListForm(bare, bool(_columns_of_flags(table, column)) or _are_flags(cells)))


def _are_vectors(values: Cells) -> bool:
    """Whether most cells are vectors without brackets. The other cells are then faults of their rows."""
    present = [value for value in values if not is_missing(value)]
    vectors = sum(map(_is_vector, present))
    return vectors > 1 and 2 * vectors > len(present)


def _columns_of_flags(table: Table, column: str) -> tuple[str, ...]:
    """The columns that ``with_flag_columns`` merged into this one; empty for any other column."""
    names = table.class_names.get(column, ())
    return names if MERGED.join(names) == column else ()


def _refuse_unread(table: Table, column: str) -> None:
    for line, value in zip(table.lines, table.columns.get(column, ()), strict=False):
        kind = "a mapping" if isinstance(literal(value), Mapping) else None
        kind = f"of the type {value}" if isinstance(value, pa.DataType) else kind
        if kind:
            raise DataError(
                f"{table.file}, row {line}, column {column!r}: the label is {kind}: {shown(value)}.",
                expected="one label a row (a word, a number, a score), or a list of labels",
                remedy="write the labels as a list; another column can be named with --label-column (label_column= "
                "in Python), a field of a mapping with dots",
            )


def refuse_idle_separator(table: Table, column: str, separator: str) -> None:
    """Raise DataError if no label has the ``separator``, in the rows that determine the names of the labels.

    In other rows, such as a few for validation, each may have one label.
    """
    texts = [value for value in table.as_written(column) if isinstance(value, str)]
    if texts and not any(separator in text for text in texts):
        raise DataError(
            f"{table.file}, column {column!r}: no label has the separator {separator!r}.",
            expected=f"labels such as {f'{texts[0].strip()}{separator}…'!r}",
            remedy="correct --label-separator, or leave it out where a row has one label",
        )


def _separated(table: Table, column: str, separator: str) -> Cells:
    values = table.as_written(column)  # with commas, "0,2" is two labels and no number
    # In a typed table a missing cell is None, and a blank text is a row without any label.
    return [
        tuple(part.strip() for part in value.split(separator) if part.strip())
        if isinstance(value, str)
        else _parts(value, bare=False)
        for value in values
    ]


def _is_vector(value: Any) -> bool:
    """Whether a cell is zeros and ones without brackets."""
    return isinstance(value, str) and _FLAGS.fullmatch(value.strip()) is not None


def _parts(value: Any, *, bare: bool) -> Any:
    """A list as a tuple, a missing value as None, anything else unchanged."""
    if is_missing(value):
        return None
    if bare:
        return tuple(int(digit) for digit in re.findall(r"[01]", value))
    parsed = literal(value)
    if isinstance(parsed, list | tuple):
        return tuple(parsed)
    return tuple(sorted(parsed, key=str)) if isinstance(parsed, set | frozenset) else value


def literal(value: Any) -> Any:
    """The list or mapping that a text is written as; anything else unchanged, as "(spam)" and "{spam}".

    Example: ``literal("['a', 'b']")``
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not (text[:1] in _OPENING and text[-1:] == _OPENING[text[0]]):
        return value
    try:
        parsed = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [number(part) for part in text[1:-1].split()] if _ARRAY.fullmatch(text) else value
    return parsed if isinstance(parsed, list | tuple | set | dict) else value


def _are_flags(cells: Cells) -> bool:
    """Whether most cells are vectors of zeros and ones, all of one length. Lists of names or ids have no part twice."""
    lists = [cell for cell in cells if isinstance(cell, tuple)]
    width, count = Counter(map(len, lists)).most_common(1)[0]
    vectors = [cell for cell in lists if len(cell) == width and all(_flag(part) is not None for part in cell)]
    if width < 2 or 2 * len(vectors) <= len(lists) or any(isinstance(p, str) for v in vectors for p in v):
        return False
    return count == len(lists) or any(len(set(vector)) < width for vector in vectors)


def _flag(part: Any) -> float | None:
    """0 or 1; None for anything else."""
    return _TRUTH.get(str(part).strip().casefold())


def holds_flags(values: Sequence[Any]) -> bool:
    """Whether a column holds zeros and ones (or words for them), both of them, and nothing else.

    Example: ``holds_flags(["0", "1", 1])``
    """
    return {_flag(value) for value in values if not isinstance(value, list | dict)} == {0.0, 1.0}


def flat_labels(table: Table, column: str, parts: Parts) -> Table:
    """A table whose ``column`` has one cell for each label of each row, to collect the names of the labels."""
    pairs = [
        (line, part)
        for line, cell in zip(table.lines, parts.cells, strict=True)
        if isinstance(cell, tuple)
        for part in cell
    ]
    for line, part in pairs:
        value = number(part)
        if value is not None and not (math.isfinite(value) and value.is_integer()):
            raise DataError(
                f"{table.file}, row {line}, column {column!r}: {shown(part)} in a list of labels.",
                expected="names of labels, their numbers, or a 0 or 1 for each",
                remedy="turn probabilities into labels, by a threshold",
            )
    cells = [part for _, part in pairs]
    return replace(table, columns={column: cells}, lines=[line for line, _ in pairs], typed=table.typed)


def flag_names(table: Table, column: str, parts: Parts) -> tuple[str, ...]:
    """The names of a vector's labels: the declared ones, or else their numbers from 0."""
    if declared := table.class_names.get(column):
        return declared
    width = Counter(len(cell) for cell in parts.cells if isinstance(cell, tuple)).most_common(1)[0][0]
    return tuple(map(str, range(width)))


def label_flags(
    table: Table, column: str, task: Task, separator: str | None = None, form: ListForm | None = None
) -> tuple[list[list[float] | None], list[Problem]]:
    """For each row a 0 or 1 for each label of the task, or None for a row with a problem; and the problems.

    ``form`` is that of ``several_labels``. A label is written as ``class_ids`` reads it: by its name in any letter
    case, or its number. An empty list is valid: the row has no label. A missing cell is a problem.
    """
    names = task.labels or ()
    parts = several_labels(table, column, separator, form) or Parts(
        [_parts(v, bare=False) for v in table.columns[column]], ListForm()
    )
    ids = {label_key(name): i for i, name in enumerate(names)}
    if all(number(name) is None for name in names):
        ids |= {str(i): i for i in range(len(names))}
    of_columns = _columns_of_flags(table, column)
    order = [ids.get(label_key(name)) for name in of_columns] or list(range(len(names)))
    if sorted(k for k in order if k is not None) != list(range(len(names))) or None in order:
        what = f"the columns do not match the labels: {known_list(names)}"
        return [None] * len(parts.cells), [Problem(table.file, what, column=column)]
    row_flags: list[list[float] | None] = []
    problems = []
    for row, cell in enumerate(parts.cells):
        place = column
        if not isinstance(cell, tuple):
            what = "missing label" if is_missing(cell) else f"{shown(cell)} where a list of labels belongs"
        elif parts.form.flags:
            what, odd = _flags_fault(cell, names)
            place = of_columns[odd] if of_columns and odd is not None else column
        else:
            what = _names_fault(cell, ids, names)
        if what:
            problems.append(table.problem(row, what, place))
            row_flags.append(None)
        elif parts.form.flags:
            flags = dict(zip(order, map(_flag, cell), strict=True))
            row_flags.append([flags[k] or 0.0 for k in range(len(names))])
        else:
            present = {ids[label_key(part)] for part in cell}
            row_flags.append([float(k in present) for k in range(len(names))])
    return row_flags, problems


def _flags_fault(cell: tuple[Any, ...], names: Sequence[str]) -> tuple[str, int | None]:
    if len(cell) != len(names):
        return f"{len(cell)} flags where there are {len(names)} labels", None
    odd = next((k for k, part in enumerate(cell) if _flag(part) is None), None)
    if odd is None:
        return "", None
    part = cell[odd]
    return f"{'a missing flag' if is_missing(part) else shown(part)} where 0 or 1 belongs", odd


def _names_fault(cell: tuple[Any, ...], ids: Mapping[str, int], names: Sequence[str]) -> str:
    keys = [None if is_missing(part) else label_key(part) for part in cell]
    for part, key in zip(cell, keys, strict=True):
        if key is None:
            return "a missing label in the list"
        if key not in ids:
            return f"{UNKNOWN_LABEL} {shown(part)}; known: {known_list(names)}"
    twice = next((part for place, part in enumerate(cell) if ids[str(keys[place])] in
                  {ids[str(key)] for key in keys[:place]}), None)  # fmt: skip
    return "" if twice is None else f"the label {shown(twice)} occurs twice"


def joined_labels(table: Table, column: str) -> tuple[str, str] | None:
    """A label that looks like several other labels joined by a separator, and that separator; None without one."""
    labels = {value.strip() for value in table.columns.get(column, ()) if isinstance(value, str)}
    for label in sorted(labels):
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(part in labels for part in parts):
                return label, separator
    return None
