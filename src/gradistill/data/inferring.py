"""What kind of task are these rows? Columns and labels, read off one table; doubt is an error that asks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gradistill.data.checks import all_numbers, is_missing, missing_columns, number, shown
from gradistill.data.choice import Kind
from gradistill.data.table import Table
from gradistill.data.tasks import Task, inferred_task, label_key
from gradistill.errors import DataError

LABEL_COLUMNS = ("label", "labels", "gold_label", "target", "class", "score", "similarity")
IGNORED_COLUMNS = ("", "id", "idx", "index", "guid", "uid", "rationale")
"""Never taken for a text; the nameless column is the row number that some tools write first."""
MOST_CLASSES = 50
_NAME_TEXTS = "name the text column, or two of them, with --text-columns (text_columns= in Python)"


def infer_task(
    table: Table,
    label_column: str | None,
    text_columns: tuple[str, ...] | None,
    source: str,
    kind: Kind | None = None,
) -> tuple[Task, str]:
    """The task that ``table`` holds, and its label column. Raises DataError where there is doubt."""
    asked = (*(text_columns or ()), *((label_column,) if label_column else ()))
    if problems := missing_columns(table, asked):
        raise DataError(f"{table.file} lacks columns that were asked for.", problems=problems)
    label_column = label_column or find_label_column(table)
    texts = text_columns or find_text_columns(table, label_column)
    return inferred_task(texts, find_labels(table, label_column, kind), source), label_column


def label_candidates(columns: Iterable[str]) -> list[str]:
    """The columns that are called like a label."""
    return [name for name in columns if name.casefold() in LABEL_COLUMNS]


def find_label_column(table: Table) -> str:
    """The one column that is called like a label; raises DataError if there are none or several."""
    candidates = label_candidates(table.columns)
    if len(candidates) == 1:
        return candidates[0]
    found = f"several columns that may be the label: {', '.join(candidates)}"
    none = f"no column that is called like a label. Its columns: {', '.join(map(shown, table.columns))}"
    raise DataError(
        f"{table.file} has {found if candidates else none}.",
        expected=f"exactly one of {', '.join(LABEL_COLUMNS)}",
        remedy="name the label's column with --label-column (label_column= in Python)",
    )


def find_text_columns(table: Table, label_column: str) -> tuple[str, ...]:
    """The one or two columns of text, in the order of the file; raises DataError if there is doubt."""
    texts = tuple(
        name
        for name in table.columns
        if name != label_column and name.casefold() not in IGNORED_COLUMNS and holds_text(table, name)
    )
    if rivals := label_candidates(texts):
        # It may be the label in words: as a text it would give the answer away.
        raise DataError(f"{table.file}: is {rivals[0]!r} a text, or another label?", remedy=_NAME_TEXTS)
    if len(texts) not in (1, 2):
        found = (
            f"{len(texts)} columns of text: {', '.join(map(shown, texts))}" if texts else "no column of text"
        )
        others = ", ".join(map(shown, table.columns))
        raise DataError(
            f"{table.file} has {found}.",
            expected=f"one or two beside the label {label_column!r}, among the columns {others}",
            remedy=_NAME_TEXTS,
        )
    return texts


def holds_text(table: Table, column: str) -> bool:
    """Whether a column holds texts, and no numbers or ids of classes."""
    values = table.columns[column]
    if not table.typed:
        return not all_numbers(values)
    return column not in table.class_names and any(isinstance(value, str) for value in values)


def find_labels(table: Table, column: str, kind: Kind | None = None) -> tuple[str, ...] | None:
    """The class names in the order of their ids, or None for scores; raises DataError if there is doubt.

    With one number that is no whole number, the labels are scores. Whole numbers are classes in ascending
    order, words are classes in alphabetical order. A column mostly of numbers, or of scores, is one of numbers:
    what else stands there is the fault of its row. With a ``kind`` numbers are that, whatever they look like.
    """
    if kind == "scores":
        return None
    if column in table.class_names:
        return table.class_names[column]
    present = [value for value in table.columns[column] if not is_missing(value)]
    numbers = [n for value in present if (n := number(value)) is not None]
    finite = [n for n in numbers if math.isfinite(n)]
    whole = all(n.is_integer() for n in finite)
    if not whole and kind is None:
        return None
    words = not finite or 2 * len(numbers) <= len(present) or not whole
    counted = tuple(str(int(n)) for n in sorted(set(finite)))
    labels = _words(table, column, present) if words else counted
    _refuse_doubtful(table, column, labels, len(present), words=words or kind is not None)
    return labels


def _words(table: Table, column: str, values: Sequence[object]) -> tuple[str, ...]:
    spellings: dict[str, str] = {}
    for value in values:
        word = str(value).strip() if isinstance(value, str) else label_key(value)
        first = spellings.setdefault(label_key(value), word)
        if first != word:
            raise DataError(
                f"{table.file}, column {column!r}: the labels {shown(first)} and {shown(word)} are one label in "
                "two spellings.",
                expected="labels that differ in more than letter case",
                remedy="write them alike",
            )
    return tuple(sorted(spellings.values()))


def _refuse_doubtful(table: Table, column: str, labels: Sequence[str], rows: int, *, words: bool) -> None:
    place = f"{table.file}, column {column!r}"
    if len(labels) < 2:
        has = f"only the label {shown(labels[0])}" if labels else "no label in any row"
        raise DataError(
            f"{place}: {has}.",
            expected="two classes or more, or scores",
            remedy="name the task with --task, the column with --label-column, or load more rows",
        )
    if len(labels) > MOST_CLASSES and not words:
        raise DataError(
            f"{place}: {len(labels)} different whole numbers. Class ids or scores?",
            expected=f"at most {MOST_CLASSES} class ids, or scores of which one has decimals",
            remedy="choose one: --kind classes or --kind scores (kind= in Python)",
        )
    if len(labels) > MOST_CLASSES and 2 * len(labels) > rows:
        raise DataError(
            f"{place}: {len(labels)} different labels in {rows} rows, which looks like text.",
            expected="classes, each in several rows, or scores",
            remedy="name the label's column with --label-column (label_column= in Python)",
        )
