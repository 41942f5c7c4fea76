"""Audit figures on texts with changed words: response loyalty, flips, Shapley values.

Words are removed in two ways: replaced by other words of the data, or masked. Figures with replaced words come first.
On masks a model with a random head agrees with its teacher more often (docs/yardstick.md), and with replaced words a
student that was trained on masks has no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradistill.attribution.shapley_weights import shapley_design
from gradistill.auditing.faithfulness import BEAM, ScoresByWord, faithfulness, word_occlusion
from gradistill.auditing.flips import Edit, edit_labels, flip_columns, flipping_edits
from gradistill.auditing.per_example import Columns, StudentColumns, prefixed
from gradistill.auditing.predictor import CopiesOf, Predictor, label_thresholds, predict_by_row
from gradistill.auditing.response import MIN_WORDS, log_odds, response_columns
from gradistill.auditing.signed_agreement import signed_agreement
from gradistill.auditing.statistics import EQUAL
from gradistill.data.changed_copies import draw_coalitions, draw_words, masked_copies, substituted_copies
from gradistill.data.raw_words import Kept, Texts, count_words, word_places, words_of
from gradistill.models.random_head import paired_seeds

RANDOM_HEAD_SEEDS = paired_seeds(16)
"""Seeds of the random heads over which a floor is averaged. The body runs once for all of them, so many heads are
cheap."""

MASKED = "_masked"
"""Suffix of the names of figures with masked words; without it words are replaced."""


@dataclass(frozen=True)
class TextRows:
    """Rows of raw text: the ``texts`` of each row, and the row ``numbers`` that random draws depend on."""

    texts: Sequence[Texts]
    numbers: Sequence[int]

    @property
    def words(self) -> list[int]:
        """The number of words in each row."""
        return [count_words(row) for row in self.texts]


@dataclass(frozen=True)
class Flip:
    """An edit that changes the teacher's label, for display. ``students``: the class id that each student predicts."""

    edit: Edit
    replaced: list[tuple[int, int, int, str]]
    texts: Texts
    students: list[int]


@dataclass(frozen=True)
class ChangedTextComparison:
    """Compares ``teacher`` and ``students`` on changed texts.

    ``pool``: words of the data, from which replacements are drawn. ``neighbours``: for a word its replacement in flips;
    words without a neighbour get a drawn one. ``seed``: random seed of all draws. ``multi_label``: a row may have
    several labels.
    """

    teacher: Predictor
    students: Sequence[Predictor]
    pool: Sequence[str]
    neighbours: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    multi_label: bool = False

    def response(self, rows: TextRows, *, masked: bool = True) -> list[StudentColumns]:
        """The columns of ``response_columns`` of each student. With ``masked``, and if all models can mask words, also
        the columns of masked copies, with names that end in ``_masked``."""
        words = rows.words
        kept = draw_coalitions(words, seed=self.seed, rows=rows.numbers)

        def substituted(row: int, own: Kept) -> list[Any]:
            others = draw_words(self.pool, (len(own), own.shape[1]), self.seed, rows.numbers[row])
            return substituted_copies(rows.texts[row], own, others)

        columns = self._responses(substituted, kept, words, "")
        if masked and self._can_mask:
            others = self._responses(_masks(rows), kept, words, MASKED)
            columns = [one.joined(other) for one, other in zip(columns, others, strict=True)]
        return columns

    def _responses(
        self, copies_of: CopiesOf, kept: Sequence[Kept], words: Sequence[int], suffix: str
    ) -> list[StudentColumns]:
        every = dict(enumerate(kept))
        shares = (1 - own.sum(axis=1) / max(own.shape[1], 1) for own in kept)
        removed_share = None if suffix else np.stack([*shares])  # masked words have no partial figure
        teacher = np.stack(list(predict_by_row(self.teacher, every, copies_of).values()), axis=1)[0]
        results = []
        for student in self.students:
            thresholds = (label_thresholds(student), label_thresholds(self.teacher))
            by_row = predict_by_row(student, every, copies_of, heads=_heads(student))
            own, *floors = (
                _named(
                    response_columns(
                        logits,
                        teacher,
                        words,
                        removed_share=removed_share,
                        multi_label=self.multi_label,
                        thresholds=thresholds,
                    ),
                    suffix,
                )
                for logits in np.stack(list(by_row.values()), axis=1)
            )
            results.append(StudentColumns(own, floors))
        return results

    def flips(self, rows: TextRows) -> tuple[list[StudentColumns], list[Flip]]:
        """The columns ``flips`` and ``kept`` with replaced and with masked words, and the edits with replaced words."""
        replacements = [
            [self.neighbours.get(word, other) for word, other in zip(words_of(texts), drawn, strict=True)]
            for texts, drawn in zip(rows.texts, self._drawn(rows), strict=True)
        ]
        columns, edits, labels = self._flips(_replacing(rows, replacements), rows, "")
        shown = [
            Flip(
                edit, *_as_read(rows.texts[edit.row], edit.removed, replacements[edit.row]),
                [int(of_one[0, place, 1]) for of_one in labels],
            )
            for place, edit in enumerate(edits)
        ]  # fmt: skip
        if self._can_mask:
            masked, _, _ = self._flips(_masks(rows), rows, MASKED)
            columns = [one.joined(other) for one, other in zip(columns, masked, strict=True)]
        return columns, shown

    def _flips(
        self, copies_of: CopiesOf, rows: TextRows, suffix: str
    ) -> tuple[list[StudentColumns], list[Edit], list[np.ndarray]]:
        edits = flipping_edits(self.teacher, rows.words, copies_of)
        labels = [edit_labels(student, edits, copies_of, heads=_heads(student)) for student in self.students]
        results = []
        for of_student in labels:
            columns, *floors = (
                _named(flip_columns(of_head, edits, len(rows.texts)), suffix) for of_head in of_student
            )
            results.append(StudentColumns(columns, floors))
        return results, edits, labels

    def shapley(self, rows: TextRows, *, pairs: int) -> list[StudentColumns]:
        """Signed agreement of both models' Shapley values of words, for the log-odds of the teacher's label.

        Words outside a coalition are replaced by drawn words, the same in every coalition of a row.
        """
        words = rows.words
        designs = {
            row: shapley_design(count, pairs=pairs, seed=(self.seed, rows.numbers[row]))
            for row, count in enumerate(words)
            if count >= MIN_WORDS
        }
        kept = {row: design.kept for row, design in designs.items()}
        copies_of = _replacing(rows, self._drawn(rows))
        teacher = {row: logits[0] for row, logits in predict_by_row(self.teacher, kept, copies_of).items()}
        results = []
        for student in self.students:
            heads = _heads(student)
            columns = [
                {name: np.full(len(words), np.nan) for name in ("shapley", "shapley_sign")}
                for _ in range(1 + len(heads))
            ]
            for row, logits in predict_by_row(student, kept, copies_of, heads=heads).items():
                label, weights = teacher[row][:1].argmax(-1), designs[row].weights
                multi_label = self.multi_label
                theirs = log_odds(teacher[row][None], label, multi_label=multi_label)[0, 1:]
                theirs = _attributions(weights, theirs)
                for column, of_head in zip(columns, logits, strict=True):
                    ours = log_odds(of_head[None], label, multi_label=multi_label)[0, 1:]
                    ours = _attributions(weights, ours)
                    column["shapley"][row], column["shapley_sign"][row] = signed_agreement(ours, theirs)
            results.append(StudentColumns(columns[0], columns[1:]))
        return results

    def faithfulness(
        self, rows: TextRows, scores: Sequence[ScoresByWord | None], *, beam: int = BEAM
    ) -> list[Columns]:
        """Columns of comprehensiveness and sufficiency of the teacher and each student, for the teacher's label.

        ``scores`` holds the word scores of each row by model, the teacher first. If a model has none, word occlusion is
        used for all models, as different methods are not comparable. Words are masked, or replaced by drawn words if a
        model cannot mask.
        """
        whole = {row: np.ones((0, count), dtype=bool) for row, count in enumerate(rows.words)}
        copies_of = _masks(rows) if self._can_mask else _replacing(rows, self._drawn(rows))
        predicted = predict_by_row(self.teacher, whole, copies_of)
        labels = np.array([logits[0, 0].argmax() for logits in predicted.values()])
        results, occluded = [], any(of_model is None for of_model in scores)
        for predictor, of_model in zip((self.teacher, *self.students), scores, strict=True):
            word_scores = (
                word_occlusion(predictor, rows.words, labels, copies_of, multi_label=self.multi_label)
                if occluded or of_model is None
                else of_model
            )
            results.append(
                faithfulness(
                    predictor, word_scores, labels, copies_of, beam=beam, multi_label=self.multi_label
                )
            )
        teacher, *students = results
        return [prefixed("teacher", teacher) | prefixed("student", student) for student in students]

    def _drawn(self, rows: TextRows) -> list[list[str]]:
        """One drawn word of the pool for each word of each row."""
        return [
            draw_words(self.pool, (1, count), self.seed, number)[0]
            for count, number in zip(rows.words, rows.numbers, strict=True)
        ]

    @property
    def _can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in (self.teacher, *self.students))


def _attributions(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Shapley values, rounded so that values which differ by rounding errors only are equal and share a rank."""
    unit = EQUAL * max(float(np.abs(values).max()), EQUAL)
    return np.round(weights @ values / unit) * unit


def _heads(student: Predictor) -> Sequence[int]:
    return RANDOM_HEAD_SEEDS if student.has_head else ()


def _masks(rows: TextRows) -> CopiesOf:
    return lambda row, kept: masked_copies(rows.texts[row], kept)


def _replacing(rows: TextRows, replacements: Sequence[Sequence[str]]) -> CopiesOf:
    """Copies with the given replacement of each word, the same in all copies of a row."""
    return lambda row, kept: substituted_copies(rows.texts[row], kept, [replacements[row]] * len(kept))


def _named(columns: Columns, suffix: str) -> Columns:
    return {f"{name}{suffix}": values for name, values in columns.items()}


def _as_read(
    texts: Texts, removed: np.ndarray, replacements: Sequence[str]
) -> tuple[list[tuple[int, int, int, str]], Texts]:
    """The replaced words of an edit, as segment, start, end and new word, and the texts after the edit."""
    spans, places = word_places(texts), np.flatnonzero(removed).tolist()
    changed = substituted_copies(texts, ~removed[None], [replacements])[1].texts
    return [(*spans[place], replacements[place]) for place in places], changed
