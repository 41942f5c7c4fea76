"""Arrow tables as columns: Parquet files and data sets of the ``datasets`` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset

from gradistill.data.cells import Cells
from gradistill.data.table import Table, duplicates, no_rows
from gradistill.errors import Problem

_FREE, _MOST_TIMES = 64_000_000, 100
"""A file may decompress to ``_FREE`` bytes, or to ``_MOST_TIMES`` its size where that is more."""
_MOST_IN_LISTS = 200_000_000
"""A column of lists with more bytes is not read: it does not hold labels."""


class Expanding(ValueError):
    """A file that is far larger when it is decompressed."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"its {size:,} bytes become more than {most:,} when they are decompressed, which no table of "
            "texts does; save it without compression"
        )


def most_bytes(size: int) -> int:
    """The most bytes that a file of ``size`` bytes may decompress to: text shrinks to a twentieth at best."""
    return max(_FREE, _MOST_TIMES * size)


def read_parquet(path: Path) -> Table:
    """Read a Parquet file. Raises OSError and Expanding; other faults of the file are problems of the table."""
    if path.is_dir():
        raise IsADirectoryError
    try:
        # ParquetFile, not read_table: the latter adds columns when a folder is called "name=value".
        with pq.ParquetFile(path) as file:
            return arrow_table(str(path), _bounded(file, path.stat().st_size))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what = f"not a readable Parquet file: {' '.join(str(error).split())}"
        return Table(str(path), problems=(Problem(str(path), what),))


def _bounded(file: pq.ParquetFile, size: int) -> pa.Table:
    batches, total, most = [], 0, most_bytes(size)
    for batch in file.iter_batches(batch_size=1024):
        total += sum(map(_bytes_of, batch.columns))
        if total > most:
            raise Expanding(size, most)
        batches.append(batch)
    return pa.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()


def _bytes_of(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray):
        words = column.dictionary
        return len(column) * words.nbytes // max(len(words), 1)
    return column.nbytes


def read_dataset(name: str, dataset: Dataset) -> Table:
    """Convert a loaded data set to a table. Class ids become the names that the column declares."""
    table = arrow_table(name, table_of(dataset))
    columns, declared = dict(table.columns), {}
    for column, feature in dataset.features.items():
        if isinstance(feature, ClassLabel) and feature.names and column in columns:
            names = declared[column] = tuple(feature.names)
            # -1 is not a class: the hub writes it for the hidden labels of a test split.
            columns[column] = [names[v] if v is not None and v >= 0 else v for v in columns[column]]
        inner = getattr(feature, "feature", None)  # of a list
        if isinstance(inner, ClassLabel) and inner.names and column in columns:
            names = declared[column] = tuple(inner.names)
            columns[column] = [
                [names[v] if v is not None and v >= 0 else v for v in cell]
                if isinstance(cell, list)
                else cell
                for cell in columns[column]
            ]
    return Table(name, columns, table.lines, table.problems, class_names=declared)


def as_dataset(table: pa.Table) -> Dataset:
    """A data set with a random fingerprint: the library's default one hashes a copy of every cell."""
    return Dataset(table, fingerprint=uuid4().hex)


def table_of(rows: Dataset) -> pa.Table:
    table: Any = rows.with_format("arrow")[:]
    return table


def with_column(rows: Dataset, name: str, cells: Sequence[Any] | np.ndarray) -> Dataset:
    """The rows with new ``cells`` in the column ``name``, which keeps its type."""
    table = table_of(rows)
    place = table.column_names.index(name)
    field = table.field(place)
    return as_dataset(table.set_column(place, field, pa.array(cells, field.type)))


def arrow_table(file: str, arrow: pa.Table) -> Table:
    if twice := duplicates(arrow.column_names):
        return Table(file, problems=(Problem(file, f"a column name occurs twice: {twice}"),))
    columns = {name: _values(arrow.column(name)) for name in arrow.column_names}
    problems = no_rows(file, range(arrow.num_rows), ())
    if not columns:
        problems.append(Problem(file, "there are no columns"))
    return Table(file, columns, range(1, arrow.num_rows + 1), tuple(problems))


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if text or number or pa.types.is_null(kind):
        return Cells(column.chunks)
    if pa.types.is_decimal(kind):  # as databases export numbers
        return Cells(column.cast(pa.float64()).chunks)
    if pa.types.is_struct(kind):
        return _objects(column)
    if _holds_labels(kind) and column.nbytes <= _MOST_IN_LISTS:
        return column.to_pylist()
    # A vector or an image is neither text nor label. Its type is enough for a message; its values may be huge.
    return [column.type] * len(column)


def _holds_labels(kind: pa.DataType) -> bool:
    """Whether ``kind`` is a list type that may hold labels: text, whole numbers, flags, or flags as decimals."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    return text or pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)


def _objects(column: pa.ChunkedArray) -> list[dict[str, Any] | None]:
    fields = [field.name for field in column.type]
    inner = [_values(part) for part in column.flatten()]
    valid = column.is_valid().to_pylist()
    return [
        {name: values[row] for name, values in zip(fields, inner, strict=True)} if is_valid else None
        for row, is_valid in enumerate(valid)
    ]
