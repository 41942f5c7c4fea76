"""From a path or a hub id to checked rows. All faults of all files are found before any is raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from gradistill.data.checks import UNKNOWN_LABEL, class_ids, missing_columns, scores, text_problems
from gradistill.data.inferring import Inferred, are_words, infer_task, joined_labels, refuse_several_labels
from gradistill.data.overlap import overlap, overlap_line, texts_of
from gradistill.data.reading import Table
from gradistill.data.sources import read_source
from gradistill.data.spans import Units, spans
from gradistill.data.tasks import TASKS, Task, get_task, metric_title
from gradistill.data.text_columns import IGNORED_COLUMNS, label_candidates, label_dependence, wordless
from gradistill.errors import DataError, Problem
from gradistill.printing import printable

_REMEDY = (
    "correct these and start again (rows are lines of the file, the header is row 1; records for Parquet and "
    "the hub); other columns can be named with --text-columns and --label-column"
)


@dataclass(frozen=True)
class Splits:
    """Checked rows by split. Each has the task's text columns, ``label`` and ``index``.

    ``label`` is a class id (int64) or a score (float32); ``index`` is the row number from 0. ``label_column``
    is what the label is called at the source. ``skipped`` counts rows left out by ``task.skip_unlabelled``.
    ``left_out`` says why columns of an inferred task are no texts. ``alphabetical`` is set where the order of the
    classes is ours and not the source's. ``notes`` and ``warnings`` are sentences for people.
    ``overlap`` counts validation rows that are training rows, where both splits were read (``data.overlap``).
    """

    task: Task
    inferred: bool
    rows: Mapping[str, Dataset]
    label_column: str = "label"
    skipped: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    alphabetical: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overlap: Mapping[str, Any] | None = None

    def describe(self) -> str:
        """What was loaded, for people: task, columns, labels with their counts, rows."""
        task = self.task
        kind = "regression" if task.labels is None else f"classification, {task.num_labels} classes"
        lines = [
            f"task: {task.name} ({kind}{', inferred from the data' if self.inferred else ''})",
            f"text: {', '.join(map(printable, task.text_columns))}",
            *self._no_texts(),
            f"label: {printable(self.label_column)}",
            f"metrics: {', '.join(map(self._metric, task.metrics))}",
        ]
        for split, rows in self.rows.items():
            skipped = f", {n} unlabelled left out" if (n := self.skipped.get(split, 0)) else ""
            lines.append(f"{printable(split)}: {len(rows)} rows{skipped}; {self._label_summary(rows)}")
        if "validation" in self.rows:
            line = overlap_line(self.overlap, "validation", self.rows["validation"], task.text_columns)
            lines += [line] if line else []
        lines += [f"note: {printable(note)}" for note in self.notes]
        lines += [f"WARNING: {printable(warning)}" for warning in self.warnings]
        return "\n".join(lines)

    def _metric(self, name: str) -> str:
        title = metric_title(name, self.task.positive_label and printable(self.task.positive_label))
        return f"{title} (selects the best checkpoint)" if name == self.task.select else title

    def _no_texts(self) -> list[str]:
        named = [f"{printable(name)} ({reason})" for name, reason in self.left_out.items()]
        more = f" and {len(named) - 10} columns more" if len(named) > 10 else ""
        return [f"not text: {', '.join(named[:10])}{more}"] if named else []

    def _label_summary(self, rows: Dataset) -> str:
        labels = np.asarray(rows.with_format("numpy")["label"])
        if self.task.labels is None:
            return f"scores from {labels.min():g} to {labels.max():g}"
        counts = np.bincount(labels, minlength=self.task.num_labels)
        named = [f"{printable(name)}: {n}" for name, n in zip(self.task.labels, counts, strict=True)]
        return ", ".join(named[:10]) + (f" and {len(named) - 10} classes more" if len(named) > 10 else "")


def load_splits(
    source: str | Path,
    *,
    task: Task | str | None = None,
    splits: tuple[str, ...] = ("train", "validation"),
    label_column: str | None = None,
    text_columns: tuple[str, ...] | None = None,
    span_column: str | None = None,
    span_units: Units = "characters",
) -> Splits:
    """Read, check and number the rows of ``splits``.

    ``source`` is a folder with one file a split (.csv, .jsonl, .parquet), one such file if one split is asked for, or a
    hub id (``glue/sst2``, ``owner/name``, ``owner/name:config``). Without ``task`` it is inferred from train, or the
    first split if train is not asked for; a hub id of a known task names it. Of two classes that are inferred the rarer
    one is positive. ``label_column`` and ``text_columns`` are
    names in the source. ``span_column`` marks passages of the texts (``data.spans``): the rows then have ``spans``.

    Raises DataError with every unusable row, column and file, and RecipeError for an unknown task.
    """
    given = _given_task(task, source := str(source), text_columns)
    tables, problems = read_source(source, splits, given)
    problems += [problem for table in tables.values() for problem in table.problems]
    first = tables.get("train" if "train" in splits else splits[0], Table(source))
    if given is not None:
        inferred = Inferred(given, label_column or _label_of(first), {})
    else:
        inferred = _inferred(first, label_column, text_columns, source, problems)
        problems += _other_columns(first, tables)
    found, label = inferred.task, inferred.label_column
    for table in tables.values():
        refuse_several_labels(table, label)
    if label in found.text_columns:
        raise DataError(f"The column {label!r} is named both as the label and as a text.", remedy=_REMEDY)
    checked = {
        split: _checked(table, found, label, span_column, span_units) for split, table in tables.items()
    }
    for split, (_, faults) in checked.items():
        problems += _sure(faults, tables[split], first if given is None else None)
    if problems:
        raise _refused(source, problems)
    rows = {split: prepared(columns, found) for split, (columns, _) in checked.items()}
    skipped = {split: len(tables[split].lines) - len(rows[split]) for split in rows}
    if given is None and found.positive_label is not None:
        found = replace(found, positive=_rarer(rows["train" if "train" in rows else splits[0]]))
    return Splits(
        found, given is None, rows, label, skipped, inferred.left_out,
        alphabetical=given is None and are_words(found.labels) and label not in first.class_names,
        warnings=tuple(_doubts(first, found, label)), overlap=_overlap(rows, found),
    )  # fmt: skip


def _overlap(rows: Mapping[str, Dataset], task: Task) -> dict[str, Any] | None:
    if not {"train", "validation"} <= rows.keys():
        return None
    validation, training = (texts_of(rows[split], task.text_columns) for split in ("validation", "train"))
    return overlap(validation, training)


def _rarer(rows: Dataset) -> int:
    """Of two classes the one with fewer rows; the second where they have as many."""
    counts = np.bincount(np.asarray(rows["label"][:], np.int64), minlength=2)
    return 0 if counts[0] < counts[1] else 1


def _doubts(table: Table, task: Task, label: str) -> Iterator[str]:
    """What may be wrong with the columns that were chosen or named."""
    for column in task.text_columns:
        if reason := label_dependence(table, column, label):
            yield (
                f"the text column {column!r} may give the label away: {reason}. A model that reads it learns nothing "
                "else; name other columns with --text-columns"
            )
        elif reason := wordless(table.columns[column]):
            yield f"the text column {column!r} holds no words: {reason}"
    if joined := task.labels and joined_labels(table, label):
        yield (
            f"the label {joined!r} looks like several labels in one. It is taken as a class of its own: several "
            "labels a row are not supported yet"
        )


def _sure(faults: list[Problem], table: Table, inferred_from: Table | None) -> list[Problem]:
    """Without unknown labels where these were inferred from a broken table: others may hold more of them."""
    unsure = inferred_from is not None and table is not inferred_from and inferred_from.problems
    return [fault for fault in faults if not (unsure and fault.what.startswith(UNKNOWN_LABEL))]


def _refused(source: str, problems: list[Problem]) -> DataError:
    return with_problems(f"The data of {source} has", problems, _REMEDY)


def with_problems(what: str, problems: list[Problem], remedy: str) -> DataError:
    """An error that counts the problems and lists them."""
    count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    return DataError(f"{what} {count}:", problems=problems, remedy=remedy)


def _given_task(task: Task | str | None, source: str, text_columns: tuple[str, ...] | None) -> Task | None:
    if isinstance(task, str):
        task = get_task(task)
    if task is None:
        task = next((known for known in TASKS.values() if known.source == source), None)
    if task is None or text_columns is None:
        return task
    if len(text_columns) != len(task.text_columns):
        raise DataError(
            f"{len(text_columns)} text columns were named ({', '.join(text_columns)}) for task {task.name!r}.",
            expected=f"{len(task.text_columns)}, standing for {', '.join(task.text_columns)}",
            remedy="name as many, or leave --task out",
        )
    return replace(task, text_columns=text_columns)


def _label_of(table: Table) -> str:
    """The label column of a known task: ``label``, or else the only one that is called like a label."""
    if "label" in table.columns:
        return "label"
    candidates = label_candidates(table.columns)
    return candidates[0] if len(candidates) == 1 else "label"


def _inferred(
    table: Table,
    label_column: str | None,
    text_columns: tuple[str, ...] | None,
    source: str,
    problems: list[Problem],
) -> Inferred:
    if not table.columns:
        raise _refused(source, problems)
    try:
        return infer_task(table, label_column, text_columns, source)
    except DataError as doubt:
        together = [*doubt.problems, *problems]
        raise DataError(
            doubt.summary, problems=together, expected=doubt.expected, remedy=doubt.remedy
        ) from None


def _other_columns(first: Table, tables: Mapping[str, Table]) -> list[Problem]:
    """Where the columns are guessed from one split, the others must have the same ones."""

    def named(table: Table) -> set[str]:
        return {name for name in table.columns if name.casefold() not in IGNORED_COLUMNS}

    return [
        Problem(
            table.file,
            f"the column is not in {first.file}, by which the task was inferred; name the --task, or remove it",
            column=name,
        )
        for table in tables.values()
        if table.columns
        for name in sorted(named(table) - named(first))
    ]


def _checked(
    table: Table, task: Task, label_column: str, span_column: str | None, span_units: Units
) -> tuple[dict[str, list[Any]], list[Problem]]:
    """The columns of a prepared split, without rows that have no label, and all that is wrong with them."""
    if not table.columns:
        return {}, []
    needed = (*task.text_columns, label_column)
    problems = missing_columns(table, needed)
    present = [name for name in task.text_columns if name in table.columns]
    problems += [problem for name in present for problem in text_problems(table, name)]
    if label_column not in table.columns:
        return {}, problems
    read = scores(table, label_column) if task.labels is None else class_ids(table, label_column, task)
    labels, faults = read
    problems += faults
    kept = [i for i, label in enumerate(labels) if label is not None]
    if not kept and not problems and not table.problems:
        problems.append(Problem(table.file, "no row has a label", column=label_column))
    columns = {name: [table.columns[name][i] for i in kept] for name in present}
    if span_column is not None and not problems:
        columns["spans"], faults = spans(table, span_column, task, kept, span_units)
        problems += faults
    return {**columns, "label": [labels[i] for i in kept]}, problems


def prepared(columns: dict[str, list[Any]], task: Task, first_index: int = 0) -> Dataset:
    """Columns of texts and ``label`` as the rows of a prepared split, numbered from ``first_index``."""
    features = Features(
        {name: Value("string") for name in task.text_columns}
        | {"label": Value("float32" if task.labels is None else "int64"), "index": Value("int64")}
        | ({"spans": List(List(Value("int64")))} if "spans" in columns else {})
    )
    numbers = range(first_index, first_index + len(columns["label"]))
    return Dataset.from_dict({**columns, "index": list(numbers)}, features=features)
