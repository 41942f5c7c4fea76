"""Files as columns: CSV, JSONL and Parquet read as they are, each row with its place in the file.

Nothing is converted or guessed here: a CSV cell is text even where it looks like a number or like "NA".
What cannot be read is collected as problems, so that all files are looked at before anything is raised.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset

from gradistill.errors import Problem

BOM = "\ufeff"


@dataclass(frozen=True)
class Table:
    """What one file holds: columns of equal length, the place of each row, and what could not be read.

    ``lines`` are lines of the file counted from 1 (CSV, JSONL) or record numbers from 1 (Parquet, hub).
    ``typed`` is False for CSV, where every cell is text. ``class_names`` are the labels that a hub column
    declares. A table with problems holds the rows that could be read; it has no columns if there are none.
    """

    file: str
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    lines: Sequence[int] = ()
    problems: tuple[Problem, ...] = ()
    typed: bool = True
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_file(path: Path) -> Table:
    """Read one file by its ending, which must be a key of ``READERS``; never raises for what it holds."""
    try:
        return READERS[path.suffix.lower()](path)
    except OSError as error:
        what = (
            "this is a folder, not a file" if path.is_dir() else f"cannot be read: {error.strerror or error}"
        )
        return _unreadable(path, what)


def _unreadable(path: Path, what: str, row: int | None = None) -> Table:
    return Table(str(path), problems=(Problem(str(path), what, row),))


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> Table:
    line = data.count(b"\n", 0, error.start) + 1
    what = f"not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); save the file as UTF-8"
    return _unreadable(path, what, line)


def _read_csv(path: Path) -> Table:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        return _not_utf8(path, data, error)
    records, problems = _csv_records(str(path), text)
    if not records:
        return Table(str(path), problems=tuple(problems) or (Problem(str(path), "the file is empty"),))
    header = [name.strip() for name in records[0][1]]
    if twice := _duplicates(header):
        return _unreadable(path, f"the header names a column twice: {twice}", row=records[0][0])
    rows, lines = [], []
    for line, record in records[1:]:
        if len(record) == len(header):
            rows.append(record)
            lines.append(line)
            continue
        what = f"{len(record)} fields where the header has {len(header)}; quote a text that holds a comma"
        problems.append(Problem(str(path), what, line))
    problems += _no_rows(str(path), rows, problems)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return Table(str(path), columns, lines, tuple(problems), typed=False)


def _csv_records(file: str, text: str) -> tuple[list[tuple[int, list[str]]], list[Problem]]:
    """Every record with the line on which it starts. A quoting error ends the file: the rest is a guess."""
    records: list[tuple[int, list[str]]] = []
    with _fields_up_to(len(text)):
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                what = f"quotation marks do not match ({error}); double a quotation mark inside a quoted text"
                return records, [Problem(file, what, line)]
            if record is None:
                return records, []
            if record:
                records.append((line, record))


@contextmanager
def _fields_up_to(size: int) -> Iterator[None]:
    """Allow fields of ``size`` characters: csv's own limit is one number for the whole process."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _duplicates(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name, count in Counter(names).items() if count > 1)


def _no_rows(file: str, rows: Sequence[Any], problems: Sequence[Problem]) -> list[Problem]:
    return [] if rows or problems else [Problem(file, "there are no rows")]


def _read_jsonl(path: Path) -> Table:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        return _not_utf8(path, data, error)
    rows: list[dict[str, Any]] = []
    lines, problems = [], []
    # str.splitlines would also split at U+2028, which JSON allows inside a text.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            rows.append(_json_object(content))
            lines.append(line)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(path), f"{error}; expected one JSON object a line", line))
    problems += _no_rows(str(path), rows, problems)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(str(path), columns, lines, tuple(problems))


def _json_object(content: str) -> dict[str, Any]:
    try:
        value = json.loads(content, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON at character {error.pos + 1} ({error.msg})") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    if not value:
        raise ValueError("an object without keys")
    if "\\u" in content:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := _duplicates([name for name, _ in pairs]):
        raise ValueError(f"a key stands twice: {twice}")
    return dict(pairs)


def _read_parquet(path: Path) -> Table:
    if path.is_dir():
        raise IsADirectoryError
    try:
        # ParquetFile, not read_table: the latter adds columns when a folder is called "name=value".
        with pq.ParquetFile(path) as file:
            return _arrow_table(str(path), file.read())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        return _unreadable(path, f"not a readable Parquet file: {' '.join(str(error).split())}")


def read_hub(name: str, dataset: Dataset) -> Table:
    """One split of a hub data set; class ids become the class names that the column declares."""
    arrow = dataset.with_format("arrow")[:]
    table = _arrow_table(name, arrow)
    columns, declared = dict(table.columns), {}
    for column, feature in dataset.features.items():
        if isinstance(feature, ClassLabel) and feature.names:
            names = declared[column] = tuple(feature.names)
            # -1 is no class: it is how the hub hides the label of a test split.
            columns[column] = [names[v] if v is not None and v >= 0 else v for v in columns[column]]
    return Table(name, columns, table.lines, table.problems, class_names=declared)


def _arrow_table(file: str, arrow: pa.Table) -> Table:
    if twice := _duplicates(arrow.column_names):
        return Table(file, problems=(Problem(file, f"a column name stands twice: {twice}"),))
    columns = {name: _arrow_values(arrow.column(name)) for name in arrow.column_names}
    problems = _no_rows(file, range(arrow.num_rows), ())
    if not columns:
        problems.append(Problem(file, "there are no columns"))
    return Table(file, columns, range(1, arrow.num_rows + 1), tuple(problems))


def _arrow_values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if text or number or pa.types.is_null(kind):
        return column.to_pylist()
    # A vector or an image is neither text nor label: its type is enough for a message, its values may be huge.
    return [column.type] * len(column)


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
"""File endings that are understood."""
