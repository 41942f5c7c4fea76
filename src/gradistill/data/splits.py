"""Checked rows by split, and their description for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from gradistill.data.cell_checks import number
from gradistill.data.overlap import overlap_line
from gradistill.data.tasks import Task, metric_title
from gradistill.printing import printable


@dataclass(frozen=True)
class Splits:
    """Checked rows by split. Each has the task's text columns, ``label`` and ``index``.

    ``label`` is a class id (int64), a score (float32), a 0 or 1 for each of several labels (a list of float32), or a
    list of tag ids (int64) for a text that is a list of words. ``index`` is the row number from 0. ``label_column`` is
    the name of the label at the source. ``skipped`` counts rows left out by ``task.skip_unlabelled``, ``incomplete``
    those left out by ``skip_incomplete``. In the splits ``without_labels`` the label is ``task.no_label``. ``notes``
    are sentences about a split, such as where it comes from. ``left_out`` holds the reasons why columns of an inferred
    task are no texts. ``alphabetical`` is True if the classes were sorted by name, and the source gives them no order.
    ``remarks`` and ``warnings`` are sentences for people. ``overlap`` counts validation rows that are training rows
    too, if both splits were read (``data.overlap``). ``split_column`` is the column by which one table was divided.
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
    split_column: str | None = None

    def describe(self) -> str:
        """A description of the data for people: task, columns, labels with their counts, rows."""
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
                skipped += left_out_text(self.incomplete.get(split, 0))
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
        """A note on the option that reads the labels as another kind; empty if that is not possible."""
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
        named = list(zip(map(printable, self.task.labels), counts, strict=True))
        what = "labels" if self.task.multi_label else "classes"
        bare = int((labels.sum(axis=1) == 0).sum()) if self.task.multi_label else 0
        absent = [name for name, n in named if not n]
        notes = (f"; no rows of {_first(absent, 5, what)}" if absent else "",
                 f"; {bare} rows with no label" if bare else "")  # fmt: skip
        return _first([f"{name}: {n}" for name, n in named], 10, what) + "".join(notes)

    def _tag_summary(self, rows: Dataset) -> str:
        """The number of words, and of the spans of each type. In BIO2 each span has one B- tag."""
        counts = np.bincount(np.concatenate(rows["label"][:]), minlength=self.task.num_labels)
        named = zip(self.task.labels or (), counts, strict=True)
        kinds = [f"{printable(name[2:])}: {n}" for name, n in named if name[:2] == "B-"]
        return f"{counts.sum()} words; spans of {_first(kinds, 10, 'types')}"


def _first(parts: Sequence[str], most: int, what: str) -> str:
    """At most so many parts in a line, with the number of the others, which are ``what``."""
    more = f" and {len(parts) - most} {what} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def left_out_text(rows: int) -> str:
    """A note on rows left out by ``skip_incomplete``, to follow the number of rows that stay; empty for 0.

    Example: ``left_out_text(3)``
    """
    return f", {rows} without a text or a label left out" if rows else ""
