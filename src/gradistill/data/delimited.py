"""CSV and TSV as columns of text: a file's delimiter and quoting, and the line on which each record starts."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice

from gradistill.data.cells import Cells, joined, numbers, packed, piecewise
from gradistill.data.header_check import header_fault, names_below_a_title
from gradistill.data.table import Table, duplicates, no_rows
from gradistill.errors import Problem

Record = tuple[int, list[str]]
"""The line on which a record starts, and its fields."""

Opened = Callable[[], Iterable[str]]
"""Returns the lines of a file with their line ends; every call starts at the beginning."""

_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}
_LOOKED_AT = 50
"""Number of first records that decide on the delimiter and on the header."""
_DECLARED = re.compile(r"\ufeff?sep=([,;\t])\s*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?", re.ASCII)
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


def read_csv(file: str, text: str) -> Table:
    """Read records separated by commas, semicolons or tabs, whichever fits the header line and the records."""
    opened = _of_text(text)
    with fields_up_to(len(text)):
        dialect = csv_dialect(opened)
        table = _whole(file, opened, dialect)
    return _with_decimal_points(table) if dialect.delimiter == ";" else table


def read_tsv(file: str, text: str) -> Table:
    """Read records separated by tabs. Quotation marks are part of a text unless the file quotes as CSV does.

    Many files with tabs do not quote at all, and a text may begin with a quotation mark. A file is read as
    quoted if its header line is, if it doubles quotation marks inside quoted cells throughout, or if more
    records are as wide as the header with quoting than without.
    """
    opened = _of_text(text)
    with fields_up_to(len(text)):
        return _whole(file, opened, tsv_dialect(opened))


@dataclass(frozen=True)
class Dialect:
    """The delimiter of the fields, whether quotation marks may enclose them, the line end, and whether there is a byte
    order mark. Excel does not read a file as UTF-8 without that mark."""

    delimiter: str
    quotes: bool = True
    line_end: str = "\n"
    byte_order_mark: bool = False


def csv_dialect(opened: Opened) -> Dialect:
    """The dialect of a CSV file.

    Its delimiter is the one that the first line declares, as Excel writes it (``sep=;``). Otherwise it is the one with
    which most of the first records are as wide as the header line.
    """
    if declared := _DECLARED.fullmatch(next(iter(opened()), "")):
        return Dialect(declared[1])
    best, most = ",", 0.0
    for delimiter in _NAMES:
        widths = _first_widths(opened, delimiter)
        if not widths or widths[0] < 2:
            continue
        share = widths.count(widths[0]) / len(widths)
        if share > most:
            best, most = delimiter, share
    return Dialect(best if most else _below_a_title(opened) or best)


def _below_a_title(opened: Opened) -> str | None:
    """The delimiter of the records if the first line seems to be a title without one; None otherwise."""
    for delimiter in _NAMES:
        with suppress(QuotingError):
            first = [record for _, record in islice(_quoted(opened, delimiter), _LOOKED_AT)]
            if len(first) > 1 and names_below_a_title(first):
                return delimiter
    return None


def tsv_dialect(opened: Opened) -> Dialect:
    """The dialect of a file with tabs: whether it quotes (``read_tsv``). The whole file is read."""
    odd = _odd_ones(_unquoted(opened))
    if not odd:
        return Dialect("\t", _quotes(_unquoted(opened)))
    try:
        return Dialect("\t", _odd_ones(_quoted(opened, "\t")) < odd)
    except QuotingError:
        return Dialect("\t", quotes=False)


def records(opened: Opened, dialect: Dialect, *, blank_rows: bool = False) -> Iterator[Record]:
    """Yield every record with the line on which it starts, the header first. Blank lines are left out.

    With ``blank_rows`` and one column a blank line is a row with an empty cell. At the end of the file blank lines and
    rows of empty cells are left out, as a cleared spreadsheet writes them. Raises QuotingError, because the records
    after it would be guesses.
    """
    every = _every_quoted(opened, dialect.delimiter) if dialect.quotes else _every_unquoted(opened)
    width, waiting = 0, list[Record]()
    for line, record in every:
        if not record:
            waiting += [(line, [""])] * (blank_rows and width == 1)
        elif width > 1 and not any(map(str.strip, record)):
            waiting.append((line, record))
        else:
            width = width or len(record)
            yield from waiting
            yield line, record
            waiting = []


def _quoted(opened: Opened, delimiter: str) -> Iterator[Record]:
    return records(opened, Dialect(delimiter))


def _unquoted(opened: Opened) -> Iterator[Record]:
    return records(opened, Dialect("\t", quotes=False))


def line_end(opened: Opened, dialect: Dialect) -> str:
    """The line end after the header. Line ends within quotes may be others."""
    read: list[str] = []

    def lines() -> Iterator[str]:
        for line in opened():
            read.append(line)
            yield line

    with suppress(QuotingError):
        next(records(lines, dialect), None)
    last = read[-1] if read else ""
    return next((end for end in ("\r\n", "\n", "\r") if last.endswith(end)), "\n")


def _of_text(text: str) -> Opened:
    """The lines of a text, without a copy of it: StringIO takes four bytes a character."""
    return lambda: (match[0] for match in _LINE.finditer(text))


def _whole(file: str, opened: Opened, dialect: Dialect) -> Table:
    if fault := first_line_fault(file, opened, dialect):
        return Table(file, problems=(fault,))
    problems: list[Problem] = []

    def readable() -> Iterator[Record]:
        try:
            yield from records(opened, dialect)
        except QuotingError as error:
            problems.append(error.problem(file))

    return records_table(file, readable(), problems, dialect)


def first_line_fault(file: str, opened: Opened, dialect: Dialect) -> Problem | None:
    """The problem of a file whose first line is no header, judged by the first records (``data.header_check``)."""
    try:
        return header_fault(file, [record for _, record in islice(records(opened, dialect), 1 + _LOOKED_AT)])
    except QuotingError:
        return None


def _odd_ones(found: Iterator[Record]) -> int:
    """The number of records that are not as wide as the header."""
    _, header = next(found, (0, []))
    return sum(len(fields) != len(header) for _, fields in found)


def records_table(file: str, found: Iterable[Record], problems: list[Problem], dialect: Dialect) -> Table:
    """Records as columns. The first record is the header; a record of another width is a problem.

    Reading ``found`` may add to ``problems`` as well.
    """
    found = iter(found)
    first, names = next(found, (0, None))
    if names is None:
        return Table(file, problems=tuple(problems) or (Problem(file, "the file is empty"),))
    names = [name.strip() for name in names]
    header, width = _named(names), len(names)
    if twice := duplicates(header):
        what = f"the header names a column twice: {twice}"
        return Table(file, problems=(Problem(file, what, first),))
    lines = array("q")

    def as_wide() -> Iterator[list[str]]:
        for line, record in found:
            if len(header) > 1 and record[0].strip() == names[0] and [c.strip() for c in record] == names:
                problems.append(
                    Problem(file, "the header once more, as where files were joined; remove this line", line)
                )
                continue
            if len(record) == width and not any(map(str.strip, record[len(header) :])):
                lines.append(line)
                yield record[: len(header)]
                continue
            what = (
                f"{len(record)} fields where the header has {width}; quote a text that holds a "
                f"{_NAMES[dialect.delimiter]}"
                if len(record) != width
                else f"a cell at the right of column {header[-1]!r}, where the header has no name"
            )
            problems.append(Problem(file, what, line))

    pieces = (dict(zip(header, zip(*piece, strict=True), strict=True)) for piece in piecewise(as_wide()))
    columns = joined(chain([dict.fromkeys(header, ())], pieces))
    problems += no_rows(file, lines, problems)
    return Table(file, columns, numbers(lines), tuple(problems), typed=False)


def _named(header: list[str]) -> list[str]:
    """The header without empty names at its end, as spreadsheets write them. A single one stays: it may hold data."""
    count = max((place for place, name in enumerate(header, 1) if name), default=0)
    return header[:count] if count and len(header) - count > 1 else header


class QuotingError(ValueError):
    """Quotation marks that do not match, in the record that starts on ``line``."""

    def __init__(self, error: csv.Error, line: int) -> None:
        super().__init__(str(error))
        self.line = line

    def problem(self, file: str) -> Problem:
        """The fault with the file and the line."""
        what = f"quotation marks do not match ({self}); double a quotation mark inside a quoted text"
        return Problem(file, what, self.line)


def _every_quoted(opened: Opened, delimiter: str) -> Iterator[Record]:
    """The records of a file that quotes. A blank line is a record without fields."""
    lines = iter(opened())
    first = next(lines, "")
    skipped = _DECLARED.fullmatch(first) is not None
    reader = csv.reader(lines if skipped else chain([first], lines), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise QuotingError(error, line) from None
        if record is None:
            return
        yield line, record


@contextmanager
def fields_up_to(size: int) -> Iterator[None]:
    """Allow fields of ``size`` characters. The limit of ``csv`` holds for the whole process."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _first_widths(opened: Opened, delimiter: str) -> list[int]:
    widths = []
    try:
        for _, record in islice(_quoted(opened, delimiter), _LOOKED_AT):
            widths.append(len(record))
    except QuotingError:
        widths[1:] = widths[1:] or [0]  # only the header could be read: count one record of another width
    return widths


def _with_decimal_points(table: Table) -> Table:
    """Write 3,5 as 3.5 in columns of numbers only: files with semicolons come from places with decimal commas."""
    commas = frozenset(name for name, cells in table.columns.items() if _are_decimal_commas(cells))
    columns = {
        name: Cells([packed([cell.replace(",", ".") for cell in cells])]) if name in commas else cells
        for name, cells in table.columns.items()
    }
    return replace(table, columns=columns, commas=commas)


def _are_decimal_commas(cells: Sequence[str]) -> bool:
    commas = False
    for cell in map(str.strip, cells):
        if cell and not _DECIMAL_COMMA.fullmatch(cell):
            return False
        commas = commas or "," in cell
    return commas


def _every_unquoted(opened: Opened) -> Iterator[Record]:
    for number, line in enumerate(opened(), start=1):
        record = line.rstrip("\r\n")
        yield number, record.split("\t") if record.strip() or "\t" in record else []


def _quotes(found: Iterator[Record]) -> bool:
    """Whether a file quotes its cells that begin with a quotation mark. All its lines are equally wide."""
    _, header = next(found, (0, []))
    if not header or all(map(_is_quoted, header)):
        return bool(header)
    doubled = False
    for fields in chain([header], (fields for _, fields in found)):
        for cell in fields:
            if cell.startswith('"'):
                if not _is_quoted(cell):
                    return False
                doubled = doubled or '""' in cell[1:-1] or cell == '""'
    return doubled


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
