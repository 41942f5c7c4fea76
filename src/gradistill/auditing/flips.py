"""Flip agreement: does the smallest change that turns the teacher turn the student as well, and to the same label?

Words are taken away in the order of their effects on the teacher until its label clearly changes, at most half of them.
Clearly: the new label's logit must be ``MARGIN`` above the old one's, for at the boundary even the teacher in 8 bits
follows every second change only. Beside such an edit stands its counterpart: as many other words, those with the
smallest effects, are taken away. Only texts count for which both models agree to begin with. The definition is ours;
minimal edits as explanations of decisions are those of Ross et al. 2021 (MiCE, arXiv 2012.13985).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from gradistill.auditing.per_example import Columns
from gradistill.auditing.predictor import CopiesOf, Predictor, predict_by_row
from gradistill.auditing.response import MIN_WORDS, effects
from gradistill.data.raw_words import Kept

MARGIN = 1.0
"""In logits: the new label is at least e times as probable as the old one."""


@dataclass(frozen=True)
class Edit:
    """What turns the teacher on one row, and its counterpart; labels are class ids of the teacher.

    ``gone`` are the words of the edit, ``least`` as many others, with the smallest effects. ``before`` is the label
    of the row, ``after`` that of the edit, ``beside`` that of the counterpart.
    """

    row: int
    gone: Bool[np.ndarray, " word"]
    least: Bool[np.ndarray, " word"]
    before: int
    after: int
    beside: int


def flipping_edits(teacher: Predictor, words: Sequence[int], copies_of: CopiesOf) -> list[Edit]:
    """The smallest edits that turn the teacher, of all rows that have one.

    ``words`` are the counts of words; rows with fewer than ``MIN_WORDS`` are left out. A row of n words takes about
    ``1.5 n`` predictions.
    """
    rows = [row for row, count in enumerate(words) if count >= MIN_WORDS]
    singles = _predicted(teacher, {row: ~np.eye(words[row], dtype=bool) for row in rows}, copies_of)
    before = {row: int(logits[0].argmax()) for row, logits in singles.items()}
    single = {row: effects(logits[None], np.array([before[row]]))[0] for row, logits in singles.items()}
    some = {row: _without_first(np.argsort(own, kind="stable"), len(own) // 2) for row, own in single.items()}
    turned: dict[int, tuple[int, int]] = {}  # row: how many words go, the label then
    for row, logits in _predicted(teacher, some, copies_of).items():
        labels = logits[1:].argmax(-1)
        ahead = logits[1:].max(axis=-1) - logits[1:, before[row]]
        if (other := np.flatnonzero(ahead >= MARGIN)).size:
            turned[row] = int(other[0]) + 1, int(labels[other[0]])
    least = {row: _least(single[row], some[row][count - 1], count) for row, (count, _) in turned.items()}
    beside = _predicted(teacher, least, copies_of)
    return [
        Edit(row, ~some[row][count - 1], ~least[row][0], before[row], label, int(beside[row][1].argmax()))
        for row, (count, label) in turned.items()
    ]


def _least(single: np.ndarray, stays: Bool[np.ndarray, " word"], count: int) -> Kept:
    """The words that stay when as many as ``count`` of those that stay in the edit go: the ones with the smallest
    effects. One row."""
    sizes = np.where(stays, np.abs(single), np.inf)
    return _without_first(np.argsort(sizes, kind="stable"), count)[-1:]


def _predicted(teacher: Predictor, kept: Mapping[int, Kept], copies_of: CopiesOf) -> dict[int, np.ndarray]:
    found = predict_by_row(teacher, kept, copies_of)
    return {row: logits[0] for row, logits in found.items()}


def _without_first(order: Int[np.ndarray, " word"], most: int) -> Kept:
    """The words that stay when the first, the first two, … of an order go."""
    ranks = np.argsort(order, kind="stable")
    return ranks >= np.arange(1, most + 1)[:, None]


def edit_labels(
    student: Predictor, edits: Sequence[Edit], copies_of: CopiesOf, *, heads: Sequence[int] = ()
) -> Int[np.ndarray, "head edit 3"]:
    """A student's labels of each row as it is, under the edit, and under its counterpart."""
    kept = {edit.row: ~np.stack([edit.gone, edit.least]) for edit in edits}
    found = predict_by_row(student, kept, copies_of, heads=heads)
    labels = [found[edit.row].argmax(-1) for edit in edits]
    return np.stack(labels, axis=1) if labels else np.empty((1 + len(heads), 0, 3), dtype=np.int64)


def flip_columns(labels: Int[np.ndarray, "edit 3"], edits: Sequence[Edit], rows: int) -> Columns:
    """What a student does on the edits (``edit_labels`` of one head); one entry a row, NaN where none counts.

    ``flips``: whether it predicts the teacher's new label too. ``kept``: whether it keeps its label under the
    counterpart; rows on which the teacher does not do not count. Rows on which student and teacher differ to begin
    with count for neither.
    """
    found = {name: np.full(rows, np.nan) for name in ("flips", "kept")}
    for edit, (whole, edited, beside) in zip(edits, labels, strict=True):
        if whole == edit.before:
            found["flips"][edit.row] = edited == edit.after
            if edit.beside == edit.before:
                found["kept"][edit.row] = beside == edit.before
    return found
