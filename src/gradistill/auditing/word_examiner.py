"""What teacher and students do when words of the raw text change: response loyalty, flips, Shapley values.

Words are taken away in two forms: by putting other words of the data in their place, and by masks. Other words are the
headline: a model under a random head agrees with its teacher on masks more often (docs/yardstick.md), and a student
that was trained on masks has no advantage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradistill.attribution.shapley_weights import shapley_design
from gradistill.auditing.faithfulness import BEAM, ScoresByWord, faithfulness, word_occlusion
from gradistill.auditing.flips import Edit, edit_labels, flip_columns, flipping_edits
from gradistill.auditing.per_example import Columns, StudentColumns, named_of
from gradistill.auditing.predictor import CopiesOf, Predictor, label_thresholds, predict_by_row
from gradistill.auditing.response import MIN_WORDS, log_odds, response_columns
from gradistill.auditing.signed_agreement import signed_agreement
from gradistill.auditing.statistics import EQUAL
from gradistill.data.changed_copies import draw_coalitions, draw_words, masked_copies, substituted_copies
from gradistill.data.raw_words import Kept, Texts, count_words, word_places, words_of
from gradistill.models.random_head import paired_seeds

RANDOM_HEAD_SEEDS = paired_seeds(16)
"""Seeds of the random heads whose mean is the floor of a figure. The body runs once for all of them, so many cost
nothing."""

MASKED = "_masked"
"""Ends the names of figures whose words are masked; the others are replaced."""


@dataclass(frozen=True)
class TextRows:
    """Rows of raw text: the ``texts`` of each, and the ``numbers`` that whatever is drawn for them depends on."""

    texts: Sequence[Texts]
    numbers: Sequence[int]

    @property
    def words(self) -> list[int]:
        """How many words each row has."""
        return [count_words(row) for row in self.texts]


@dataclass(frozen=True)
class Flip:
    """An edit that turns the teacher, as a reader sees it; ``students`` holds the class id that each predicts."""

    edit: Edit
    replaced: list[tuple[int, int, int, str]]
    texts: Texts
    students: list[int]


@dataclass(frozen=True)
class WordExaminer:
    """Compares ``teacher`` and ``students`` on changed texts.

    ``pool``: words of the data, drawn to replace others. ``neighbours``: for a word the one that replaces it in flips;
    without it, and for words that are not in it, words are drawn. ``seed``: of everything drawn. ``multi_label``: a row
    may have several labels.
    """

    teacher: Predictor
    students: Sequence[Predictor]
    pool: Sequence[str]
    neighbours: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    multi_label: bool = False

    def response(self, rows: TextRows, *, masked: bool = True) -> list[StudentColumns]:
        """The columns of ``response_columns``, and where all models can mask words and ``masked`` is set those of
        masked copies under names that end in ``_masked``."""
        words = rows.words
        kept = draw_coalitions(words, seed=self.seed, rows=rows.numbers)

        def substituted(row: int, own: Kept) -> list[Any]:
            others = draw_words(self.pool, (len(own), own.shape[1]), self.seed, rows.numbers[row])
            return substituted_copies(rows.texts[row], own, others)

        found = self._responses(substituted, kept, words, "")
        if masked and self._can_mask:
            others = self._responses(_masks(rows), kept, words, MASKED)
            found = [one.joined(other) for one, other in zip(found, others, strict=True)]
        return found

    def _responses(
        self, copies_of: CopiesOf, kept: Sequence[Kept], words: Sequence[int], suffix: str
    ) -> list[StudentColumns]:
        every = dict(enumerate(kept))
        shares = (1 - own.sum(axis=1) / max(own.shape[1], 1) for own in kept)
        gone = None if suffix else np.stack([*shares])  # masked words have no partial figure
        teacher = np.stack(list(predict_by_row(self.teacher, every, copies_of).values()), axis=1)[0]
        found = []
        for student in self.students:
            thresholds = (label_thresholds(student), label_thresholds(self.teacher))
            by_row = predict_by_row(student, every, copies_of, heads=_heads(student))
            own, *floors = (
                _named(
                    response_columns(
                        logits, teacher, words, gone=gone, multi_label=self.multi_label, thresholds=thresholds
                    ),
                    suffix,
                )
                for logits in np.stack(list(by_row.values()), axis=1)
            )
            found.append(StudentColumns(own, floors))
        return found

    def flips(self, rows: TextRows) -> tuple[list[StudentColumns], list[Flip]]:
        """``flips`` and ``kept`` by replaced words, the same by masked words, and the edits by replaced words."""
        replacements = [
            [self.neighbours.get(word, other) for word, other in zip(words_of(texts), drawn, strict=True)]
            for texts, drawn in zip(rows.texts, self._drawn(rows), strict=True)
        ]
        found, edits, labels = self._flips(_replacing(rows, replacements), rows, "")
        shown = [
            Flip(
                edit, *_as_read(rows.texts[edit.row], edit.gone, replacements[edit.row]),
                [int(of_one[0, place, 1]) for of_one in labels],
            )
            for place, edit in enumerate(edits)
        ]  # fmt: skip
        if self._can_mask:
            masked, _, _ = self._flips(_masks(rows), rows, MASKED)
            found = [one.joined(other) for one, other in zip(found, masked, strict=True)]
        return found, shown

    def _flips(
        self, copies_of: CopiesOf, rows: TextRows, suffix: str
    ) -> tuple[list[StudentColumns], list[Edit], list[np.ndarray]]:
        edits = flipping_edits(self.teacher, rows.words, copies_of)
        labels = [edit_labels(student, edits, copies_of, heads=_heads(student)) for student in self.students]
        found = []
        for of_one in labels:
            own, *floors = (
                _named(flip_columns(of_head, edits, len(rows.texts)), suffix) for of_head in of_one
            )
            found.append(StudentColumns(own, floors))
        return found, edits, labels

    def shapley(self, rows: TextRows, *, pairs: int) -> list[StudentColumns]:
        """Signed agreement of both models' Shapley values of words, for the log-odds of the teacher's label.

        Words that are out are replaced by drawn ones, the same in every coalition of a row.
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
        found = []
        for student in self.students:
            heads = _heads(student)
            columns = [
                {name: np.full(len(words), np.nan) for name in ("shapley", "shapley_sign")}
                for _ in range(1 + len(heads))
            ]
            for row, logits in predict_by_row(student, kept, copies_of, heads=heads).items():
                label, weights = teacher[row][:1].argmax(-1), designs[row].weights
                several = self.multi_label
                theirs = log_odds(teacher[row][None], label, multi_label=several)[0, 1:]
                theirs = _attributions(weights, theirs)
                for own, of_head in zip(columns, logits, strict=True):
                    ours = log_odds(of_head[None], label, multi_label=several)[0, 1:]
                    ours = _attributions(weights, ours)
                    own["shapley"][row], own["shapley_sign"][row] = signed_agreement(ours, theirs)
            found.append(StudentColumns(columns[0], columns[1:]))
        return found

    def faithfulness(
        self, rows: TextRows, scores: Sequence[ScoresByWord | None], *, beam: int = BEAM
    ) -> list[Columns]:
        """Comprehensiveness and sufficiency of teacher and student, for the teacher's label: a set a student.

        ``scores`` holds those of the words of each row by each model, the teacher first. Where a model has none, the
        occlusion of words is judged in all models: another method would not compare. Words are masked; they are
        replaced by drawn ones where a model has no masks.
        """
        whole = {row: np.ones((0, count), dtype=bool) for row, count in enumerate(rows.words)}
        copies_of = _masks(rows) if self._can_mask else _replacing(rows, self._drawn(rows))
        predicted = predict_by_row(self.teacher, whole, copies_of)
        labels = np.array([logits[0, 0].argmax() for logits in predicted.values()])
        found, occluded = [], any(own is None for own in scores)
        for predictor, own in zip((self.teacher, *self.students), scores, strict=True):
            judged = (
                word_occlusion(predictor, rows.words, labels, copies_of, multi_label=self.multi_label)
                if occluded or own is None
                else own
            )
            found.append(
                faithfulness(predictor, judged, labels, copies_of, beam=beam, multi_label=self.multi_label)
            )
        teacher, *students = found
        return [named_of("teacher", teacher) | named_of("student", student) for student in students]

    def _drawn(self, rows: TextRows) -> list[list[str]]:
        """One word of the pool for each word of each row."""
        return [
            draw_words(self.pool, (1, count), self.seed, number)[0]
            for count, number in zip(rows.words, rows.numbers, strict=True)
        ]

    @property
    def _can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in (self.teacher, *self.students))


def _attributions(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Shapley values; those that differ by rounding alone are equal, or their ranks would be those of the rounding."""
    unit = EQUAL * max(float(np.abs(values).max()), EQUAL)
    return np.round(weights @ values / unit) * unit


def _heads(student: Predictor) -> Sequence[int]:
    return RANDOM_HEAD_SEEDS if student.has_head else ()


def _masks(rows: TextRows) -> CopiesOf:
    return lambda row, kept: masked_copies(rows.texts[row], kept)


def _replacing(rows: TextRows, replacements: Sequence[Sequence[str]]) -> CopiesOf:
    """One replacement for each word of a row, the same in all of its copies."""
    return lambda row, kept: substituted_copies(rows.texts[row], kept, [replacements[row]] * len(kept))


def _named(columns: Columns, suffix: str) -> Columns:
    return {f"{name}{suffix}": values for name, values in columns.items()}


def _as_read(
    texts: Texts, gone: np.ndarray, replacements: Sequence[str]
) -> tuple[list[tuple[int, int, int, str]], Texts]:
    """The words that an edit replaces, as segment, start, end and new word; and the texts after it."""
    spans, places = word_places(texts), np.flatnonzero(gone).tolist()
    changed = substituted_copies(texts, ~gone[None], [replacements])[1].texts
    return [(*spans[place], replacements[place]) for place in places], changed
