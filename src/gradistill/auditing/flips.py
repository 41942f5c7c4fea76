"""Flip agreement: does the smallest edit that changes the teacher's label also change the student's, to the same label?

Words are removed in the order of their effects on the teacher until its label clearly changes, at most half of them. A
label changes clearly if its logit is ``MARGIN`` above the old one. Closer changes are noise: the teacher in 8 bits
follows half of them. Each edit has a control edit, which removes equally many other words, those with the smallest
effects. Only texts count for which both models agree before the edit. The definition is ours; minimal edits as
explanations of predictions follow Ross et al. 2021 (MiCE, arXiv 2012.13985).
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
"""Margin in logits: the new label is at least e times as probable as the old one."""


@dataclass(frozen=True)
class Edit:
    """The smallest edit that changes the teacher's label on one row, and its control edit.

    ``removed`` masks the removed words of the edit, ``control_removed`` those of the control edit. ``label``,
    ``new_label`` and ``control_label`` are the teacher's class ids for the row, the edit and the control edit.
    """

    row: int
    removed: Bool[np.ndarray, " word"]
    control_removed: Bool[np.ndarray, " word"]
    label: int
    new_label: int
    control_label: int


def flipping_edits(teacher: Predictor, words: Sequence[int], copies_of: CopiesOf) -> list[Edit]:
    """The smallest edits that change the teacher's label, for all rows that have one.

    ``words`` are the rows' numbers of words; rows with fewer than ``MIN_WORDS`` are left out. A row of n words takes
    about ``1.5 n`` predictions.
    """
    rows = [row for row, count in enumerate(words) if count >= MIN_WORDS]
    singles = _predicted(teacher, {row: ~np.eye(words[row], dtype=bool) for row in rows}, copies_of)
    before = {row: int(logits[0].argmax()) for row, logits in singles.items()}
    single = {row: effects(logits[None], np.array([before[row]]))[0] for row, logits in singles.items()}
    kept = {row: _without_first(np.argsort(own, kind="stable"), len(own) // 2) for row, own in single.items()}
    changed: dict[int, tuple[int, int]] = {}  # by row: the number of removed words, and the new label
    for row, logits in _predicted(teacher, kept, copies_of).items():
        labels = logits[1:].argmax(-1)
        ahead = logits[1:].max(axis=-1) - logits[1:, before[row]]
        if (other := np.flatnonzero(ahead >= MARGIN)).size:
            changed[row] = int(other[0]) + 1, int(labels[other[0]])
    controls = {
        row: _control(single[row], kept[row][count - 1], count) for row, (count, _) in changed.items()
    }
    on_control = _predicted(teacher, controls, copies_of)
    return [
        Edit(
            row,
            ~kept[row][count - 1],
            ~controls[row][0],
            before[row],
            label,
            int(on_control[row][1].argmax()),
        )
        for row, (count, label) in changed.items()
    ]


def _control(single: np.ndarray, stays: Bool[np.ndarray, " word"], count: int) -> Kept:
    """A mask of the words that the control edit keeps: it removes, from the words that the edit keeps (``stays``), the
    ``count`` with the smallest effects. One row."""
    sizes = np.where(stays, np.abs(single), np.inf)
    return _without_first(np.argsort(sizes, kind="stable"), count)[-1:]


def _predicted(teacher: Predictor, kept: Mapping[int, Kept], copies_of: CopiesOf) -> dict[int, np.ndarray]:
    predicted = predict_by_row(teacher, kept, copies_of)
    return {row: logits[0] for row, logits in predicted.items()}


def _without_first(order: Int[np.ndarray, " word"], most: int) -> Kept:
    """Masks of the words that are kept when the first, the first two, … ``most`` words of ``order`` are removed."""
    ranks = np.argsort(order, kind="stable")
    return ranks >= np.arange(1, most + 1)[:, None]


def edit_labels(
    student: Predictor, edits: Sequence[Edit], copies_of: CopiesOf, *, heads: Sequence[int] = ()
) -> Int[np.ndarray, "head edit 3"]:
    """A student's labels for each unchanged row, under the edit, and under the control edit."""
    kept = {edit.row: ~np.stack([edit.removed, edit.control_removed]) for edit in edits}
    predicted = predict_by_row(student, kept, copies_of, heads=heads)
    labels = [predicted[edit.row].argmax(-1) for edit in edits]
    return np.stack(labels, axis=1) if labels else np.empty((1 + len(heads), 0, 3), dtype=np.int64)


def flip_columns(labels: Int[np.ndarray, "edit 3"], edits: Sequence[Edit], rows: int) -> Columns:
    """The columns ``flips`` and ``kept`` from a student's labels (``edit_labels`` of one head); NaN if not counted.

    ``flips``: whether the student predicts the teacher's new label under the edit. ``kept``: whether it keeps its label
    under the control edit; rows on which the teacher does not keep its own are not counted. Rows on which student and
    teacher differ before the edit count in neither.
    """
    columns = {name: np.full(rows, np.nan) for name in ("flips", "kept")}
    for edit, (whole, edited, control) in zip(edits, labels, strict=True):
        if whole == edit.label:
            columns["flips"][edit.row] = edited == edit.new_label
            if edit.control_label == edit.label:
                columns["kept"][edit.row] = control == edit.label
    return columns
