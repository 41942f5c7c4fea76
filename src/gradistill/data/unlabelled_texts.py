"""Texts without labels: rows of a task that nobody labelled, and any texts at all to pre-train on."""

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
from gradistill.data.text_columns import IGNORED_COLUMNS, holds_text, label_candidates, wordless
from gradistill.data.transfer_rows import CHANGE, COPY, ROW, WORDS
from gradistill.errors import DataError, Problem
from gradistill.io import system_reason

TEXTS = Task("texts", ("text",), ("none", "some"), ("accuracy",), "accuracy")
"""Texts of no task. Nobody reads its labels."""

_REMEDY = "correct these and start again (rows are lines of the file, the header is row 1)"


class Unlabelled(NamedTuple):
    """Rows without labels. ``words_changed``: whether ``gradistill augment`` made some of them of other rows, by other
    words. ``incomplete`` counts rows without a text that were left out."""

    rows: Dataset
    words_changed: bool
    incomplete: int = 0


def load_unlabelled(
    source: Source, task: Task, *, split: str = "unlabelled", first_index: int = 0
) -> Dataset:
    """Rows of a task without labels, numbered from ``first_index``; a label column that is there is not read.

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
    """What ``load_unlabelled`` returns, and whether some of the rows are changed copies. ``skip_incomplete`` leaves out
    rows without a text, which are refused else. Of one table that a column divides into splits, the ``split`` "train"
    is its training rows; any other name is that of all rows."""
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
    """Whether rows have what ``gradistill augment`` writes beside the texts of a copy, by its changes where they are
    known."""
    beside = {ROW, COPY, CHANGE} - set(task.text_columns)
    return beside <= table.columns.keys() and (CHANGE not in beside or WORDS in table.columns[CHANGE])


def load_texts(
    sources: Sequence[Source], *, text_columns: tuple[str, ...] | None = None, training: bool = False
) -> Dataset:
    """All different texts of files (.txt with one a line, or tables), of folders, hub ids and objects with ``train``.

    Of one table that a column divides into splits all rows, with ``training`` those of training alone.
    Of a table, each cell of each column of text is one: of ``text_columns``, or of all that are neither numbers nor
    called like a label or a row's number. Blank ones are left out. Raises DataError where nothing is left, or a
    source cannot be read.
    """
    found: dict[str, None] = {}
    problems: list[Problem] = []
    for source in sources:
        if _is_text_file(source):
            found |= dict.fromkeys(_lines(Path(source), problems))
            continue
        wanted = Wanted(("train",), columns=(text_columns or ()) if training else None)
        tables, missing = read_source(source, wanted, None)
        problems += missing
        for table in tables.values():
            problems += table.problems
            found |= dict.fromkeys(_cells(with_fields(table, text_columns or ()), text_columns, problems))
    named = ", ".join(map(described_source, sources))
    _refuse(named, problems)
    texts = [text for text in found if text]
    if not texts:
        raise DataError(
            f"{named or 'No source'} holds no text.",
            expected="files of texts: .txt with one a line, or tables with a column of text",
            remedy="check the paths, or name the columns with --text-columns",
        )
    return _rows({"text": texts}, TEXTS, 0)


def _is_text_file(source: Source) -> bool:
    """Whether it is a path that ends in .txt; what is wrong with any other is for ``read_source``."""
    try:
        return is_path(source) and Path(source).suffix.lower() == ".txt" and Path(source).exists()
    except (OSError, ValueError):
        return False


def _lines(path: Path, problems: list[Problem]) -> list[str]:
    try:
        if fault := not_a_file(path):
            problems.append(Problem(str(path), fault))
            return []
        # Lines end as in any file, and not at U+2028, as those of splitlines do.
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
            *(n for n in table.columns if n.casefold() in IGNORED_COLUMNS),
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
