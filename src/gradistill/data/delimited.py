"""CSV and TSV as columns of text: which delimiter a file has, how it quotes, where each record starts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from gradistill.data.table import Table, duplicates, no_rows
from gradistill.errors import Problem

Record = tuple[int, list[str]]
"""The line on which a record starts, and its fields."""

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}
_LOOKED_AT = 50
"""Records by which a delimiter is judged, where the header line leaves a choice."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?", re.ASCII)


def read_csv(file: str, text: str) -> Table:
    """Records separated by commas, semicolons or tabs, whichever the header line and the records agree on."""
    delimiter = _delimiter(text)
    table = _table(file, *_records(file, text, delimiter), delimiter)
    return _with_decimal_points(table) if delimiter == ";" else table


def read_tsv(file: str, text: str) -> Table:
    """Records separated by tabs. Quotation marks are part of a text unless the file quotes as CSV does.

    Many files with tabs do not quote at all, and a text may begin with a quotation mark. A file is read as
    quoted if its header line is, if it doubles quotation marks inside quoted cells throughout, or if more
    records are as wide as the header with quoting than without.
    """
    plain = _unquoted(text)
    quoted, problems = _records(file, text, "\t")
    better = not problems and _odd_ones(quoted) < _odd_ones(plain)
    quotes = better if _odd_ones(plain) else _quotes(plain)
    return _table(file, quoted, problems, "\t") if quotes else _table(file, plain, [], "\t")


def _odd_ones(records: Sequence[Record]) -> int:
    """Records that are not as wide as the header."""
    return sum(len(fields) != len(records[0][1]) for _, fields in records)


def _table(file: str, records: Sequence[Record], problems: list[Problem], delimiter: str) -> Table:
    if not records:
        return Table(file, problems=tuple(problems) or (Problem(file, "the file is empty"),))
    header = [name.strip() for name in records[0][1]]
    if twice := duplicates(header):
        what = f"the header names a column twice: {twice}"
        return Table(file, problems=(Problem(file, what, records[0][0]),))
    rows, lines = [], []
    for line, record in records[1:]:
        if len(record) == len(header):
            rows.append(record)
            lines.append(line)
            continue
        what = (
            f"{len(record)} fields where the header has {len(header)}; quote a text that holds a "
            f"{_NAMES[delimiter]}"
        )
        problems.append(Problem(file, what, line))
    problems += no_rows(file, rows, problems)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Table(file, columns, lines, tuple(problems), typed=False)


def _records(file: str, text: str, delimiter: str) -> tuple[list[Record], list[Problem]]:
    """Every record with the line on which it starts. A quoting error ends the file: the rest is a guess."""
    records: list[Record] = []
    with _fields_up_to(len(text)):
        try:
            for record in _read(text, delimiter):
                records.append(record)
        except _QuotingError as error:
            what = f"quotation marks do not match ({error}); double a quotation mark inside a quoted text"
            return records, [Problem(file, what, error.line)]
    return records, []


class _QuotingError(ValueError):
    def __init__(self, error: csv.Error, line: int) -> None:
        super().__init__(str(error))
        self.line = line


def _read(text: str, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise _QuotingError(error, line) from None
        if record is None:
            return
        if record:
            yield line, record


@contextmanager
def _fields_up_to(size: int) -> Iterator[None]:
    """Allow fields of ``size`` characters: csv's own limit is one number for the whole process."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """Of those that divide the header line, the one by which most of the first records are as wide as it."""
    best, most = ",", 0.0
    for delimiter in _NAMES:
        widths = _first_widths(text, delimiter)
        if not widths or widths[0] < 2:
            continue
        share = widths.count(widths[0]) / len(widths)
        if share > most:
            best, most = delimiter, share
    return best


def _first_widths(text: str, delimiter: str) -> list[int]:
    widths = []
    with _fields_up_to(len(text)):
        try:
            for _, record in islice(_read(text, delimiter), _LOOKED_AT):
                widths.append(len(record))
        except _QuotingError:
            widths[1:] = widths[1:] or [0]  # a file of another delimiter that only looks divided
    return widths


def _with_decimal_points(table: Table) -> Table:
    """Numbers as 3,5 in a whole column become 3.5: files with semicolons come from places that write so."""
    columns = {
        name: [cell.replace(",", ".") for cell in cells] if _are_decimal_commas(cells) else cells
        for name, cells in table.columns.items()
    }
    return Table(table.file, columns, table.lines, table.problems, typed=False)


def _are_decimal_commas(cells: Sequence[str]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip()]
    return any("," in cell for cell in filled) and all(map(_DECIMAL_COMMA.fullmatch, filled))


def _unquoted(text: str) -> list[Record]:
    lines = re.split(r"\r\n|\n|\r", text)
    return [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]


def _quotes(records: Sequence[Record]) -> bool:
    """Whether cells that begin with a quotation mark are quoted, in a file whose lines are all equally wide."""
    if not records:
        return False
    if all(_is_quoted(name) for name in records[0][1]):
        return True
    cells = [cell for _, fields in records for cell in fields if cell.startswith('"')]
    return all(map(_is_quoted, cells)) and any('""' in cell[1:-1] for cell in cells)


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
