"""A table: the content of one file or object, with the line of each row and the problems of reading it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradistill.data.cells import as_cells
from gradistill.errors import Problem

_LOOKED_AT = 20
"""Number of rows whose keys are listed, if a column holds objects."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length, the line of each row, and the problems of reading them.

    ``lines`` are lines of the file counted from 1 (CSV, TSV, JSONL) or record numbers from 1 (the others).
    ``typed`` is False for CSV and TSV, where every cell is text. ``class_names`` are the labels that a column
    declares. ``parts`` names the files of a split in several files, each with the number of its first row. ``commas``
    are the columns in which a number such as 3,5 was changed to 3.5 (``as_written`` changes it back). ``split_column``
    is the column by which a table of several splits was divided; it is removed. A table with problems holds the rows
    that could be read; it has no columns if there are none.
    """

    file: str
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    lines: Sequence[int] = ()
    problems: tuple[Problem, ...] = ()
    typed: bool = True
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: tuple[tuple[int, str], ...] = ()
    commas: frozenset[str] = frozenset()
    split_column: str | None = None

    def as_written(self, column: str) -> Sequence[Any]:
        """The cells of a column with the decimal commas of its file; empty if there is no such column."""
        cells = self.columns.get(column, ())
        if column not in self.commas:
            return cells
        return [cell.replace(".", ",") if isinstance(cell, str) else cell for cell in cells]

    def problem(self, row: int, what: str, column: str) -> Problem:
        """A fault of the row with this number (from 0), in its own file."""
        file = self.file
        if self.parts:
            file = self.parts[bisect_right(self.parts, row, key=lambda part: part[0]) - 1][1]
        return Problem(file, what, self.lines[row], column)

    def without(self, rows: Collection[int]) -> Table:
        """The table without the ``rows`` with these numbers (from 0). The others keep their lines."""
        if not rows:
            return self
        return self.only([row for row in range(len(self.lines)) if row not in rows])

    def only(self, kept: Sequence[int]) -> Table:
        """The rows with these numbers (from 0), in rising order. They keep their lines."""
        return replace(
            self,
            columns={name: as_cells(cells).take(kept) for name, cells in self.columns.items()},
            lines=[self.lines[row] for row in kept],
            parts=tuple((bisect_left(kept, first), file) for first, file in self.parts),
        )


def duplicates(names: Sequence[str]) -> str:
    """The names that occur more than once, quoted."""
    return ", ".join(repr(name) for name, count in Counter(names).items() if count > 1)


def no_rows(file: str, rows: Sequence[Any], problems: Sequence[Problem]) -> list[Problem]:
    return [] if rows or problems else [Problem(file, "there are no rows")]


def with_fields(table: Table, names: Sequence[str]) -> Table:
    """The table with a column for each dotted name (``body.text``) that leads into a column of objects.

    A column that has the whole name takes precedence. A name without such a field adds nothing.
    """
    added = {}
    for name in names:
        if name not in table.columns and (cells := _inside(table, name)) is not None:
            added[name] = cells
    return replace(table, columns={**table.columns, **added}) if added else table


def nested_names(table: Table) -> list[str]:
    """The dotted names that ``with_fields`` can read, as far as the first rows show them."""
    names: dict[str, None] = {}
    for name, cells in table.columns.items():
        for cell in cells[:_LOOKED_AT]:
            names |= dict.fromkeys(_paths(name, cell) if isinstance(cell, Mapping) else ())
    return list(names)


def _paths(name: str, cell: Any, depth: int = 4) -> list[str]:
    if not isinstance(cell, Mapping) or depth == 0:
        return [name]
    return [path for key, value in cell.items() for path in _paths(f"{name}.{key}", value, depth - 1)]


_NOTHING = object()


def _inside(table: Table, name: str) -> list[Any] | None:
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        root, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if root in table.columns:
            cells = [_field(cell, rest) for cell in table.columns[root]]
            if any(cell is not _NOTHING for cell in cells):
                return [None if cell is _NOTHING else cell for cell in cells]
    return None


def _field(cell: Any, path: str) -> Any:
    if not isinstance(cell, Mapping):
        return _NOTHING
    if path in cell:
        return cell[path]
    head, _, rest = path.partition(".")
    return _field(cell.get(head), rest) if rest else _NOTHING
