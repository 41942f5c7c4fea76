"""From a path, a hub id or an object to checked rows. Faults of all files are collected before an error is raised."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from gradistill.data.cell_checks import (
    NO_AND_YES,
    NO_LABEL,
    TRUTH_VALUES,
    UNKNOWN_LABEL,
    is_missing,
    is_no_label,
    missing_columns,
    refuse_missing_columns,
    shown,
    stands_for_nothing,
)
from gradistill.data.checked_rows import (
    LabelColumn,
    Marks,
    checked_columns,
    incomplete_rows,
    prepared,
    with_problems,
)
from gradistill.data.contradictions import contradictory_labels
from gradistill.data.data_choice import DataChoice
from gradistill.data.data_source import Source, data_name
from gradistill.data.label_matching import Outputs
from gradistill.data.marked_spans import Units
from gradistill.data.multilabel import ListForm, joined_labels, several_labels, with_flag_columns
from gradistill.data.overlap import overlap, texts_of
from gradistill.data.split_sources import Wanted, read_source, split_column
from gradistill.data.splits import Splits, left_out_text
from gradistill.data.table import Table, nested_names, with_fields
from gradistill.data.task_inference import (
    Inferred,
    are_words,
    infer_task,
    refuse_other_kind,
)
from gradistill.data.tasks import TASKS, Task, get_task, inferred_task, label_key
from gradistill.data.text_columns import (
    find_text_columns,
    holds_text,
    is_ignored,
    label_candidates,
    label_dependence,
    wordless,
)
from gradistill.data.token_labels import BIO2, find_tags, find_words, scheme_fault
from gradistill.data.validation_share import divided
from gradistill.errors import DataError, Problem, RecipeError

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_REMEDY = (
    "correct these and start again (rows are lines of the file, the header is row 1; records for Parquet, JSON lists, "
    "objects and the hub); other columns can be named with --text-columns and --label-column"
)
MANY_INCOMPLETE = 0.1
"""There is a warning if a larger share of the rows is left out for lack of a text or a label."""
_AFFIRMATIVE = (*TRUTH_VALUES, *NO_AND_YES, ("negative", "positive"), ("neg", "pos"))
"""Names of two classes, of which the second is the positive one."""


def load_splits(
    source: DataChoice | Source,
    *,
    splits: tuple[str, ...] = ("train", "validation"),
    span_column: str | None = None,
    span_units: Units = "characters",
    **how: Any,
) -> Splits:
    """Read, check and number the rows of ``splits``.

    Parameters:
        ``source``: a folder with one file a split (.csv, .tsv, .json, .jsonl, .parquet; docs/data.md), one such file if
            one split is wanted or a column names the split of each row, a hub id (``glue/sst2``, ``owner/name``,
            ``owner/name:config``), an object in memory, or a ``DataChoice`` of these.
        ``splits``: the splits to read.
        ``span_column``: a column that marks passages of the texts (``data.marked_spans``); the rows then have
            ``spans``.
        ``span_units``: whether spans count ``characters`` or ``words``.
        ``how``: further fields of ``DataChoice``: ``task`` (a name or a ``Task``), ``label_column``, ``text_columns``,
            ``label_columns``, ``label_separator``, ``kind``, ``positive``, ``validation_share``, ``validation_seed``,
            ``skip_incomplete``. Without ``task`` it is inferred from train, or from the first split if train is not
            read; a hub id of a known task names it.

    Raises DataError with every unusable row, column and file, and RecipeError for an unknown task.

    Example: ``load_splits("tickets.csv", label_column="category", validation_share=0.1)``
    """
    marks = Marks(span_column, span_units) if span_column is not None else None
    choice = replace(DataChoice.of(source), **how)
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
    """Read the rows that ``choice`` describes.

    ``optional`` splits are read if they exist with labels; without labels, a note lists them as left out. ``outputs``
    are those of the model that the rows are read for: the rows may lack some of its classes, and if ``outputs`` allows
    it, splits without labels are read too. ``carried`` columns are not texts; the rows have their values as text, or
    None, under ``CARRIED`` and the name. Raises as ``load_splits`` does.
    """
    given = _given_task(choice)
    source = _source_of(choice, given, Wanted(splits, optional), marks, carried)
    inferred, bare, problems = _understood(source, choice, given, outputs)
    task, label = inferred.task, inferred.label_column
    written = LabelColumn(label, choice.label_separator, _list_form(source, choice, inferred))
    labels = {k: None if k in bare else written for k in source.tables}
    lacks = is_missing if task.labels is None or task.skip_unlabelled else is_no_label(task.labels)
    lacking = {
        k: incomplete_rows(t, task.text_columns, labels[k], lacks_label=lacks)
        for k, t in source.tables.items()
    }
    kept = {k: t.without(lacking[k] if choice.skip_incomplete else ()) for k, t in source.whole.items()}
    checked = {k: checked_columns(t, task, labels[k], marks, carried) for k, t in kept.items()}
    for split, (_, faults) in checked.items():
        unsure = given is None and split != source.head and bool(source.first.problems)
        problems += [fault for fault in faults if not (unsure and fault.what.startswith(UNKNOWN_LABEL))]
    if problems:
        raise _refused(choice, problems, incomplete=any(lacking.values()))
    rows = {split: prepared(columns, task) for split, (columns, _) in checked.items()}
    if given is None and task.positive_label is not None:
        task = replace(task, positive=_positive(task, rows[source.head]))
    if choice.positive is not None:
        task = task.with_positive(choice.positive)
    loaded = Splits(
        task,
        inferred=given is None,
        rows=rows,
        label_column=label,
        skipped={split: len(kept[split].lines) - len(own) for split, own in rows.items()},
        incomplete={split: len(source.tables[split].lines) - len(kept[split].lines) for split in rows},
        without_labels=bare,
        notes=source.notes,
        left_out=inferred.left_out,
        alphabetical=given is None and are_words(task.labels) and label not in source.first.class_names,
        warnings=tuple(_doubts(source.first, task, label)),
        split_column=source.first.split_column,
    )
    loaded = replace(loaded, warnings=(*loaded.warnings, *_row_warnings(loaded, choice)))
    loaded = loaded if choice.validation_share is None else _with_share(loaded, choice, splits)
    return replace(loaded, overlap=_overlap(loaded.rows, task))


@dataclass(frozen=True)
class _Source:
    """The tables of a source by split: the ``whole`` ones, and ``tables`` without carried columns.

    ``head`` is the split that columns and labels are inferred from, ``first`` its table. ``notes`` are about splits
    that are left out or have another name; ``optional`` splits may be missing.
    """

    whole: Mapping[str, Table]
    tables: Mapping[str, Table]
    head: str
    first: Table
    optional: tuple[str, ...]
    notes: Mapping[str, str]
    problems: Sequence[Problem]


def _source_of(
    choice: DataChoice,
    given: Task | None,
    asked: Wanted,
    marks: Marks | None,
    carried: Sequence[str],
) -> _Source:
    """Read the tables of the splits that are asked for."""
    splits, optional = asked.splits, asked.optional
    texts = choice.columns or (given.text_columns if given else ())
    flags = tuple(choice.label_columns or ())
    names = (*texts, choice.label_column or "", *flags, marks.column if marks else "", *carried)
    read, problems = read_source(choice.source, _wanted(choice, replace(asked, columns=names)), given)
    whole = {k: with_flag_columns(with_fields(table, names), flags) for k, table in read.items()}
    first = whole.get(splits[0])
    if first is not None and first.columns:
        refuse_missing_columns(first, carried)
    hidden = set(carried) - {*texts, choice.label}
    tables = {split: _without(table, hidden) for split, table in whole.items()}
    notes = _set_apart(choice, tables, optional, given)
    problems += [problem for table in tables.values() for problem in table.problems]
    head = "train" if "train" in tables else splits[0]
    first = tables.get(head, Table(choice.name))
    return _Source({k: whole[k] for k in tables}, tables, head, first, optional, notes, problems)


def _understood(
    source: _Source, choice: DataChoice, given: Task | None, outputs: Outputs | None
) -> tuple[Inferred, frozenset[str], list[Problem]]:
    """The task of the rows with its columns, the splits without labels, and the problems so far."""
    first, tables, problems = source.first, source.tables, list(source.problems)
    names = None if outputs is None or outputs.labelled else outputs.names
    bare = frozenset(k for k, t in tables.items() if names is not None and _lacks_labels(t, choice, names))
    if given is not None:
        inferred = _as_given(given, first, choice, names if source.head in bare else None)
    elif names is not None and source.head in bare and first.columns:
        inferred = _task_of_outputs(first, choice, names)
    else:
        inferred = _inferred(first, choice, problems, outputs)
        problems += _other_columns(first, {k: t for k, t in tables.items() if k not in source.optional})
    for table in tables.values():
        refuse_other_kind(table, inferred.label_column, inferred.task.kind)
    if inferred.label_column in inferred.task.text_columns:
        raise DataError(
            f"The column {inferred.label_column!r} is named both as the label and as a text.", remedy=_REMEDY
        )
    return inferred, bare, problems


def _list_form(source: _Source, choice: DataChoice, inferred: Inferred) -> ListForm | None:
    """The form of lists of labels, from the split that labels are inferred from: a short split may not show it."""
    if not inferred.task.multi_label or inferred.label_column not in source.first.columns:
        return None
    parts = several_labels(source.first, inferred.label_column, choice.label_separator)
    return None if parts is None else parts.form


def _without(table: Table, names: set[str]) -> Table:
    """The table without the columns ``names``, except those with a usual name of labels."""
    hidden = names - {*label_candidates(table.columns)}
    return replace(
        table, columns={name: cells for name, cells in table.columns.items() if name not in hidden}
    )


def _overlap(rows: Mapping[str, Dataset], task: Task) -> dict[str, Any] | None:
    if not {"train", "validation"} <= rows.keys():
        return None
    return overlap(*(texts_of(rows[split], task.text_columns) for split in ("validation", "train")))


def _row_warnings(found: Splits, choice: DataChoice) -> Iterator[str]:
    """Warnings about rows that are left out, and rows that contradict others, if they are many.

    With a validation share the rows are not divided yet, so the message names no split.
    """
    for split, rows in found.rows.items():
        rows_name = "rows" if choice.validation_share is not None else f"{split} rows"
        count = found.incomplete.get(split, 0)
        if count > MANY_INCOMPLETE * (total := count + found.skipped[split] + len(rows)):
            yield (
                f"{count} of {total} {rows_name} lack a text or a label and are left out: check the column "
                "names"
            )
        labelled = split not in found.without_labels
        if labelled and (sentence := contradictory_labels(rows, found.task, rows_name)):
            yield sentence


def _positive(task: Task, rows: Dataset) -> int:
    """The positive class of two: the affirmative one, or else the one with fewer rows.

    It is the second one if both have as many rows, or no row has a label.
    """
    pair = tuple(map(label_key, task.labels or ()))
    for no, yes in _AFFIRMATIVE:
        if {no, yes} == {*pair}:
            return pair.index(yes)
    labels = np.asarray(rows["label"][:], np.int64)
    counts = np.bincount(labels[labels >= 0], minlength=2)
    return 0 if counts[0] < counts[1] else 1


_BLANK_CELLS = (
    "leave these cells blank; --skip-incomplete (skip_incomplete= in Python) then leaves out their rows"
)


def _doubts(table: Table, task: Task, label: str) -> Iterator[str]:
    """Warnings about the columns that were chosen or named."""
    for column in task.text_columns if not task.token_labels else ():
        if reason := label_dependence(table, column, label):
            yield (
                f"the text column {column!r} may give the label away: {reason}. A model that reads it learns nothing "
                "else; name other columns with --text-columns"
            )
        elif reason := wordless(table.columns[column]):
            yield f"the text column {column!r} holds no words: {reason}"
    if (marks := split_column(table)) not in (None, label, *task.text_columns):
        yield (
            f"the column {marks!r} marks the splits, and is not read: all rows are used together. Make a folder with a "
            "file of each, train.csv, validation.csv and test.csv"
        )
    for name in filter(stands_for_nothing, task.labels or ()):
        yield (f"{name!r} is read as a label. If it means that there is no label, {_BLANK_CELLS}")
    if task.kind == "classes" and {"-1", "0"} <= set(map(label_key, task.labels or ())):
        yield (f"-1 is read as a class of its own, next to 0. If it marks hidden labels, {_BLANK_CELLS}")
    if task.labels is None and label in table.commas and _are_thousands(written := table.as_written(label)):
        yield (
            f"the scores are read with a decimal comma, {written[0]} as {table.columns[label][0]}. If it groups "
            "thousands, write them without it"
        )
    if task.kind == "classes" and (joined := joined_labels(table, label)):
        yield (
            f"the label {joined[0]!r} looks like several labels in one, and is taken as a class of its own. With "
            f"--label-separator {joined[1]!r} (label_separator= in Python) it is several labels of a row"
        )


def _are_thousands(cells: Sequence[Any]) -> bool:
    """Whether every comma of a column may separate thousands."""
    commas = [cell for cell in cells if "," in str(cell)]
    return bool(commas) and all(_THOUSANDS.fullmatch(str(cell).strip()) for cell in commas)


def _wanted(choice: DataChoice, asked: Wanted) -> Wanted:
    """The splits to read. For a validation share the training rows are read; validation is optional, to refuse it."""
    if choice.validation_share is None:
        return asked
    if not {"train", "validation"}.intersection(asked.splits):
        raise RecipeError(
            f"validation_share is given for the splits {', '.join(asked.splits)}",
            expected="train or validation among them",
            remedy="leave --validation-share out, or look at --split validation",
        )
    others = (split for split in asked.splits if split not in ("train", "validation"))
    return replace(asked, splits=("train", *others), optional=("validation", *asked.optional))


def _set_apart(
    choice: DataChoice, tables: dict[str, Table], optional: Sequence[str], task: Task | None
) -> dict[str, str]:
    """Remove optional splits without labels, and return notes about them and about splits with another name.

    Raises RecipeError for a validation share if there is a validation split.
    """
    if choice.validation_share is not None and "validation" in tables:
        column = tables["validation"].split_column
        raise RecipeError(
            f"validation_share is {choice.validation_share:g}, and {choice.name} has a validation split: "
            + (f"by its column {column!r}" if column else tables["validation"].file),
            expected="one of them",
            remedy=f"leave --validation-share out, or {'that column' if column else 'name the training file alone'}",
        )
    notes = {}
    for split, table in tables.items():
        if table.split_column is not None:
            notes[split] = f"by the column {table.split_column!r}"
        elif (stem := Path(table.file).name.partition(".")[0]) in ("dev", "val", "valid") and stem != split:
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
    """Whether none of these columns exists, or the only one that exists holds no label.

    A cell holds no label if it is missing, or is -1, which the hub writes for hidden labels; -1 is a label if it is one
    of the known ``labels``.
    """
    known = [name for name in label_columns if name in table.columns]
    return not known or (len(known) == 1 and all(map(is_no_label(labels), table.columns[known[0]])))


def _lacks_labels(table: Table, choice: DataChoice, labels: Sequence[str]) -> bool:
    """Whether a split has no labels. False if a named label column is missing, which is an error later."""
    if choice.label is not None and choice.label not in table.columns:
        return False
    if _tags_of(table, choice):
        return False
    names = [choice.label] if choice.label else label_candidates(table.columns)
    return _is_unlabelled(table, names, labels)


def _tags_of(table: Table, choice: DataChoice) -> str | None:
    """The column of the words' tags; None if the table has no words."""
    if choice.kind not in (None, "tokens") or (words := find_words(table, choice.columns)) is None:
        return None
    return find_tags(table, words, choice.label)


def _as_given(task: Task, table: Table, choice: DataChoice, unlabelled: Sequence[str] | None) -> Inferred:
    """A known task with its label column.

    ``unlabelled`` are the classes of a model, if the table has no label column. A column that may be the label is then
    refused.
    """
    tags = _tags_of(table, choice) if task.token_labels else None
    label = choice.label or tags or _label_of(table)
    if unlabelled is not None and choice.columns is None:
        others = [column for column in table.columns if column not in (*task.text_columns, label)]
        _refuse_possible_labels(table, [name for name in others if _are_outputs(table, name, unlabelled)])
    return Inferred(task, label, {})


def _task_of_outputs(table: Table, choice: DataChoice, outputs: Sequence[str]) -> Inferred:
    """The task of a model, for rows without labels: the model's classes, and the text columns of the table."""
    named = choice.label or next(iter(label_candidates(table.columns)), "")
    if choice.columns and (problems := missing_columns(table, choice.columns)):
        raise DataError(f"{table.file} lacks columns that were named.", problems=problems)
    if choice.kind == "tokens":
        words = find_words(table, choice.columns)
        if words is None:
            raise _no_words(table, choice)
        if odd := next((tag for tag in outputs if scheme_fault(tag)), None):
            raise DataError(
                f"The model predicts the tag {shown(odd)}. {scheme_fault(odd)}",
                expected=BIO2,
                remedy="give its labels such names (id2label in config.json)",
            )
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
            f"{table.file} has no column that is named like a label, and {doubtful[0]!r} may be the label.",
            expected="texts without labels, or the name of the label's column",
            remedy=f"name it with --label-column {doubtful[0]}, or the texts with --text-columns",
        )


def _may_be_labels(table: Table, column: str, outputs: Sequence[str]) -> bool:
    """Whether a column holds only outputs of a model, or texts with as few different values in many rows."""
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
    lost = "" if "train" in splits else left_out_text(found.incomplete.get("train", 0))
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


def _refused(choice: DataChoice, problems: list[Problem], *, incomplete: bool = False) -> DataError:
    remedy = _REMEDY
    if incomplete and not choice.skip_incomplete:
        remedy += (
            "; --skip-incomplete (skip_incomplete= in Python) leaves out rows that lack a text or a label"
        )
    if any(NO_LABEL in problem.what for problem in problems):
        remedy += "; where a cell means that there is no label, leave it blank: --skip-incomplete leaves out its row"
    return with_problems(f"The data of {choice.name} has", problems, remedy)


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
            expected=f"{len(task.text_columns)}, in place of {', '.join(task.text_columns)}",
            remedy="name as many, or leave --task out",
        )
    return replace(task, text_columns=text_columns)


def _refuse_other_kind(choice: DataChoice, task: Task) -> None:
    several = choice.label_columns is not None or choice.label_separator is not None
    kind = "multi_label" if several else choice.kind
    if kind not in (None, task.kind):
        raise RecipeError(
            f"kind is {kind!r}, and the task {task.name!r} has {task.kind}",
            expected="a kind that the task has",
            remedy="leave --kind or --task out",
        )


def _label_of(table: Table) -> str:
    """The label column of a known task: ``label``, or else the only one with a usual name of labels."""
    if "label" in table.columns:
        return "label"
    candidates = label_candidates(table.columns)
    return candidates[0] if len(candidates) == 1 else "label"


def _inferred(table: Table, choice: DataChoice, problems: list[Problem], outputs: Outputs | None) -> Inferred:
    if not table.columns:
        raise _refused(choice, problems)
    try:
        inferred = infer_task(table, choice, outputs)
        return replace(inferred, task=replace(inferred.task, name=data_name(choice.source)))
    except DataError as doubt:
        together = [*doubt.problems, *problems]
        remedy = doubt.remedy
        if nested := nested_names(table):
            remedy += f"; fields of objects are named with dots: {', '.join(nested[:10])}"
        raise DataError(doubt.summary, problems=together, expected=doubt.expected, remedy=remedy) from None


def _other_columns(first: Table, tables: Mapping[str, Table]) -> list[Problem]:
    """The problems of columns that ``first`` lacks: if columns are inferred from it, all splits must have the same."""

    def named(table: Table) -> set[str]:
        return {name for name in table.columns if not is_ignored(name)}

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
