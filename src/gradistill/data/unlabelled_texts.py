"""Texts without labels: unlabelled rows of a task, and any texts to pre-train on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset

from gradistill.data.cell_checks import missing_columns, text_problems
from gradistill.data.checked_rows import incomplete_rows, prepared, with_problems
from gradistill.data.data_source import Source, described_source, is_path
from gradistill.data.file_readers import UnreadableError, not_a_file, text_of
from gradistill.data.split_sources import Wanted, read_source
from gradistill.data.table import Table, with_fields
from gradistill.data.tasks import Task
from gradistill.data.text_columns import holds_text, is_ignored, label_candidates, wordless
from gradistill.data.transfer_rows import CHANGE, COPY, ROW, WORDS
from gradistill.errors import DataError, Problem
from gradistill.io import system_reason

TEXTS = Task("texts", ("text",), ("none", "some"), ("accuracy",), "accuracy")
"""A placeholder task for texts without a task. Its labels are not used."""

_REMEDY = "correct these and start again (rows are lines of the file, the header is row 1)"


class Unlabelled(NamedTuple):
    """Rows without labels.

    ``words_changed``: whether some are copies of other rows with changed words, made by ``gradistill augment``.
    ``incomplete`` counts rows without a text that were left out.
    """

    rows: Dataset
    words_changed: bool
    incomplete: int = 0


def load_unlabelled(
    source: Source, task: Task, *, split: str = "unlabelled", first_index: int = 0
) -> Dataset:
    """Rows of a task without labels, numbered from ``first_index``. A label column is not read.

    ``source`` is one file or table with the task's text columns, or a folder or hub id with that ``split``. The label
    is ``Task.no_label``. Raises DataError with every unusable row, column and file.
    """
    return read_unlabelled(source, task, split=split, first_index=first_index).rows


def read_unlabelled(
    source: Source,
    task: Task,
    *,
    split: str = "unlabelled",
    first_index: int = 0,
    skip_incomplete: bool = False,
) -> Unlabelled:
    """The rows of ``load_unlabelled``, and whether some of them are changed copies.

    ``skip_incomplete`` leaves out rows without a text, which are refused otherwise. If a column divides one table into
    splits, the ``split`` "train" is its training rows; any other name is all of its rows.
    """
    name = described_source(source)
    tables, problems = read_source(
        source, Wanted((split,), columns=task.text_columns if split == "train" else None), task
    )
    whole = tables.get(split, Table(name))
    table = with_fields(whole, task.text_columns)
    incomplete = incomplete_rows(table, task.text_columns, None) if skip_incomplete else ()
    table = table.without(incomplete)
    problems += table.problems
    if incomplete and not table.lines:
        problems.append(Problem(name, "no row has a text"))
    if table.columns:
        problems += missing_columns(table, task.text_columns)
        present = [name for name in task.text_columns if name in table.columns]
        problems += [problem for name in present for problem in text_problems(table, name)]
    _refuse(name, problems)
    rows = _rows({name: list(table.columns[name]) for name in task.text_columns}, task, first_index)
    return Unlabelled(rows, _words_changed(whole, task), len(incomplete))


def _words_changed(table: Table, task: Task) -> bool:
    """Whether the table has the columns that ``gradistill augment`` adds, and a copy with changed words.

    If a text column has the name of the column of changes, only the other columns are checked.
    """
    added_columns = {ROW, COPY, CHANGE} - set(task.text_columns)
    return added_columns <= table.columns.keys() and (
        CHANGE not in added_columns or WORDS in table.columns[CHANGE]
    )


def load_texts(
    sources: Sequence[Source], *, text_columns: tuple[str, ...] | None = None, training: bool = False
) -> Dataset:
    """All different texts of files (.txt with one a line, or tables), of folders, hub ids and objects with ``train``.

    If a column divides one table into splits, all its rows are read; with ``training`` only the training rows. In a
    table each cell of a text column is a text. Text columns are ``text_columns``, or else all but those of numbers,
    codes, labels and row numbers. Blank texts are left out. Raises DataError if nothing is left, or if a source cannot
    be read.
    """
    unique: dict[str, None] = {}
    problems: list[Problem] = []
    for source in sources:
        if _is_text_file(source):
            unique |= dict.fromkeys(_lines(Path(source), problems))
            continue
        wanted = Wanted(("train",), columns=(text_columns or ()) if training else None)
        tables, missing = read_source(source, wanted, None)
        problems += missing
        for table in tables.values():
            problems += table.problems
            unique |= dict.fromkeys(_cells(with_fields(table, text_columns or ()), text_columns, problems))
    named = ", ".join(map(described_source, sources))
    _refuse(named, problems)
    texts = [text for text in unique if text]
    if not texts:
        raise DataError(
            f"{named or 'No source'} holds no text.",
            expected="files of texts: .txt with one a line, or tables with a column of text",
            remedy="check the paths, or name the columns with --text-columns",
        )
    return _rows({"text": texts}, TEXTS, 0)


def _is_text_file(source: Source) -> bool:
    """Whether the source is an existing path that ends in .txt. ``read_source`` reports faults of other sources."""
    try:
        return is_path(source) and Path(source).suffix.lower() == ".txt" and Path(source).exists()
    except (OSError, ValueError):
        return False


def _lines(path: Path, problems: list[Problem]) -> list[str]:
    try:
        if fault := not_a_file(path):
            problems.append(Problem(str(path), fault))
            return []
        # Lines end at \n, \r or both, but not at U+2028, where str.splitlines would split too.
        return [line.strip() for line in io.StringIO(text_of(path.read_bytes()), newline=None)]
    except UnreadableError as error:
        problems.append(Problem(str(path), str(error), error.row))
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read: {system_reason(error)}"))
    return []


def _cells(table: Table, named: tuple[str, ...] | None, problems: list[Problem]) -> list[str]:
    if not table.columns:
        return []
    if named is not None:
        problems += missing_columns(table, named)
        columns = [name for name in named if name in table.columns]
    else:
        no_texts = {
            *label_candidates(table.columns),
            *filter(is_ignored, table.columns),
        }
        columns = [
            name
            for name in table.columns
            if name not in no_texts and holds_text(table, name) and not wordless(table.columns[name])
        ]
    return [cell.strip() for name in columns for cell in table.columns[name] if isinstance(cell, str)]


def _rows(columns: dict[str, list[str]], task: Task, first_index: int) -> Dataset:
    count = len(next(iter(columns.values())))
    return prepared({**columns, "label": [task.no_label] * count}, task, first_index)


def _refuse(source: str, problems: list[Problem]) -> None:
    if problems:
        raise with_problems(f"The texts of {source} have", problems, _REMEDY)
