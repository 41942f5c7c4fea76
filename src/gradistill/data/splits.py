"""From a path, a hub id or an object to checked rows. All faults of all files are found before any is raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value

from gradistill.data.arrow_tables import as_dataset
from gradistill.data.cells import as_cells
from gradistill.data.data_choice import DataChoice
from gradistill.data.data_source import Source, data_name
from gradistill.data.label_names import Outputs
from gradistill.data.marked_spans import Units, spans
from gradistill.data.overlap import overlap, overlap_line, texts_of
from gradistill.data.several_labels import joined_labels, label_flags, with_flag_columns
from gradistill.data.split_tables import Wanted, read_source
from gradistill.data.table import Table, nested_names, with_fields
from gradistill.data.task_inference import (
    Inferred,
    are_words,
    infer_task,
    refuse_other_kind,
)
from gradistill.data.tasks import TASKS, Task, get_task, inferred_task, label_key, metric_title
from gradistill.data.text_columns import (
    IGNORED_COLUMNS,
    find_text_columns,
    holds_text,
    label_candidates,
    label_dependence,
    wordless,
)
from gradistill.data.token_labels import find_tags, find_words, tag_ids, word_problems
from gradistill.data.validation import (
    UNKNOWN_LABEL,
    class_ids,
    incomplete_rows,
    is_hidden,
    is_missing,
    missing_columns,
    number,
    scores,
    text_problems,
)
from gradistill.data.validation_share import divided
from gradistill.errors import DataError, Problem, RecipeError, check_one_of
from gradistill.printing import printable

_REMEDY = (
    "correct these and start again (rows are lines of the file, the header is row 1; records for Parquet, JSON lists, "
    "objects and the hub); other columns can be named with --text-columns and --label-column"
)
MANY_INCOMPLETE = 0.1
"""A larger share of rows without a text or a label is warned of, where they are left out."""
_AFFIRMATIVE = (("0", "1"), ("no", "yes"), ("false", "true"), ("negative", "positive"), ("neg", "pos"))
"""Names of two classes, of which the second is what people ask for."""
CARRIED = "column: "
"""In front of the name of a column that rows carry beside what models read."""


@dataclass(frozen=True)
class Marks:
    """A column of spans that mark passages of the texts (``data.marked_spans``), and what they count."""

    column: str
    units: Units = "characters"

    def __post_init__(self) -> None:
        check_one_of(self, "units", get_args(Units))


@dataclass(frozen=True)
class _LabelColumn:
    """Where the label is, and what stands between several labels of a row in text."""

    name: str
    separator: str | None = None


@dataclass(frozen=True)
class Splits:
    """Checked rows by split. Each has the task's text columns, ``label`` and ``index``.

    ``label`` is a class id (int64), a score (float32), a 0 or 1 for each of several labels (a list of float32), or the
    ids of the tags of the row's words (a list of int64), whose text is a list of words;
    ``index`` is the row number from 0. ``label_column`` is what the label is called at the source.
    ``skipped`` counts rows left out by ``task.skip_unlabelled``, ``incomplete`` those left out by ``skip_incomplete``.
    In the splits ``without_labels`` the label is ``task.no_label``. ``notes`` are what else people should read about a
    split: where it comes from, if that is not obvious. ``left_out`` holds the reasons why columns of an inferred task
    are no texts. ``alphabetical`` is set where the order of the classes is ours and not the source's. ``remarks`` and
    ``warnings`` are sentences for people. ``overlap`` counts validation rows that are training rows, where both splits
    were read (``data.overlap``).
    """

    task: Task
    inferred: bool
    rows: Mapping[str, Dataset]
    label_column: str = "label"
    skipped: Mapping[str, int] = field(default_factory=dict)
    incomplete: Mapping[str, int] = field(default_factory=dict)
    without_labels: frozenset[str] = frozenset()
    notes: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    alphabetical: bool = False
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    overlap: Mapping[str, Any] | None = None

    def describe(self) -> str:
        """What was loaded, for people: task, columns, labels with their counts, rows."""
        task = self.task
        kind = "regression" if task.labels is None else f"classification, {task.num_labels} classes"
        kind = f"{task.num_labels} labels, any number of them a row" if task.multi_label else kind
        kind = f"words with one of {task.num_labels} tags each" if task.token_labels else kind
        lines = [
            f"task: {task.name} ({kind}{', inferred from the data' if self.inferred else ''}{self._other_kind()})",
            f"text: {', '.join(map(printable, task.text_columns))}",
            *self._no_texts(),
            f"label: {printable(self.label_column) or 'none'}",
            f"metrics: {', '.join(map(self._metric, task.metrics))}",
        ]
        for split in dict.fromkeys((*self.rows, *self.notes)):
            parts = [printable(self.notes[split])] if split in self.notes else []
            if (rows := self.rows.get(split)) is not None:
                skipped = f", {n} unlabelled left out" if (n := self.skipped.get(split, 0)) else ""
                skipped += _left_out(self.incomplete.get(split, 0))
                parts = [f"{len(rows)} rows{skipped}", *parts, self._label_summary(split, rows)]
            lines.append(f"{printable(split)}: {'; '.join(parts)}")
        if "validation" in self.rows:
            line = overlap_line(self.overlap, "validation", self.rows["validation"], task.text_columns)
            lines += [line] if line else []
        lines += [f"note: {printable(remark)}" for remark in self.remarks]
        lines += [f"WARNING: {printable(warning)}" for warning in self.warnings]
        return "\n".join(lines)

    def _metric(self, name: str) -> str:
        title = metric_title(name, self.task.positive_label and printable(self.task.positive_label))
        return f"{title} (selects the best checkpoint)" if name == self.task.select else title

    def _no_texts(self) -> list[str]:
        named = [f"{printable(name)} ({reason})" for name, reason in self.left_out.items()]
        more = f" and {len(named) - 10} columns more" if len(named) > 10 else ""
        return [f"not text: {', '.join(named[:10])}{more}"] if named else []

    def _other_kind(self) -> str:
        """The option that reads the labels otherwise, where that is possible."""
        labels = self.task.labels
        if not self.inferred or (labels is not None and any(number(label) is None for label in labels)):
            return ""
        read, other = ("scores", "classes") if labels is None else ("classes", "scores")
        return f"; the label's numbers are read as {read}, --kind {other} changes that"

    def _label_summary(self, split: str, rows: Dataset) -> str:
        if split in self.without_labels:
            return "no labels: accuracy and other figures that need them are left out"
        if self.task.token_labels:
            return self._tag_summary(rows)
        labels = np.asarray(rows.with_format("numpy")["label"])
        if self.task.labels is None:
            return f"scores from {labels.min():g} to {labels.max():g}"
        if self.task.multi_label:
            counts = labels.sum(axis=0).astype(int)
        else:
            counts = np.bincount(labels, minlength=self.task.num_labels)
        named = [f"{printable(name)}: {n}" for name, n in zip(self.task.labels, counts, strict=True)]
        what = "labels" if self.task.multi_label else "classes"
        more = f" and {len(named) - 10} {what} more" if len(named) > 10 else ""
        bare = int((labels.sum(axis=1) == 0).sum()) if self.task.multi_label else 0
        absent = int((counts == 0).sum())
        notes = (f"; no row has {absent} of the {len(counts)} {what}" if absent else "",
                 f"; {bare} rows with no label" if bare else "")  # fmt: skip
        return ", ".join(named[:10]) + more + "".join(notes)

    def _tag_summary(self, rows: Dataset) -> str:
        """The words, and the spans of each type: those that a tag begins, the tags being BIO2."""
        counts = np.bincount(np.concatenate(rows["label"][:]), minlength=self.task.num_labels)
        named = zip(self.task.labels or (), counts, strict=True)
        kinds = [f"{printable(name[2:])}: {n}" for name, n in named if name[:2] == "B-"]
        more = f" and {len(kinds) - 10} types more" if len(kinds) > 10 else ""
        return f"{counts.sum()} words; spans of {', '.join(kinds[:10])}{more}"


def load_splits(
    source: Source,
    *,
    splits: tuple[str, ...] = ("train", "validation"),
    span_column: str | None = None,
    span_units: Units = "characters",
    **how: Any,
) -> Splits:
    """Read, check and number the rows of ``splits``.

    Parameters:
        ``source``: a folder with one file a split (.csv, .tsv, .json, .jsonl, .parquet; docs/data.md), one such file if
            one split is wanted, a hub id (``glue/sst2``, ``owner/name``, ``owner/name:config``), or an object in
            memory.
        ``splits``: which to read.
        ``span_column``: a column that marks passages of the texts (``data.marked_spans``); the rows then have
            ``spans``.
        ``span_units``: whether spans count ``characters`` or ``words``.
        ``how``: further fields of ``DataChoice``: ``task`` (a name or a ``Task``), ``label_column``, ``text_columns``,
            ``label_columns``, ``label_separator``, ``kind``, ``positive``, ``validation_share``, ``validation_seed``,
            ``skip_incomplete``. Without ``task`` it is inferred from train, or from the first split if train is not
            wanted; a hub id of a known task names it.

    Raises DataError with every unusable row, column and file, and RecipeError for an unknown task.

    Example: ``load_splits("tickets.csv", label_column="category", validation_share=0.1)``
    """
    marks = Marks(span_column, span_units) if span_column is not None else None
    choice = DataChoice(source, **how)
    for name in ("label_map", "unlabelled"):
        if getattr(choice, name) is not None:
            raise RecipeError(
                f"load_splits reads no {name}",
                expected="the other fields of DataChoice",
                remedy="pass it to align_labels" if name == "label_map" else "use load_unlabelled",
            )
    return read_splits(choice, splits, marks=marks)


def read_splits(
    choice: DataChoice,
    splits: tuple[str, ...] = ("train", "validation"),
    *,
    optional: tuple[str, ...] = (),
    marks: Marks | None = None,
    outputs: Outputs | None = None,
    carried: Sequence[str] = (),
) -> Splits:
    """The rows that ``choice`` describes.

    ``optional`` splits are read where they are there with labels; without labels, a note lists them as left out.
    ``outputs`` are those of a model that the rows are read for: they need not have all of its classes, and where it
    allows that, splits without labels are read as well.
    ``carried`` columns are taken for no text; the rows have their values as text, or None, under ``CARRIED`` and the
    name. Raises as ``load_splits`` does.
    """
    given = _given_task(choice)
    tables, problems = read_source(choice.source, _wanted(choice, splits, optional), given)
    texts = choice.columns or (given.text_columns if given else ())
    flags = tuple(choice.label_columns or ())
    names = (*texts, choice.label_column or "", *flags, marks.column if marks else "", *carried)
    whole = {k: with_flag_columns(with_fields(table, names), flags) for k, table in tables.items()}
    _refuse_missing(whole.get(splits[0]), carried)
    hidden = set(carried) - {*texts, choice.label}
    tables = {split: _without(table, hidden) for split, table in whole.items()}
    notes = _set_apart(choice, tables, optional, given)
    problems += [problem for table in tables.values() for problem in table.problems]
    first = tables.get("train" if "train" in tables else splits[0], Table(choice.name))
    unlabelled = None if outputs is None or outputs.labelled else outputs.names
    if (
        given is None
        and unlabelled is not None
        and first.columns
        and _lacks_labels(first, choice, unlabelled)
    ):
        inferred = _task_of_outputs(first, choice, unlabelled)
    elif given is not None:
        tags = _tags_of(first, choice) if given.token_labels else None
        inferred = Inferred(given, choice.label or tags or _label_of(first), {})
        if unlabelled is not None and _lacks_labels(first, choice, unlabelled) and choice.columns is None:
            others = [c for c in first.columns if c not in (*given.text_columns, inferred.label_column)]
            _refuse_possible_labels(first, [name for name in others if _are_outputs(first, name, unlabelled)])
    else:
        inferred = _inferred(first, choice, problems, outputs)
        problems += _other_columns(first, {k: t for k, t in tables.items() if k not in optional})
    task, label = inferred.task, inferred.label_column
    for table in tables.values():
        refuse_other_kind(table, label, task.kind)
    if label in task.text_columns:
        raise DataError(f"The column {label!r} is named both as the label and as a text.", remedy=_REMEDY)
    bare = frozenset(
        k for k, t in tables.items() if unlabelled is not None and _lacks_labels(t, choice, unlabelled)
    )
    way = _LabelColumn(label, choice.label_separator)
    named = None if choice.label_separator is not None else label  # else a blank cell is no label
    incomplete = {
        k: incomplete_rows(t, task.text_columns, None if k in bare else named) for k, t in tables.items()
    }
    kept = {k: whole[k].without(rows if choice.skip_incomplete else ()) for k, rows in incomplete.items()}
    checked = {k: _checked(t, task, None if k in bare else way, marks, carried) for k, t in kept.items()}
    for split, (_, faults) in checked.items():
        problems += _sure(faults, tables[split], first if given is None else None)
    if problems:
        raise _refused(
            choice.name, problems, skippable=not choice.skip_incomplete and any(incomplete.values())
        )
    rows = {split: prepared(columns, task) for split, (columns, _) in checked.items()}
    skipped = {split: len(kept[split].lines) - len(rows[split]) for split in rows}
    left_out = {split: len(tables[split].lines) - len(kept[split].lines) for split in rows}
    if given is None and task.positive_label is not None:
        task = replace(task, positive=_positive(task, rows["train" if "train" in rows else splits[0]]))
    if choice.positive is not None:
        task = task.with_positive(choice.positive)
    found = Splits(
        task, given is None, rows, label, skipped, left_out, bare, notes, inferred.left_out,
        alphabetical=given is None and are_words(task.labels) and label not in first.class_names,
        warnings=(*_doubts(first, task, label), *_many_left_out(tables, left_out)),
    )  # fmt: skip
    found = found if choice.validation_share is None else _with_share(found, choice, splits)
    return replace(found, overlap=_overlap(found.rows, task))


def _refuse_missing(table: Table | None, names: Sequence[str]) -> None:
    if table is not None and table.columns and (problems := missing_columns(table, names)):
        raise DataError(
            f"{table.file} lacks columns that were named.",
            problems=problems,
            remedy="name columns that it has",
        )


def _without(table: Table, names: set[str]) -> Table:
    """The table without columns that are no texts; what is called like a label stays."""
    hidden = names - {*label_candidates(table.columns)}
    return replace(
        table, columns={name: cells for name, cells in table.columns.items() if name not in hidden}
    )


def _overlap(rows: Mapping[str, Dataset], task: Task) -> dict[str, Any] | None:
    if not {"train", "validation"} <= rows.keys():
        return None
    return overlap(*(texts_of(rows[split], task.text_columns) for split in ("validation", "train")))


def _left_out(rows: int) -> str:
    return f", {rows} without a text or a label left out" if rows else ""


def _many_left_out(tables: Mapping[str, Table], left_out: Mapping[str, int]) -> Iterator[str]:
    for split, count in left_out.items():
        if count > MANY_INCOMPLETE * (rows := len(tables[split].lines)):
            yield (
                f"{count} of {rows} {split} rows lack a text or a label and are left out: are the columns those that "
                "are meant?"
            )


def _positive(task: Task, rows: Dataset) -> int:
    """Of two classes the affirmative one; else the one with fewer rows; the second where they have as many, or no row
    has a label."""
    pair = tuple(map(label_key, task.labels or ()))
    for no, yes in _AFFIRMATIVE:
        if {no, yes} == {*pair}:
            return pair.index(yes)
    labels = np.asarray(rows["label"][:], np.int64)
    counts = np.bincount(labels[labels >= 0], minlength=2)
    return 0 if counts[0] < counts[1] else 1


def _doubts(table: Table, task: Task, label: str) -> Iterator[str]:
    """What may be wrong with the columns that were chosen or named."""
    for column in task.text_columns if not task.token_labels else ():
        if reason := label_dependence(table, column, label):
            yield (
                f"the text column {column!r} may give the label away: {reason}. A model that reads it learns nothing "
                "else; name other columns with --text-columns"
            )
        elif reason := wordless(table.columns[column]):
            yield f"the text column {column!r} holds no words: {reason}"
    if task.kind == "classes" and (joined := joined_labels(table, label)):
        yield (
            f"the label {joined[0]!r} looks like several labels in one, and is taken as a class of its own. With "
            f"--label-separator {joined[1]!r} (label_separator= in Python) it is several labels of a row"
        )


def _wanted(choice: DataChoice, splits: tuple[str, ...], optional: tuple[str, ...]) -> Wanted:
    """With a share for validation the training rows are read for it, and must have no validation beside them."""
    if choice.validation_share is None:
        return Wanted(splits, optional)
    if not {"train", "validation"}.intersection(splits):
        raise RecipeError(
            f"validation_share is given for the splits {', '.join(splits)}",
            expected="train or validation among them",
            remedy="leave --validation-share out, or look at --split validation",
        )
    others = (split for split in splits if split not in ("train", "validation"))
    return Wanted(("train", *others), ("validation", *optional))


def _set_apart(
    choice: DataChoice, tables: dict[str, Table], optional: Sequence[str], task: Task | None
) -> dict[str, str]:
    """Take out what is not to be read; notes about that, and about splits by another name."""
    if choice.validation_share is not None and "validation" in tables:
        raise RecipeError(
            f"validation_share is {choice.validation_share:g}, and {choice.name} has a validation split: "
            f"{tables['validation'].file}",
            expected="one of them",
            remedy="leave --validation-share out, or name the training file alone",
        )
    notes = {}
    for split, table in tables.items():
        if (stem := Path(table.file).name.partition(".")[0]) in ("dev", "val", "valid") and stem != split:
            notes[split] = f"from {Path(table.file).name}"
    for split in set(optional).intersection(tables):
        table = tables[split]
        if _tags_of(table, choice):
            continue
        if choice.label or task is not None:
            names = [choice.label or _label_of(table)]
        else:
            names = label_candidates(table.columns)
        if table.columns and _is_unlabelled(table, names, task.labels or () if task else ()):
            notes[split] = f"{len(tables.pop(split).lines)} rows without labels, which are left out"
    return notes


def _is_unlabelled(table: Table, label_columns: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether none of these columns is there, or the only one that is holds no label: nothing, or -1, by which the hub
    hides labels, where none of the known ``labels`` is called so."""
    known = [name for name in label_columns if name in table.columns]
    hides = is_missing if "-1" in map(label_key, labels) else is_hidden
    return not known or (len(known) == 1 and all(map(hides, table.columns[known[0]])))


def _lacks_labels(table: Table, choice: DataChoice, labels: Sequence[str]) -> bool:
    """Whether a split has no label to compare with; a column that was named must be there."""
    if choice.label is not None and choice.label not in table.columns:
        return False
    if _tags_of(table, choice):
        return False
    names = [choice.label] if choice.label else label_candidates(table.columns)
    return _is_unlabelled(table, names, labels)


def _tags_of(table: Table, choice: DataChoice) -> str | None:
    """The column of the words' tags, where the table has words."""
    if choice.kind not in (None, "tokens") or (words := find_words(table, choice.columns)) is None:
        return None
    return find_tags(table, words, choice.label)


def _task_of_outputs(table: Table, choice: DataChoice, outputs: Sequence[str]) -> Inferred:
    """The task that a model solves, for rows without labels: its classes, and the columns of text that are there."""
    named = choice.label or next(iter(label_candidates(table.columns)), "")
    if choice.columns and (problems := missing_columns(table, choice.columns)):
        raise DataError(f"{table.file} lacks columns that were named.", problems=problems)
    if choice.kind == "tokens":
        words = find_words(table, choice.columns)
        if words is None:
            raise _no_words(table, choice)
        task = inferred_task((words,), tuple(outputs), choice.name, token_labels=True)
        return Inferred(replace(task, name=data_name(choice.source)), named, {})
    rest = replace(table, columns={k: v for k, v in table.columns.items() if k != named})
    chosen = None if choice.columns else find_text_columns(rest, named)
    texts = choice.columns or (chosen.texts if chosen else ())
    if choice.columns is None and not named:
        _refuse_possible_labels(
            table, [name for name in rest.columns if _may_be_labels(table, name, outputs)]
        )
    several = choice.kind == "multi_label"
    labels = tuple(outputs) if len(outputs) > 1 else None
    task = inferred_task(texts, labels, choice.name, multi_label=several)
    task = replace(task, name=data_name(choice.source))
    _refuse_other_kind(choice, task)
    return Inferred(task, named, chosen.left_out if chosen else {})


def _no_words(table: Table, choice: DataChoice) -> DataError:
    return DataError(
        f"{table.file} has no column of lists of words{f' called {choice.columns[0]}' if choice.columns else ''}.",
        expected="a list of words (tokens) in every row",
        remedy="name it with --text-columns (text_columns= in Python)",
    )


def _refuse_possible_labels(table: Table, doubtful: Sequence[str]) -> None:
    if doubtful:
        raise DataError(
            f"{table.file} has no column that is called like a label, and {doubtful[0]!r} may be the label.",
            expected="texts without labels, or the name of the label's column",
            remedy=f"name it with --label-column {doubtful[0]}, or the texts with --text-columns",
        )


def _may_be_labels(table: Table, column: str, outputs: Sequence[str]) -> bool:
    """Whether a column holds what a model predicts, or words, no more different ones in many rows."""
    words = {str(word).strip().casefold() for word in table.columns[column]}
    few = 2 <= len(words) <= max(len(outputs), 2) and len(table.lines) >= 4 * len(words)
    return (few and holds_text(table, column)) or _are_outputs(table, column, outputs)


def _are_outputs(table: Table, column: str, outputs: Sequence[str]) -> bool:
    names = {name.casefold() for name in outputs}
    return bool(names) and all(str(word).strip().casefold() in names for word in table.columns[column])


def _with_share(found: Splits, choice: DataChoice, splits: Sequence[str]) -> Splits:
    share, seed = choice.validation_share, choice.validation_seed
    assert share is not None
    whole = found.rows["train"]
    train, validation = divided(whole, found.task, share, seed)
    how = "" if found.task.labels is None else " with the shares of the classes"
    how = " with the shares of each row's rarest label" if found.task.multi_label else how
    how = " with the shares of each row's rarest tag" if found.task.token_labels else how
    lost = "" if "train" in splits else _left_out(found.incomplete.get("train", 0))
    note = f"of {len(whole)} rows{lost}, drawn by seed {seed}{how} (--validation-share {share:g})"
    bare = found.without_labels | ({"validation"} if "train" in found.without_labels else frozenset())
    return replace(
        found,
        rows={
            split: {"train": train, "validation": validation}.get(split, found.rows.get(split))
            for split in dict.fromkeys((*splits, *found.rows))
            if split in splits or split not in ("train", "validation")
        },
        without_labels=bare,
        notes={**found.notes, "validation": note},
    )


def _sure(faults: list[Problem], table: Table, inferred_from: Table | None) -> list[Problem]:
    """Without unknown labels where these were inferred from a broken table: others may hold more of them."""
    unsure = inferred_from is not None and table is not inferred_from and inferred_from.problems
    return [fault for fault in faults if not (unsure and fault.what.startswith(UNKNOWN_LABEL))]


def _refused(source: str, problems: list[Problem], *, skippable: bool = False) -> DataError:
    skip = "; --skip-incomplete (skip_incomplete= in Python) leaves out rows that lack a text or a label"
    return with_problems(f"The data of {source} has", problems, _REMEDY + skip * skippable)


def with_problems(what: str, problems: list[Problem], remedy: str) -> DataError:
    """An error that counts the problems and lists them."""
    count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    return DataError(f"{what} {count}:", problems=problems, remedy=remedy)


def _given_task(choice: DataChoice) -> Task | None:
    task, text_columns = choice.task, choice.columns
    if isinstance(task, str):
        task = get_task(task)
    if task is None and isinstance(choice.source, str):
        task = next((known for known in TASKS.values() if known.source == choice.source), None)
    if task is None:
        return None
    if not isinstance(task, Task):
        raise RecipeError(
            f"task is of the type {type(task).__name__}", expected="a known task's name, or a Task"
        )
    _refuse_other_kind(choice, task)
    if text_columns is None:
        return task
    if len(text_columns) != len(task.text_columns):
        raise DataError(
            f"{len(text_columns)} text columns were named ({', '.join(text_columns)}) for task {task.name!r}.",
            expected=f"{len(task.text_columns)}, standing for {', '.join(task.text_columns)}",
            remedy="name as many, or leave --task out",
        )
    return replace(task, text_columns=text_columns)


def _refuse_other_kind(choice: DataChoice, task: Task) -> None:
    several = choice.label_columns is not None or choice.label_separator is not None
    wanted = "multi_label" if several else choice.kind
    if wanted not in (None, task.kind):
        raise RecipeError(
            f"kind is {wanted!r}, and the task {task.name!r} has {task.kind}",
            expected="a kind that the task has",
            remedy="leave --kind or --task out",
        )


def _label_of(table: Table) -> str:
    """The label column of a known task: ``label``, or else the only one that is called like a label."""
    if "label" in table.columns:
        return "label"
    candidates = label_candidates(table.columns)
    return candidates[0] if len(candidates) == 1 else "label"


def _inferred(table: Table, choice: DataChoice, problems: list[Problem], outputs: Outputs | None) -> Inferred:
    if not table.columns:
        raise _refused(choice.name, problems)
    try:
        found = infer_task(table, choice, outputs)
        return replace(found, task=replace(found.task, name=data_name(choice.source)))
    except DataError as doubt:
        together = [*doubt.problems, *problems]
        remedy = doubt.remedy
        if nested := nested_names(table):
            remedy += f"; fields of objects are named with dots: {', '.join(nested[:10])}"
        raise DataError(doubt.summary, problems=together, expected=doubt.expected, remedy=remedy) from None


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
    table: Table,
    task: Task,
    label: _LabelColumn | None,
    marks: Marks | None,
    carried: Sequence[str],
) -> tuple[dict[str, Sequence[Any]], list[Problem]]:
    """The columns of a prepared split, without rows that have no label, and all that is wrong with them.

    Without a ``label`` column every row stays, and none has a label.
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
    kept = [i for i, found in enumerate(labels) if found is not None]
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


def _read_labels(table: Table, label: _LabelColumn, task: Task) -> tuple[Sequence[Any], list[Problem]]:
    if task.token_labels:
        return tag_ids(table, task.text_columns[0], label.name, task)
    if task.multi_label:
        return label_flags(table, label.name, task, label.separator)
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
