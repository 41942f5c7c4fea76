"""Files of any size as chunks of rows: CSV, TSV, JSONL, Parquet, and text files with one text a line.

Rows are read as in ``file_readers``, with the same faults, but only one chunk is in memory. The division into chunks
depends on the file alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradistill.data.arrow_tables import Expanding, arrow_table, most_bytes
from gradistill.data.delimited import (
    Dialect,
    QuotingError,
    Record,
    csv_dialect,
    fields_up_to,
    first_line_fault,
    line_end,
    records,
    records_table,
    tsv_dialect,
)
from gradistill.data.file_readers import (
    NO_GZIP,
    UnreadableError,
    ending_of,
    has_byte_order_mark,
    no_gzip,
    not_a_file,
    opened_text,
    undecodable,
)
from gradistill.data.json_rows import filled_lines, parsed_object, row_of_line, rows_table
from gradistill.data.table import Table
from gradistill.errors import DataError, Problem
from gradistill.io import system_reason

CHUNK_ROWS = 2048
"""Rows that are read, predicted and kept at a time."""
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
"""Endings of files that can be read in chunks. Those of text formats may be followed by ``.gz``."""
REMEDY = (
    "correct these and start again (rows are lines of the file, the header is row 1; records for Parquet)"
)


@dataclass(frozen=True)
class Chunk:
    """Some rows as columns. ``lines`` are the same rows as lines of JSONL, ``batch`` as a record batch of Parquet."""

    table: Table
    lines: Sequence[str] | None = None
    batch: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return len(self.table.lines)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a row, with the values of the file. A row of JSONL has only its own keys."""
        if self.batch is not None:
            return self.batch.to_pylist()
        if self.lines is not None:
            return [parsed_object(line) for line in self.lines]
        columns = self.table.columns
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class RowStream:
    """The rows of one file. Each call of ``chunks`` starts at the beginning.

    ``format`` is the ending without ``.gz``. ``dialect`` is for CSV and TSV, ``schema`` for Parquet. Lines of text have
    the fields ``line_columns``, separated by tabs if there are several. ``given`` are lines of text to read instead of
    the file; they can be read once, as from a pipe.

    Example: ``sum(map(len, RowStream.of(Path("reviews.csv")).chunks()))``
    """

    path: Path
    format: str
    dialect: Dialect | None = None
    schema: pa.Schema | None = None
    line_columns: tuple[str, ...] = ("text",)
    given: Iterable[str] | None = None

    @classmethod
    def of(cls, path: Path, *, line_columns: tuple[str, ...] = ("text",)) -> RowStream:
        """Open a file and determine its format. Raises DataError for a file that cannot be opened or read."""
        kind = format_of(path)
        with _explained(path):
            if fault := not_a_file(path):
                raise UnreadableError(fault)
            if kind == ".parquet":
                with pq.ParquetFile(path) as file:
                    return cls(path, kind, schema=file.schema_arrow)
            opened = partial(opened_text, path)
            with fields_up_to(cls._characters(path, kind)):
                dialects = {".csv": csv_dialect, ".tsv": tsv_dialect}
                dialect = dialects[kind](opened) if kind in dialects else None
                if dialect is not None:
                    end, mark = line_end(opened, dialect), has_byte_order_mark(path)
                    dialect = replace(dialect, line_end=end, byte_order_mark=mark)
            return cls(path, kind, dialect, line_columns=line_columns)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield chunks of ``rows`` rows. Faults of rows are problems of their tables.

        Raises DataError for faults of the file as a whole.
        """
        with _explained(self.path):
            if self.given is not None:
                yield from line_chunks(str(self.path), self.given, self.line_columns, rows)
            elif self.format == ".parquet":
                yield from self._of_parquet(rows)
            elif self.dialect is not None:
                yield from self._of_records(rows, self.dialect)
            else:
                with opened_text(self.path, "\n") as lines:
                    if self.format == ".jsonl":
                        yield from json_chunks(str(self.path), lines, rows)
                    else:
                        yield from line_chunks(str(self.path), lines, self.line_columns, rows)

    def _of_records(self, rows: int, dialect: Dialect) -> Iterator[Chunk]:
        with fields_up_to(self._characters(self.path, self.format)):
            if wrong := first_line_fault(str(self.path), partial(opened_text, self.path), dialect):
                yield Chunk(Table(str(self.path), problems=(wrong,)))
                return
            remaining = records(partial(opened_text, self.path), dialect, blank_rows=True)
            header = list(islice(remaining, 1))
            fault: list[Problem] = []
            for number in count():
                part: list[Record] = []
                try:
                    part.extend(islice(remaining, rows))
                except QuotingError as error:
                    fault = [error.problem(str(self.path))]
                if part or fault or not number:
                    yield Chunk(records_table(str(self.path), [*header, *part], list(fault), dialect))
                if fault or len(part) < rows:
                    return

    @staticmethod
    def _characters(path: Path, kind: str) -> int:
        """The greatest length of a field: the size of the file, or the most that it may decompress to."""
        size = path.stat().st_size
        return most_bytes(size) if ending_of(path) != kind else size

    def _of_parquet(self, rows: int) -> Iterator[Chunk]:
        size, done = self.path.stat().st_size, 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                if batch.nbytes > most_bytes(size):
                    raise Expanding(size, most_bytes(size))
                table = arrow_table(str(self.path), pa.Table.from_batches([batch]))
                lines = range(done + 1, done + 1 + batch.num_rows)
                yield Chunk(replace(table, lines=lines), batch=batch)
                done += batch.num_rows
        if not done:
            yield Chunk(
                arrow_table(str(self.path), self.schema.empty_table() if self.schema else pa.table({}))
            )


def json_chunks(file: str, lines: Iterable[str], rows: int) -> Iterator[Chunk]:
    """Yield chunks of JSONL: one object a line; blank lines are skipped."""
    filled = filled_lines(lines)
    for number in count():
        objects: list[dict[str, Any]] = []
        places, raw, problems = array("q"), [], list[Problem]()
        part = [*islice(filled, rows)]
        for line, content in part:
            if (row := row_of_line(file, line, content, problems)) is not None:
                objects.append(row)
                places.append(line)
                raw.append(content.strip())
        if part or not number:
            yield Chunk(rows_table(file, objects, places, problems), raw)
        if len(part) < rows:
            return


def line_chunks(file: str, lines: Iterable[str], columns: tuple[str, ...], rows: int) -> Iterator[Chunk]:
    """Yield chunks of texts: one text a line, or several separated by tabs. An empty line is a row too."""
    numbered = enumerate(lines, start=1)
    for number in count():
        texts: list[list[str]] = []
        places, problems, seen = [], [], 0
        for line, content in islice(numbered, rows):
            seen += 1
            text = content.rstrip("\r\n")
            fields = text.split("\t") if len(columns) > 1 else [text]
            if len(columns) > 1 and not text.strip(" "):  # a pair that lacks both of its texts
                fields = [""] * len(columns)
            if len(fields) == len(columns):
                texts.append(fields)
                places.append(line)
            else:
                what = f"{len(fields)} fields where {len(columns)} belong ({', '.join(columns)}), with tabs between"
                problems.append(Problem(file, what, line))
        if seen or not number:
            table = Table(file, {n: [f[k] for f in texts] for k, n in enumerate(columns)}, places)
            problems += [] if seen else [Problem(file, "there are no rows")]
            yield Chunk(replace(table, problems=tuple(problems)))
        if seen < rows:
            return


def decoded_lines(file: str, stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of a pipe, decoded as UTF-8. Raises DataError with the first line that is not UTF-8."""
    for number, data in enumerate(stream, start=1):
        try:
            yield data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"not UTF-8 (0x{data[error.start]:02x}); send it as UTF-8"
            raise DataError(
                "The data cannot be read:", problems=[Problem(file, what, number)], remedy=REMEDY
            ) from None


def format_of(path: Path) -> str:
    """The ending that decides how a file is read or written. Raises DataError for an unsupported one."""
    name = path.name.lower()
    kind = next((k for k in FORMATS if name.endswith((k, k + ".gz"))), None)
    if kind is None or name.endswith(".parquet.gz"):
        raise DataError(
            f"{path} is of a kind that is not read in chunks.",
            expected=f"a file that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
            remedy="save it as .jsonl (one JSON object a line) or .csv"
            if name.endswith(".json")
            else "save it in one of these formats, or rename it",
        )
    return kind


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of reading a file into a DataError with the file and line."""
    try:
        yield
        return
    except UnreadableError as error:
        fault = error
    except UnicodeDecodeError:
        fault = undecodable(path)
    except NO_GZIP as error:
        fault = no_gzip(error)
    except Expanding as error:
        fault = UnreadableError(str(error))
    except pa.ArrowException as error:
        fault = UnreadableError(f"not a readable Parquet file: {' '.join(str(error).split())}")
    except OSError as error:
        fault = UnreadableError(f"cannot be read: {system_reason(error)}")
    problem = Problem(str(path), str(fault), fault.row)
    raise DataError("The data cannot be read:", problems=[problem], remedy=REMEDY)
