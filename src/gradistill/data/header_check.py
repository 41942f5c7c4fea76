"""Whether the first record of a CSV or TSV file is its header, and not a title above the header or a row."""

from __future__ import annotations

from collections.abc import Sequence

from gradistill.data.cell_checks import all_numbers, number, shown
from gradistill.data.column_names import names_labels, names_texts
from gradistill.errors import Problem

_WORDS = 5
"""A column name with at least this many words is probably a text."""


def header_fault(file: str, records: Sequence[Sequence[str]]) -> Problem | None:
    """The problem of a file whose first record is a title or a row; None if it is a header.

    ``records`` are the first ones of the file. A title fills one cell of the first record, and most rows below it fill
    several. There are more than two columns, or the next record has a usual column name. The cells of a row are values
    of their columns: at least one occurs twice below it, and the others are numbers above numbers, or texts above
    texts. A first record with a usual column name is a header.

    Example: ``header_fault("a.csv", [["Reviews of 2026", "", ""], ["text", "label", "n"], ["fine", "yes", "3"]])``
    """
    if len(records) < 2:
        return None
    names, *rows = [[cell.strip() for cell in record] for record in records]
    what = None
    if _is_title(names, rows):
        what = f"a title and no header: {shown(names[0])}; remove what is above the header"
    elif _is_row(names, rows):
        what = f"a row and no header: {shown(', '.join(names))}; add a line with names"
    return None if what is None else Problem(file, f"the first line is {what}", 1)


def reads_like_a_text(name: str) -> bool:
    """Whether the name of a column may be a text: several words that are no question.

    Example: ``reads_like_a_text("That was a terrible waste of time.")``
    """
    return len(name.split()) >= _WORDS and not name.rstrip().endswith("?")


def names_below_a_title(records: Sequence[Sequence[str]]) -> bool:
    """Whether the second record has a usual column name, and the records after it are as wide.

    Example: ``names_below_a_title([["Reviews of 2026"], ["text", "label"], ["fine", "yes"]])``
    """
    widths = {len(record) for record in records[1:]}
    return len(widths) == 1 and min(widths) > 1 and any(map(_is_known, records[1]))


def _is_known(name: str) -> bool:
    return names_texts(name) or names_labels(name)


def _is_title(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    if not names[0] or any(names[1:]) or _is_known(names[0]):
        return False
    wider = sum(sum(map(bool, row)) > 1 for row in rows)
    padded = len(names) > 2  # of two names one may be empty: a column without a name
    return 2 * wider > len(rows) and (padded or any(map(_is_known, rows[0])))


def _is_row(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    if len(names) < 2 or any(len(row) != len(names) for row in rows):
        return False
    if any(_is_known(name) or name.endswith("?") for name in names):
        return False
    columns = list(zip(*rows, strict=True))
    repeated = any(name and cells.count(name) > 1 for name, cells in zip(names, columns, strict=True))
    return repeated and all(map(_is_value, names, columns))


def _is_value(name: str, column: Sequence[str]) -> bool:
    """Whether a column's name may be one of its values."""
    if column.count(name) > 1 or (number(name) is not None and all_numbers(column)):
        return True
    lengths = sorted(len(cell.split()) for cell in column)
    return len(name.split()) >= max(_WORDS, lengths[len(lengths) // 10])
