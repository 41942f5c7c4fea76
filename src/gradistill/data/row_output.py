"""Writers of rows with added columns, chunk by chunk: CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradistill.data.delimited import Dialect
from gradistill.data.row_stream import Chunk, RowStream
from gradistill.errors import DataError

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of files that can be written."""
_GROUP_ROWS, _GROUP_BYTES = 65_536, 64_000_000
"""A Parquet row group is written once it has so many rows or bytes; it may exceed them by one chunk."""
_EXACT, _INT64 = range(-(2**53), 2**53), range(-(2**63), 2**63)
_TYPES = {
    frozenset({str}): pa.string(), frozenset({bool}): pa.bool_(), frozenset({float}): pa.float64(),
    frozenset({int}): pa.int64(), frozenset({np.int64}): pa.int64(), frozenset({int, np.int64}): pa.int64(),
    frozenset({int, float}): pa.float64(),
}  # fmt: skip
"""The Parquet type of a column, by the types of its values. ``np.int64``: whole numbers that float64 would round."""

Added = Mapping[str, np.ndarray]
"""Columns to write after those of a chunk: text (object), float32 or bool. Masked values are written as missing.
``json_lines`` accepts any JSON values, lists too."""


@runtime_checkable
class RowWriter(Protocol):
    """Writes chunks, each with its added columns; ``close`` completes the file."""

    def write(self, chunk: Chunk, added: Added) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Columns:
    """The columns of a file in their order, each with the types of its values; empty for one without values."""

    types: Mapping[str, frozenset[type]]

    @classmethod
    def joined(cls, earlier: Columns | None, chunk: Chunk) -> Columns:
        """The columns of the chunks so far and of one more chunk."""
        types = dict(earlier.types) if earlier else {}
        for name, cells in chunk.table.columns.items():
            types[name] = types.get(name, frozenset()) | {
                _type_of(cell) for cell in cells if cell is not None
            }
        return cls(types)


def refuse_taken_names(file: Path, present: Iterable[str], added: Iterable[str]) -> None:
    """Raise DataError if a file already has columns with the names that will be added."""
    names = set(present)
    if taken := [name for name in added if name in names]:
        raise DataError(
            f"{file} has columns with the names of the prediction columns: {', '.join(taken)}",
            expected="other names",
            remedy="rename or remove these columns",
        )


def writer_of(file: Path, stream: RowStream, columns: Columns, added: Added) -> RowWriter:
    """The writer of a file, by its ending.

    CSV or TSV is written in the input's ``dialect`` if the input has the same format. ``added`` gives the types of the
    new columns.
    """
    ending = next(kind for kind in OUTPUTS if file.name.lower().endswith(kind))
    if ending == ".parquet":
        return ParquetWriter(file, _schema(stream, columns, added))
    if ending == ".jsonl":
        return JsonLinesWriter(file)
    same = stream.dialect if stream.format == ending else None
    dialect = same or Dialect({".csv": ",", ".tsv": "\t"}[ending])
    return DelimitedWriter(file, [*columns.types, *added], dialect)


class DelimitedWriter:
    """Writes CSV or TSV in UTF-8. Cells are quoted where necessary, and never in a dialect without quotes.

    A missing value is an empty cell. Objects and lists are JSON.
    """

    def __init__(self, file: Path, names: Sequence[str], dialect: Dialect) -> None:
        if not dialect.quotes and (odd := [name for name in names if re.search(r"[\t\r\n]", name)]):
            raise DataError(
                f"{file} has no quotes, like the input file, and the column {odd[0]!r} holds a tab or a line end",
                expected="labels without them, or another format",
                remedy="name an output that ends in .csv, .jsonl or .parquet, or correct id2label",
            )
        self._names, self._dialect = names, dialect
        self._special = re.compile(f'["\\r\\n{dialect.delimiter}]' if dialect.quotes else "(?!)")
        encoding = "utf-8-sig" if dialect.byte_order_mark else "utf-8"
        self._stream = file.open("w", encoding=encoding, newline="")
        self._line(names)

    def write(self, chunk: Chunk, added: Added) -> None:
        columns = _listed(added)
        for row, more in zip(chunk.rows(), zip(*columns.values(), strict=True), strict=True):
            cells = row | dict(zip(columns, more, strict=True))
            self._line([_cell(cells.get(name)) for name in self._names])

    def _line(self, cells: Sequence[str]) -> None:
        quoted = ('"' + c.replace('"', '""') + '"' if self._special.search(c) else c for c in cells)
        self._stream.write(self._dialect.delimiter.join(quoted) + self._dialect.line_end)

    def close(self) -> None:
        self._stream.close()


class JsonLinesWriter:
    """Writes one JSON object a line (``json_lines``)."""

    def __init__(self, file: Path) -> None:
        self._stream = file.open("wb")

    def write(self, chunk: Chunk, added: Added) -> None:
        self._stream.write(json_lines(chunk, added))

    def close(self) -> None:
        self._stream.close()


def json_lines(chunk: Chunk, added: Added) -> bytes:
    """One JSON object a line, in UTF-8. An object that was read from JSONL keeps its characters as they are."""
    columns = _listed(added)
    before = chunk.lines or [_json(row) for row in chunk.rows()]
    more = [_json(dict(zip(columns, cells, strict=True))) for cells in zip(*columns.values(), strict=True)]
    lines = (f"{a[:-1].rstrip()}, {b[1:]}\n" for a, b in zip(before, more, strict=True))
    return "".join(lines).encode()


class ParquetWriter:
    """Writes Parquet with Zstandard compression. Columns that were read from Parquet keep their types.

    Other columns become text, booleans, int64 or float64. A column of mixed types becomes JSON as text.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []

    def write(self, chunk: Chunk, added: Added) -> None:
        names = [name for name in self._schema.names if name not in added]
        if chunk.batch is not None:
            before = [chunk.batch.column(name) for name in names]
        else:
            rows = chunk.rows()
            before = [
                _array([row.get(name) for row in rows], self._schema.field(name).type) for name in names
            ]
        new = [pa.array(values.tolist(), self._schema.field(name).type) for name, values in added.items()]
        self._waiting.append(pa.RecordBatch.from_arrays([*before, *new], schema=self._schema))
        waiting = self._waiting
        if sum(b.num_rows for b in waiting) >= _GROUP_ROWS or sum(b.nbytes for b in waiting) >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _type_of(cell: Any) -> type:
    """The type of a value; ``object`` for a whole number that only JSON can hold."""
    if type(cell) is not int or cell in _EXACT:
        return type(cell)
    return np.int64 if cell in _INT64 else object


def _schema(stream: RowStream, columns: Columns, added: Added) -> pa.Schema:
    kinds = {"f": pa.float32(), "b": pa.bool_(), "O": pa.string()}
    new = [pa.field(name, kinds[values.dtype.kind]) for name, values in added.items()]
    if stream.schema is not None:
        before = list(stream.schema)
    else:
        before = [pa.field(name, _TYPES.get(types, pa.string())) for name, types in columns.types.items()]
    return pa.schema([*before, *new], stream.schema.metadata if stream.schema is not None else None)


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        cells = [cell if cell is None or isinstance(cell, str) else _json(cell) for cell in cells]
    return pa.array(cells, kind)


def _listed(added: Added) -> dict[str, list[Any]]:
    """Columns as lists of Python values, None if masked. A float32 is the shortest number that reads as the same."""

    def cells(values: np.ndarray) -> list[Any]:
        if values.dtype.kind != "f":
            return values.tolist()
        masks = np.ma.getmaskarray(values)
        return [
            None if masked else float(str(value))
            for value, masked in zip(np.ma.getdata(values), masks, strict=True)
        ]

    return {name: cells(values) for name, values in added.items()}


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    return _json(value) if isinstance(value, bool | int | float | dict | list) else str(value)


def _json(value: Any) -> str:
    """A value as JSON. A number that is not finite becomes null, since JSON cannot write it."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_without_infinities(value), ensure_ascii=False, default=str)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinities(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
