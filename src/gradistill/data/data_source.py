"""Data as users give them, a path, a hub id, or objects in memory: their kind, their name and their tables."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset, IterableDatasetDict

from gradistill.data.arrow_tables import read_dataset
from gradistill.data.file_readers import ending_of, stem_of
from gradistill.data.json_rows import rows_table
from gradistill.data.table import Table, duplicates, no_rows
from gradistill.errors import DataError, Problem

Source = Any
"""A path or hub id (str or os.PathLike), a ``Dataset``, a pandas ``DataFrame``, a list of dicts, or several of these
by split: a ``DatasetDict`` or a dict."""

_ACCEPTED = (
    "a path, hub id, Dataset, DatasetDict, pandas DataFrame, list of dicts, or a dict of these by split"
)
_MEANINGLESS = ("data", "dataset", "train", "validation", "dev", "val", "valid", "test", "rows", "")
"""Names of folders and files that do not describe what is in them."""


def is_path(source: Source) -> bool:
    """Whether the source is a path or hub id, and not an object in memory."""
    return isinstance(source, str | os.PathLike)


def path_text(source: str | os.PathLike[str]) -> str:
    """A path or hub id as text. Raises DataError for a path of bytes."""
    text = os.fspath(source)
    if not isinstance(text, str):
        raise DataError(f"The path {text!r} is bytes.", expected="text", remedy="use os.fsdecode")
    return text


def described_source(source: Source) -> str:
    """The name of the source in messages and run folders: its path or id, or the type of an object."""
    return path_text(source) if is_path(source) else f"{type(source).__name__} in memory"


def data_name(source: Source) -> str:
    """A short name of the data, from the folder, file or hub id; ``data`` for an object."""
    if not is_path(source):
        return "data"
    text = path_text(source)
    if not Path(text).exists():
        return text.rpartition("/")[2].partition(":")[0] or "data"
    path = Path(text).absolute()
    names = [stem_of(path) if ending_of(path) else path.name]
    names += [parent.name for parent in takewhile(_is_no_home, path.parents)]
    return next((name for name in names if name.lower() not in _MEANINGLESS), "data")


def _is_no_home(folder: Path) -> bool:
    """Whether the folder is not a person's home folder, whose name must not become the name of a task."""
    return folder not in (Path.home(), folder.parent) and folder.parent.name.lower() not in ("home", "users")


def tables_of(source: Source) -> Table | dict[str, Table]:
    """An object in memory as one table, or as one for each split. Raises DataError for an unknown type."""
    if isinstance(source, IterableDataset | IterableDatasetDict):
        raise DataError(
            f"The data are an {type(source).__name__}, which has no number of rows.",
            expected=_ACCEPTED,
            remedy="load it without streaming=True, or collect it: Dataset.from_list(list(rows))",
        )
    if isinstance(source, Mapping):
        return {_split_name(name): _table_of(rows, f"the split {name!r}") for name, rows in source.items()}
    return _table_of(source, "the data")


def _split_name(name: object) -> str:
    if not isinstance(name, str):
        raise DataError(
            f"The data have a split called {name!r}, a {type(name).__name__}.",
            expected="names of splits as text",
        )
    return str(name)  # a datasets.Split is a str, too


def _table_of(rows: Any, name: str) -> Table:
    if isinstance(rows, Dataset):
        return read_dataset(name, rows)
    if _is_frame(rows):
        return _frame_table(rows, name)
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return _list_table(rows, name)
    raise DataError(
        f"{name[0].upper()}{name[1:]} are of the type {type(rows).__name__}.",
        expected=_ACCEPTED,
        remedy="for columns, Dataset.from_dict(columns); for one row after another, a list of dicts",
    )


def _list_table(rows: Sequence[Any], name: str) -> Table:
    good: list[dict[str, Any]] = []
    lines, problems = array("q"), []
    for number, row in enumerate(rows, start=1):
        if fault := _fault_of(row):
            problems.append(Problem(name, fault, number))
        else:
            good.append({key: _plain(value) for key, value in row.items()})
            lines.append(number)
    return rows_table(name, good, lines, problems)


def _fault_of(row: Any) -> str:
    if not isinstance(row, Mapping):
        return f"a {type(row).__name__}, not a dict"
    if odd := [key for key in row if not isinstance(key, str)]:
        return f"a key {odd[0]!r} of the type {type(odd[0]).__name__}; name columns by text"
    return "" if row else "a dict without keys"


def _is_frame(rows: Any) -> bool:
    """Whether ``rows`` is a pandas DataFrame. Does not import pandas."""
    return type(rows).__name__ == "DataFrame" and type(rows).__module__.startswith("pandas")


def _frame_table(frame: Any, name: str) -> Table:
    names = [str(column) for column in frame.columns]
    if twice := duplicates(names):
        return Table(name, problems=(Problem(name, f"a column name occurs twice: {twice}"),))
    columns = {column: [_plain(v) for v in frame.iloc[:, k].tolist()] for k, column in enumerate(names)}
    return Table(name, columns, range(1, len(frame) + 1), tuple(no_rows(name, range(len(frame)), ())))


def _plain(value: Any) -> Any:
    """A value with NumPy types converted to Python types, and missing values of pandas to None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, float) and value != value:
        return None
    return value
