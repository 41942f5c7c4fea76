"""From a table to the rows of a prepared split; problems of the rows are collected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
from datasets import Dataset, Features, List, Value

from gradistill.data.arrow_tables import as_dataset
from gradistill.data.cell_checks import class_ids, is_missing, missing_columns, scores, text_problems
from gradistill.data.cells import as_cells
from gradistill.data.marked_spans import Units, spans
from gradistill.data.multilabel import ListForm, label_flags
from gradistill.data.table import Table
from gradistill.data.tasks import Task
from gradistill.data.token_labels import tag_ids, word_problems
from gradistill.errors import DataError, Problem, check_one_of

CARRIED = "column: "
"""Prefix for the name of a column that rows carry in addition to what models read."""


@dataclass(frozen=True)
class Marks:
    """A column of spans that mark passages of the texts (``data.marked_spans``), and the units they count."""

    column: str
    units: Units = "characters"

    def __post_init__(self) -> None:
        check_one_of(self, "units", get_args(Units))


@dataclass(frozen=True)
class LabelColumn:
    """The label column, and how it writes several labels a row.

    ``separator`` is the text between labels. ``form`` is the form of lists of labels, if another split determines it.
    """

    name: str
    separator: str | None = None
    form: ListForm | None = None


def incomplete_rows(
    table: Table,
    texts: Sequence[str],
    label: LabelColumn | None,
    *,
    lacks_label: Callable[[object], bool] = is_missing,
) -> set[int]:
    """The indices of the rows that lack one of the ``texts`` or, if ``label`` is given, the label.

    ``lacks_label`` is the check for a missing label. An empty list of words is a missing text. An empty list of labels
    is a label, and so is a blank cell where labels have a separator.

    Example: ``incomplete_rows(Table("a.csv", {"text": ["", "fine"]}, [2, 3]), ["text"], None)`` gives ``{0}``
    """
    lacking = {
        row for name in texts for row, cell in enumerate(table.columns.get(name, ()))
        if is_missing(cell) or (isinstance(cell, list | tuple) and not cell)
    }  # fmt: skip
    labels = table.columns.get(label.name, ()) if label is not None and label.separator is None else ()
    return lacking | {row for row, cell in enumerate(labels) if lacks_label(cell)}


def checked_columns(
    table: Table,
    task: Task,
    label: LabelColumn | None,
    marks: Marks | None,
    carried: Sequence[str],
) -> tuple[dict[str, Sequence[Any]], list[Problem]]:
    """The columns of a prepared split, and all their problems. Rows without a label are left out.

    Without a ``label`` column every row stays, with the task's value for no label.
    """
    if not table.columns:
        return {}, []
    label_column = label.name if label else None
    needed = task.text_columns if label_column is None else (*task.text_columns, label_column)
    problems = missing_columns(table, needed)
    present = [name for name in task.text_columns if name in table.columns]
    checked = word_problems if task.token_labels else text_problems
    problems += [problem for name in present for problem in checked(table, name)]
    if label_column is None:
        labels: Sequence[Any] = [task.no_label] * len(table.lines)
    elif label is not None and label_column in table.columns:
        labels, faults = _read_labels(table, label, task)
        problems += faults
    else:
        return {}, problems
    kept = [i for i, value in enumerate(labels) if value is not None]
    if not kept and not problems and not table.problems:
        what = "no row has a label" if table.lines else "no row has all that it needs"
        problems.append(Problem(table.file, what, column=label_column))
    columns: dict[str, Sequence[Any]] = {name: as_cells(table.columns[name]).take(kept) for name in present}
    if marks is not None and not problems:
        columns["spans"], faults = spans(table, marks.column, task, kept, marks.units)
        problems += faults
    for name in filter(table.columns.__contains__, carried):
        cells = as_cells(table.columns[name]).take(kept)
        columns[CARRIED + name] = [None if is_missing(cell) else str(cell) for cell in cells]
    return {**columns, "label": [labels[i] for i in kept]}, problems


def _read_labels(table: Table, label: LabelColumn, task: Task) -> tuple[Sequence[Any], list[Problem]]:
    if task.token_labels:
        return tag_ids(table, task.text_columns[0], label.name, task)
    if task.multi_label:
        return label_flags(table, label.name, task, label.separator, label.form)
    return scores(table, label.name) if task.labels is None else class_ids(table, label.name, task)


def _label_feature(task: Task) -> Any:
    if task.token_labels:
        return List(Value("int64"))
    if task.multi_label:
        return List(Value("float32"), length=task.num_labels)
    return Value("float32" if task.labels is None else "int64")


def prepared(columns: Mapping[str, Sequence[Any]], task: Task, first_index: int = 0) -> Dataset:
    """Columns of texts and ``label`` as the rows of a prepared split, numbered from ``first_index``."""
    features = Features(
        {name: List(Value("string")) if task.token_labels else Value("string") for name in task.text_columns}
        | {"label": _label_feature(task), "index": Value("int64")}
        | ({"spans": List(List(Value("int64")))} if "spans" in columns else {})
        | {name: Value("string") for name in columns if name.startswith(CARRIED)}
    )
    columns = {**columns, "index": range(first_index, first_index + len(columns["label"]))}
    arrays = [as_cells(columns[field.name]).arrow(field.type) for field in features.arrow_schema]
    return as_dataset(pa.Table.from_arrays(arrays, schema=features.arrow_schema))


def with_problems(what: str, problems: list[Problem], remedy: str) -> DataError:
    """A DataError that counts the problems and lists them."""
    count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    return DataError(f"{what} {count}:", problems=problems, remedy=remedy)
