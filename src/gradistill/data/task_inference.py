"""Inference of the task of one table: its columns and labels. It is an error if they are not certain."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradistill.data.cell_checks import is_missing, missing_columns, number, shown
from gradistill.data.column_names import LABEL_COLUMNS
from gradistill.data.data_choice import DataChoice, LabelKind
from gradistill.data.label_matching import Outputs
from gradistill.data.multilabel import flag_names, flat_labels, refuse_idle_separator, several_labels
from gradistill.data.table import Table
from gradistill.data.tasks import Task, inferred_task, label_key
from gradistill.data.text_columns import TextChoice, find_text_columns, label_candidates
from gradistill.data.token_labels import bio_names, find_tags, find_words
from gradistill.errors import DataError, Problem

MOST_CLASSES = 50
_CODE = re.compile(r"[+-]?0\d+", re.ASCII)


@dataclass(frozen=True)
class Inferred:
    """The task of a table, its label column, and the reasons why other columns are no texts."""

    task: Task
    label_column: str
    left_out: Mapping[str, str]


def infer_task(table: Table, choice: DataChoice, outputs: Outputs | None = None) -> Inferred:
    """The task of ``table``. Raises DataError if it is not certain.

    ``outputs`` are those of the model that the rows are read for; the rows may lack some of its classes.
    """
    named = (*(choice.columns or ()), *((choice.label,) if choice.label else ()))
    if problems := missing_columns(table, named):
        raise DataError(f"{table.file} lacks columns that were named.", problems=problems)
    if (tagged := words_and_tags(table, choice)) is not None:
        words, tags = tagged
        left_out = {name: "neither words nor their tags" for name in table.columns if name not in tagged}
        task = inferred_task((words,), bio_names(table, tags, outputs), choice.name, token_labels=True)
        return Inferred(task, tags, left_out)
    label_column = choice.label or find_label_column(table)
    if choice.kind in ("classes", "scores"):
        refuse_other_kind(table, label_column, choice.kind)
    labels = _names_of_several(table, label_column, choice, outputs)
    several = labels is not None
    labels = labels or find_labels(table, label_column, choice.kind, outputs)
    texts = TextChoice(choice.columns, {}) if choice.columns else find_text_columns(table, label_column)
    task = inferred_task(texts.texts, labels, choice.name, multi_label=several)
    return Inferred(task, label_column, texts.left_out)


def words_and_tags(table: Table, choice: DataChoice) -> tuple[str, str] | None:
    """The columns of words and of their tags; None for another kind of task."""
    if choice.kind not in (None, "tokens"):
        return None
    words = find_words(table, choice.columns)
    tags = None if words is None else find_tags(table, words, choice.label)
    if words is not None and tags is not None:
        return words, tags
    if choice.kind == "tokens":
        raise DataError(
            f"{table.file} has no column of {'tags' if words else 'lists of words'}. Its columns: "
            f"{', '.join(map(shown, table.columns))}.",
            expected="a list of words (tokens) and a list of as many tags (tags) in every row",
            remedy="name them with --text-columns and --label-column (text_columns= and label_column= in Python)",
        )
    return None


def _names_of_several(
    table: Table, column: str, choice: DataChoice, outputs: Outputs | None
) -> tuple[str, ...] | None:
    """The names of the labels of a column with several labels a row; None for one label a row."""
    parts = several_labels(table, column, choice.label_separator)
    if parts is None:
        if choice.kind == "multi_label":
            raise DataError(
                f"{table.file}, column {column!r}: no row has a list of labels.",
                expected="lists of labels, vectors of flags, or labels with a separator between",
                remedy='name the separator, as in --label-separator ";", or the columns of flags with --label-columns',
            )
        return None
    if parts.form.flags:
        return flag_names(table, column, parts)
    labels = flat_labels(table, column, parts)
    if choice.label_separator is not None:
        known = {label_key(name) for name in (*outputs.names, *outputs.label_map)} if outputs else set()
        if not known.issuperset(map(label_key, labels.columns[column])):
            refuse_idle_separator(table, column, choice.label_separator)
    return find_labels(labels, column, "classes", outputs)


def find_label_column(table: Table) -> str:
    """The only column with a usual name of labels. Raises DataError if there are none or several."""
    candidates = label_candidates(table.columns)
    if len(candidates) == 1:
        return candidates[0]
    several = f"several columns that may be the label: {', '.join(candidates)}"
    none = f"no column that is named like a label. Its columns: {', '.join(map(shown, table.columns))}"
    raise DataError(
        f"{table.file} has {several if candidates else none}.",
        expected=f"exactly one of {', '.join(LABEL_COLUMNS)}",
        remedy="name the label's column with --label-column (label_column= in Python)",
    )


def refuse_other_kind(table: Table, column: str, kind: str) -> None:
    """Raise DataError for lists of labels if the ``kind`` of the task has one label, or a score, a row."""
    if kind in ("multi_label", "tokens") or (parts := several_labels(table, column)) is None:
        return
    row = next(row for row, cell in enumerate(parts.cells) if isinstance(cell, tuple))
    cell = table.columns[column][row]
    raise DataError(
        f"{table.file}, row {table.lines[row]}, column {column!r}: {shown(cell)} are several labels, and the task has "
        f"{kind}, one a row.",
        expected="one label a row: a word, a number, or a score",
        remedy="leave --kind or --task out, which makes it a task of several labels a row; another column can be "
        "named with --label-column (label_column= in Python)",
    )


def find_labels(
    table: Table, column: str, kind: LabelKind | None = None, outputs: Outputs | None = None
) -> tuple[str, ...] | None:
    """The class names in the order of their ids, or None for scores. Raises DataError if they are not certain.

    If one number is not whole, the labels are scores. Whole numbers are classes in ascending order, words are classes
    in alphabetical order. If one is a text such as 01, all are words and stay as they are. In a column mostly of
    numbers, or of scores, any other value is a fault of its row. With a ``kind`` numbers are of that kind, whatever
    they look like.

    With ``outputs`` the rows are read for a model. Numbers are then scores if it predicts a score. Its other classes
    are added to those of the data, which may have only one.
    """
    if kind != "scores" and column in table.class_names:
        return table.class_names[column]
    present = [value for value in table.columns[column] if not is_missing(value)]
    read = [(value, n) for value in present if (n := number(value)) is not None]
    numbers = [n for _, n in read]
    finite = [n for n in numbers if math.isfinite(n)]
    whole = all(n.is_integer() for n in finite)
    if kind == "scores" or (not whole and kind is None):
        if outputs is None and len({*finite}) == 1 < len(finite) == len(table.lines):
            raise DataError(
                f"{table.file}, column {column!r}: every score is {finite[0]:g}.",
                expected="two different scores or more",
                remedy="name another column with --label-column, or load more rows",
            )
        return None
    codes = any(isinstance(value, str) and _CODE.fullmatch(value.strip()) for value in present)
    words = codes or not finite or 2 * len(numbers) <= len(present) or not whole
    keys = {label_key(value): n for value, n in read if math.isfinite(n)}
    counted = tuple(sorted(keys, key=lambda key: (keys[key], len(key), key)))
    if outputs is not None and outputs.score and kind is None and not words:
        return None
    labels = _words(table, column, present) if words else counted
    if outputs is not None and labels and (completed := outputs.completed(labels)):
        return completed
    _refuse_doubtful(table, column, labels, len(present), words=words or kind is not None)
    return labels


def are_words(labels: Sequence[str] | None) -> bool:
    """Whether classes have names and not only numbers. Inferred names are in alphabetical order."""
    return labels is not None and any(number(label) is None for label in labels)


def _words(table: Table, column: str, values: Sequence[object]) -> tuple[str, ...]:
    spellings: dict[str, Counter[str]] = {}
    for value in values:
        word = str(value).strip() if isinstance(value, str) else label_key(value)
        spellings.setdefault(label_key(value), Counter())[word] += 1
    if several := [words for words in spellings.values() if len(words) > 1]:
        listed = [", ".join(f"{shown(word)} ({n:,})" for word, n in words.most_common()) for words in several]
        raise DataError(
            f"{table.file} has labels in several spellings:",
            problems=[
                Problem(table.file, f"one label, with its rows: {words}", column=column) for words in listed
            ],
            expected="labels that differ in more than letter case and invisible characters",
            remedy="write each of them in one way",
        )
    return tuple(sorted(word for words in spellings.values() for word in words))


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
