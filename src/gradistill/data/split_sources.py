"""Sources of rows: a folder, a file, the hub, or memory. Each split becomes one table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from gradistill.data.arrow_tables import read_dataset
from gradistill.data.cell_checks import is_missing
from gradistill.data.cells import joined
from gradistill.data.data_source import Source, is_path, path_text, tables_of
from gradistill.data.file_readers import LISTED, ending_of, not_a_file, read_file, stem_of
from gradistill.data.table import Table
from gradistill.data.tasks import TASKS, Task, label_key
from gradistill.data.token_labels import with_word_lists
from gradistill.errors import DataError, Problem, nearest

_OTHER_FILES = {".xlsx", ".xls", ".ods", ".txt", ".zip", ".docx", ".pdf", ".feather", ".arrow", ".pkl"}
"""Endings of files that cannot be read; a name with one is no hub id."""
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.+-]+))?")
_GLUE = "nyu-mll/glue"
_VALIDATION = ("validation", "dev", "val", "valid")
"""Usual names of the validation split."""
_SPLIT_COLUMNS = ("split", "fold", "subset", "partition", "set")
"""Usual names of a column that holds each row's split."""
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys((*_VALIDATION, "development", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
"""The values of such a column, and the split that each of them means."""
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{3,})(-of-(?P<count>\d+))?(-[0-9a-f]+)?")
"""Part of a split in several files, as ``save_to_disk`` and the hub name them."""
SHARE_HINT = "take a part of the training rows: --validation-share 0.1 (validation_share= in Python)"


@dataclass(frozen=True)
class Wanted:
    """The required splits, and the ``optional`` ones, which are read if they exist.

    ``columns`` are those with another role (labels, texts). If they are given, a table is divided by a column that
    holds each row's split, unless it is one of them.
    """

    splits: tuple[str, ...]
    optional: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _SplitReaders:
    """The splits of a source by name, each with its reader. ``listing`` describes the source in messages."""

    place: str
    readers: Mapping[str, Callable[[], Table]]
    listing: str
    problems: Mapping[str, str] = field(default_factory=dict)
    """Names of splits that cannot be read, and why."""
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """The files of each split, if the source is a folder of files."""


def read_source(source: Source, wanted: Wanted, task: Task | None) -> tuple[dict[str, Table], list[Problem]]:
    """The tables of the splits that exist, and a problem for each required one that does not.

    A local path takes precedence over a hub id of the same name. A source without splits (one file, one data set) is
    the one required split, or is divided by a column (``Wanted.columns``). Raises DataError if ``source`` is none of
    these.
    """
    if not (wanted.splits or wanted.optional):
        raise DataError("No split is named.", expected="at least one, such as 'train'")
    tables, problems = _read(source, wanted, task)
    return {split: with_word_lists(table) for split, table in tables.items()}, problems


def _read(source: Source, wanted: Wanted, task: Task | None) -> tuple[dict[str, Table], list[Problem]]:
    opened = _opened(source, wanted)
    if isinstance(opened, _SplitReaders):
        return _taken(opened, wanted, task)
    if wanted.columns is None and not wanted.splits:  # a table without splits is none of the optional ones
        return {}, []
    table = opened()
    marks = split_column(table)
    if wanted.columns is not None and marks is not None and marks not in wanted.columns:
        tables, problems = _taken(_divided(table, marks), wanted, task)
        return tables, [*table.problems, *problems]
    if len(wanted.splits) > 1:
        raise _one_for_many(source, wanted.splits)
    return dict.fromkeys(wanted.splits, table), []


def files_of(source: Source, split: str, task: Task | None) -> list[Path]:
    """The files that a split is read from; empty for objects in memory and data sets of the hub."""
    if not is_path(source):
        return []
    place = Path(path_text(source))
    if not place.is_dir():
        return [place] if place.is_file() else []
    names = split_names(split, task)
    if _is_saved(place):
        return sorted(
            next((place / name for name in names if (place / name).is_dir()), place).glob("*.arrow")
        )
    found_splits = _folder(place, Wanted((split,)))
    found = found_splits.files if isinstance(found_splits, _SplitReaders) else {}
    return list(next((found[name] for name in names if name in found), ()))


def _opened(source: Source, wanted: Wanted) -> _SplitReaders | Callable[[], Table]:
    """The splits of the source, or the reader of its only table."""
    if not is_path(source):
        tables = tables_of(source)
        if isinstance(tables, Table):
            return lambda: tables
        readers = {name: lambda table=table: table for name, table in tables.items()}
        return _SplitReaders("the data", readers, f"the data have {', '.join(tables) or 'no split'}")
    source = path_text(source)
    path = Path(source)
    try:
        if path.is_dir():
            return _folder(path, wanted)
        if path.exists():
            return _file(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{source!r} cannot be opened: {error}") from None
    refuse_missing(source)
    return _hub(source)


def refuse_missing(source: Source) -> None:
    """Raise DataError for a path that does not exist and is not a hub id."""
    if not is_path(source) or Path(text := path_text(source)).exists():
        return
    ending = Path(text).suffix.lower()
    if ending_of(Path(text)) or ending in _OTHER_FILES or not _HUB_ID.fullmatch(text):
        raise DataError(
            f"There is no file or folder {text!r}.",
            expected=f"a folder with train and validation files ({LISTED}), one such file, a folder of "
            "save_to_disk, or a hub id such as glue/sst2 or owner/name:config",
            remedy="check the path",
        )


def _taken(
    found_splits: _SplitReaders, wanted: Wanted, task: Task | None
) -> tuple[dict[str, Table], list[Problem]]:
    tables, problems = {}, []
    for split in (*wanted.splits, *wanted.optional):
        names = [
            n for n in split_names(split, task) if n in found_splits.readers or n in found_splits.problems
        ]
        if not names:
            if split in wanted.splits:
                problems.append(Problem(found_splits.place, _absent(split, found_splits)))
            continue
        rivals = [name for name in names if name in _VALIDATION]
        if names[0] in found_splits.problems:
            problems.append(Problem(found_splits.place, found_splits.problems[names[0]]))
        elif split not in names and "validation" not in names and len(rivals) > 1:
            what = f"the split {split!r} may be {' or '.join(map(repr, rivals))}; keep one, or rename it to {split}"
            problems.append(Problem(found_splits.place, what))
        else:
            tables[split] = found_splits.readers[names[0]]()
    return tables, problems


def split_names(split: str, task: Task | None) -> tuple[str, ...]:
    """The possible names of a split. MNLI has two validation splits, of which the matched one is used."""
    if split not in _VALIDATION:
        return (split,)
    known = (task.validation,) if task else ()
    return tuple(dict.fromkeys((split, "validation", *known, "validation_matched", *_VALIDATION)))


def _absent(split: str, found_splits: _SplitReaders) -> str:
    what = f"there is no {split!r} split; {found_splits.listing}"
    if split == "validation" and "train" in found_splits.readers:
        what += f". Add one (dev, val and valid are accepted), or {SHARE_HINT}"
    return what


def _one_for_many(source: Source, splits: Sequence[str]) -> DataError:
    place = path_text(source) if is_path(source) else f"The {type(source).__name__}"
    what = f"{place} is one {'file' if is_path(source) else 'table'}"
    if is_path(source) and Path(place).is_dir():
        what = f"{place} is one saved data set"
    ending = ending_of(Path(place)) if is_path(source) else None
    files = " and ".join(split + (ending or ".csv") for split in splits)
    share = f"{SHARE_HINT}; " if set(splits) == {"train", "validation"} else ""
    return DataError(
        f"{what}, but the splits {', '.join(splits)} are needed.",
        expected="a folder with one file for each split, or a share to divide it by",
        remedy=f"{share}put {files} into one folder and name that; "
        "or, in Python, give a dict of splits, or name one split (splits=)",
    )


def _file(path: Path) -> Callable[[], Table]:
    if fault := not_a_file(path):
        raise DataError(f"{path}: {fault}.", expected=f"a file ending in {LISTED}")
    if ending_of(path) is None:
        raise DataError(
            f"{path} is of a kind that cannot be read ({path.suffix or 'no file ending'}).",
            expected=f"a file ending in {LISTED}",
            remedy="save it as CSV with a header line, or as JSONL with one object a line",
        )
    return lambda: read_file(path)


def _folder(folder: Path, wanted: Wanted) -> _SplitReaders | Callable[[], Table]:
    if _is_saved(folder):
        return _saved(folder)
    entries = sorted(folder.iterdir())
    found_splits = _files(folder, entries)
    inner = folder / "data"
    if not _has_any(found_splits, wanted) and inner.is_dir():
        within = _files(inner, sorted(inner.iterdir()))
        return within if _has_any(within, wanted) else found_splits
    return found_splits


def has_splits(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder, or it has a file with the name of the training split."""
    wanted = Wanted(("train",))
    opened = _folder(folder, wanted)
    return not isinstance(opened, _SplitReaders) or _has_any(opened, wanted)


def _is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    one = (folder / "state.json").exists() and (folder / "dataset_info.json").exists()
    return one or (folder / "dataset_dict.json").exists()


def _has_any(found_splits: _SplitReaders, wanted: Wanted) -> bool:
    return any(
        name in found_splits.readers or name in found_splits.problems
        for split in (*wanted.splits, *wanted.optional) for name in split_names(split, None)
    )  # fmt: skip


def _files(folder: Path, there: Sequence[Path]) -> _SplitReaders:
    """The files of a folder by the split in their name: ``train.csv``, or ``train-00000-of-00002.parquet`` …"""
    whole: dict[str, list[Path]] = {}
    shards: dict[str, list[tuple[Path, re.Match[str]]]] = {}
    for path in there:
        if ending_of(path) is None:
            continue
        whole.setdefault(stem_of(path), []).append(path)
        if match := _SHARD.fullmatch(stem_of(path)):
            shards.setdefault(match["split"], []).append((path, match))
    readers: dict[str, Callable[[], Table]] = {}
    problems: dict[str, str] = {}
    files_by_split: dict[str, list[Path]] = {}
    for split in {*whole, *shards}:
        parts = [path for path, _ in shards.get(split, [])]
        files = [*whole.get(split, []), *parts]
        if len(whole.get(split, [])) > 1 or (whole.get(split) and parts):
            listed = ", ".join(path.name for path in files[:20])
            problems[split] = f"the split {split!r} exists more than once: {listed}; keep one"
        elif parts and (fault := _incomplete(split, shards[split])):
            problems[split] = fault
        else:
            files_by_split[split] = files
            readers[split] = lambda files=files: _joined(files)
    listing = ", ".join(path.name for path in there[:20]) or "nothing"
    content = f"the folder holds {listing}"
    usable = [path for path in there if ending_of(path)]
    if len(usable) == 1 and usable[0].is_file() and stem_of(usable[0]) not in ("train", "test", *_VALIDATION):
        content += f"; to read all of {usable[0].name}, name that file"
    return _SplitReaders(str(folder), readers, content, problems, files_by_split)


def _incomplete(split: str, shards: Sequence[tuple[Path, re.Match[str]]]) -> str:
    """The fault of the parts of a split; an empty string if each exists once."""
    numbers = [int(match["number"]) for _, match in shards]
    counts = {match["count"] for _, match in shards}
    if len(counts) > 1 or len(set(numbers)) < len(numbers):
        listed = ", ".join(path.name for path, _ in shards[:20])
        return f"the parts of the split {split!r} do not belong together: {listed}; keep one set"
    whole = range(int(next(iter(counts)) or 0))  # without a count the number of parts is not known
    absent = sorted(set(whole) - set(numbers))
    if not whole or not (absent or set(numbers) - set(whole)):
        return ""
    counted = f"{len(numbers)} of {len(whole)} parts are there"
    return f"of the split {split!r}, {counted}; the numbers {absent[:5]} are missing"


def _joined(files: Sequence[Path]) -> Table:
    """Several files as one table. If their columns differ, the differences are problems."""
    tables = [read_file(file) for file in sorted(files)]
    if len(tables) == 1:
        return tables[0]
    first = next((table for table in tables if table.columns), tables[0])
    problems = [problem for table in tables for problem in table.problems]
    problems += [
        Problem(table.file, f"other columns than {first.file}: {', '.join(table.columns)}")
        for table in tables
        if table.columns and set(table.columns) != set(first.columns)
    ]
    place = f"{first.file} and {len(tables) - 1} more parts"
    if problems:
        return Table(place, problems=tuple(problems))
    starts = [sum(len(table.lines) for table in tables[:k]) for k in range(len(tables))]
    return Table(
        place,
        joined(table.columns for table in tables),
        joined({"lines": table.lines} for table in tables)["lines"],
        typed=first.typed,
        class_names=first.class_names,
        parts=tuple(zip(starts, (table.file for table in tables), strict=True)),
        commas=frozenset().union(*(table.commas for table in tables)),
    )


def _saved(folder: Path) -> _SplitReaders | Callable[[], Table]:
    """The data set that ``save_to_disk`` wrote: one table, or several by split."""
    try:
        _refuse_odd_files(folder)
        loaded = datasets.load_from_disk(str(folder))
    except DataError:
        raise
    except Exception as error:  # of JSON, Arrow and the disk
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{folder} looks like a folder of save_to_disk, and cannot be loaded. {cause}",
            expected="all the files that save_to_disk wrote",
            remedy="save the data set again",
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return lambda: read_dataset(str(folder), loaded)
    readers = {
        str(name): lambda name=name, rows=rows: read_dataset(f"{folder} ({name})", rows)
        for name, rows in loaded.items()
    }
    return _SplitReaders(str(folder), readers, f"the data set has {', '.join(map(str, loaded))}")


def _refuse_odd_files(folder: Path) -> None:
    """Raise DataError unless the files that the folder's JSON files name are ordinary files inside it."""
    listed = folder / "dataset_dict.json"
    parts = _json(listed)["splits"] if listed.exists() else ["."]
    for part in (folder / name for name in parts):
        for name in (
            "dataset_info.json",
            *(entry["filename"] for entry in _json(part / "state.json")["_data_files"]),
        ):
            file = part / name
            inside = file.resolve().is_relative_to(folder.resolve())
            if fault := not_a_file(file) if inside else "it is not in that folder":
                raise DataError(f"{folder} names {file}: {fault}.", remedy="save the data set again")


def _json(file: Path) -> Any:
    if fault := not_a_file(file):
        raise DataError(f"{file}: {fault}.")
    return json.loads(file.read_bytes())


def _hub_address(source: str) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(source)
    assert match is not None
    if not source.startswith("glue/"):
        return match[1], match[2]
    config = source.removeprefix("glue/")
    known = [task.source for task in TASKS.values() if task.source.startswith("glue/")]
    if source not in known:
        raise DataError(f"GLUE has no task {config!r}.", remedy=nearest(source, known))
    return _GLUE, config


def _hub(source: str) -> _SplitReaders:
    repository, config = _hub_address(source)
    try:
        loaded = datasets.load_dataset(repository, config)
    except Exception as error:  # the hub client raises dozens of types
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{source!r} is no file or folder here, and it cannot be loaded from the hub. {cause}",
            expected="a path that exists, or a hub id and a connection to the hub (or its local cache)",
            remedy="check the name and the connection; files of your own go into a folder as train.csv and "
            "validation.csv",
        ) from error
    readers = {
        str(name): lambda name=name: read_dataset(f"{source} ({name})", loaded[name]) for name in loaded
    }
    return _SplitReaders(source, readers, f"the data set has {', '.join(map(str, loaded))}")


def split_column(table: Table) -> str | None:
    """The column that holds each row's split, in a table with two or more other columns; None if there is none."""
    for name in table.columns if len(table.columns) > 2 else ():
        if name.rpartition(".")[2].casefold() in _SPLIT_COLUMNS:
            values = {label_key(cell) for cell in table.columns[name] if not is_missing(cell)}
            if len(values) > 1 and values <= _SPLIT_NAMES.keys():
                return name
    return None


def _divided(table: Table, marks: str) -> _SplitReaders:
    """The splits by the column ``marks``, without that column. Raises DataError for rows where it is empty."""
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(table.columns[marks]):
        rows.setdefault("" if is_missing(cell) else _SPLIT_NAMES[label_key(cell)], []).append(row)
    if without_split := rows.pop("", None):
        raise DataError(
            f"{table.file}: the column {marks!r} names the split of each row, and is empty in {len(without_split)} of "
            f"{len(table.lines)} rows.",
            problems=[table.problem(row, "no split is named", marks) for row in without_split],
            expected=f"one of {', '.join(_SPLIT_NAMES)} in every row",
            remedy="fill these cells, or leave the column out",
        )
    others = {name: cells for name, cells in table.columns.items() if name != marks}
    whole = replace(table, columns=others, problems=(), split_column=marks)
    readers = {split: partial(whole.only, split_rows) for split, split_rows in rows.items()}
    listing = ", ".join(f"{split} ({len(split_rows):,} rows)" for split, split_rows in rows.items())
    return _SplitReaders(table.file, readers, f"its column {marks!r} names {listing}")
