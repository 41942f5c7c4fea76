"""Teacher and students compared on the same rows, a block at a time: columns of figures, and examples to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.faithfulness import WordScores
from gradistill.auditing.map_checks import CheckedRows, agreement_when_random, check_columns
from gradistill.auditing.methods import Method
from gradistill.auditing.per_example import Columns, columns_of, confidence, joined, mean_values, named_of
from gradistill.auditing.plausibility import marked_tokens, plausibility
from gradistill.auditing.predictions import Predictions, predict_logits, predict_rows
from gradistill.auditing.signed_agreement import signed_columns
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.word_maps import TokenizedText, readings, row_texts, watched_share
from gradistill.batch import UNLABELLED
from gradistill.data import Collator, Task, encode
from gradistill.data.raw_words import token_words
from gradistill.data.tokenization import token_places
from gradistill.models.probe import ProbedModel
from gradistill.models.random_head import has_head, head_parameters, randomised

BLOCK = 1000
"""Rows that are encoded and predicted at a time: memory does not grow with the number of rows beyond it."""

FLOOR_SEEDS = (0, 1, 2)
"""Seeds of the random heads whose mean is the floor of a figure that needs gradients: each runs the whole model."""

OnProgress = Callable[[int], object]


@dataclass(frozen=True)
class AuditBlock:
    """A block of rows: one set of columns and of examples a student; see ``Examiner.blocks``."""

    columns: list[Columns]
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Examiner:
    """Compares ``teacher`` and ``students``, which read the same tokens; ``method`` explains the teacher's label."""

    teacher: nn.Module
    students: Sequence[nn.Module]
    tokenizer: PreTrainedTokenizerBase
    task: Task
    method: Method
    max_length: int = 128
    watched: Sequence[str] = ()
    on_progress: OnProgress = lambda done: None

    @cached_property
    def _probed(self) -> tuple[ProbedModel, ...]:
        """The teacher and the students, probed once for all blocks."""
        return tuple(ProbedModel.of(model) for model in (self.teacher, *self.students))

    def blocks(self, rows: Dataset) -> Iterator[AuditBlock]:
        """All rows: columns with plausibility and watched words where they exist, and every example in words."""
        for some in in_blocks(rows):
            teacher, students = self._predictions(some)
            read = readings(some, self.tokenizer, self.task, self.max_length)
            columns = self._compared(some, teacher, students)
            for own, student in zip(columns, students, strict=True):
                own |= self._in_words(some, read, teacher, student)
            yield AuditBlock(columns, [self._example(some[k], read[k], k, teacher, students, columns)
                                     for k in range(len(some))])  # fmt: skip

    def agreement(self, rows: Dataset) -> list[Columns]:
        """The columns that follow from the predictions alone, for rows of any number."""
        parts: list[list[Columns]] = []
        for some in in_blocks(rows):
            parts.append(self._compared(some, *self._predictions(some)))
        return [joined(of_one) for of_one in zip(*parts, strict=True)]

    def word_scores(self, rows: Dataset) -> list[WordScores]:
        """The scores of the words of each row by each model, the teacher first, for the teacher's label: the sum of the
        scores of a word's tokens; NaN for words that are cut off."""
        read = readings(rows, self.tokenizer, self.task, self.max_length)
        teacher, students = self._predictions(rows)
        return [
            [own.raw_words(scores) for own, scores in zip(read, model.maps, strict=True)]
            for model in (teacher, *students)
        ]

    def map_checks(self, rows: Dataset, seed: int) -> list[Columns]:
        """Infidelity and max-sensitivity of both models' maps, a set a student; see ``check_columns``."""
        checked = self._checked(rows, seed)
        teacher, *students = (check_columns(model, self.method, checked) for model in self._probed)
        return [named_of("teacher", teacher) | named_of("student", student) for student in students]

    def when_teacher_is_random(self, rows: Dataset, seed: int) -> dict[str, Estimate]:
        """How far the teacher's maps agree with those under random weights; see ``agreement_when_random``."""
        return agreement_when_random(self._probed[0], self.method, self._checked(rows, seed))

    def _checked(self, rows: Dataset, seed: int) -> CheckedRows:
        encoded, collate = self._encoded(rows), Collator(self.tokenizer)
        labels = predict_logits(self.teacher, encoded, collate).argmax(-1)
        return CheckedRows(encoded, collate, labels, rows["index"][:], seed)

    def floors(self, rows: Dataset) -> list[dict[str, float]]:
        """Figures of agreement of each student under a random head, the mean over ``FLOOR_SEEDS``; none where its head
        is not known from the rest."""
        return [
            self.when_randomised(k, rows, head_parameters(student)) if has_head(student) else {}
            for k, student in enumerate(self.students)
        ]

    def when_randomised(
        self,
        k: int,
        rows: Dataset,
        parameters: Mapping[str, nn.Parameter],
        seeds: Sequence[int] = FLOOR_SEEDS,
    ) -> dict[str, float]:
        """The figures of agreement of the k-th student while these parameters are random, the mean over ``seeds``."""
        teacher, student = self._probed[0], self._probed[1 + k]
        explained = self._predicted(teacher, rows)
        drawn = []
        for seed in seeds:
            with randomised(student.model, parameters, seed):
                drawn += self._compared(rows, explained, [self._predicted(student, rows, explained.labels)])
        return mean_values(drawn)

    def _predictions(self, rows: Dataset) -> tuple[Predictions, list[Predictions]]:
        teacher, *students = self._probed
        explained = self._predicted(teacher, rows)
        return explained, [self._predicted(student, rows, explained.labels) for student in students]

    def _compared(
        self, rows: Dataset, teacher: Predictions, students: Sequence[Predictions]
    ) -> list[Columns]:
        """The columns of each student, with the signed agreement of words where the method knows a direction."""
        gold = _gold(rows)
        found = [columns_of(student, teacher, gold) for student in students]
        if teacher.signed and self.tokenizer.is_fast:
            words = self._word_numbers(rows, special=False)
            for own, student in zip(found, students, strict=True):
                own |= signed_columns(student.signed, teacher.signed, words)
        return found

    def _predicted(self, model: ProbedModel, rows: Dataset, labels: np.ndarray | None = None) -> Predictions:
        return predict_rows(
            model,
            self._encoded(rows),
            Collator(self.tokenizer),
            labels=labels,
            method=self.method,
            on_progress=self.on_progress,
        )

    def _encoded(self, rows: Dataset) -> Dataset:
        encoded = encode(rows, self.tokenizer, self.task, max_length=self.max_length).dataset
        if not self.tokenizer.is_fast:
            return encoded
        return encoded.add_column("word_ids", [words.tolist() for words in self._word_numbers(rows)])  # pyright: ignore

    def _word_numbers(self, rows: Dataset, *, special: bool = True) -> list[np.ndarray]:
        """The number of each token's word in the raw text, −1 for tokens of none, which ``special`` ones are."""
        places = token_places(rows, self.tokenizer, self.task, max_length=self.max_length)
        return [
            token_words(texts, place.offsets, place.segments)[
                [special or segment is not None for segment in place.segments]
            ]
            for texts, place in zip(row_texts(rows, self.task), places, strict=True)
        ]

    def _in_words(
        self, rows: Dataset, read: Sequence[TokenizedText], teacher: Predictions, student: Predictions
    ) -> Columns:
        found: Columns = {}
        for owner, predictions in (("teacher", teacher), ("student", student)):
            if "spans" in rows.column_names:
                marked = [
                    marked_tokens(r.places, spans, r.own)
                    for r, spans in zip(read, rows["spans"], strict=True)
                ]
                values = [plausibility(m, marks) for m, marks in zip(predictions.maps, marked, strict=True)]
                found |= {f"{owner}_{name}": np.array([v[name] for v in values]) for name in values[0]}
            if self.watched:
                shares = [
                    watched_share(r.words(m), self.watched)
                    for r, m in zip(read, predictions.maps, strict=True)
                ]
                found[f"{owner}_watched_share"] = np.array(shares)
        return found

    def _example(
        self, row: dict[str, Any], read: TokenizedText, k: int, teacher: Predictions, students: Sequence[Predictions],
        columns: Sequence[Columns],
    ) -> dict[str, Any]:  # fmt: skip
        """One example as the report shows it; see docs/audit.md."""
        names = self.task.labels
        words = read.words(teacher.maps[k])
        theirs = [[word.score for word in read.words(student.maps[k])] for student in students]
        return {
            "index": row["index"],
            "gold": _shown(row["label"], names),
            "texts": [row[name] for name in self.task.text_columns],
            "teacher": prediction_of(teacher, k, names),
            "students": [
                {**prediction_of(student, k, names), **_agreeing(own, k)}
                for student, own in zip(students, columns, strict=True)
            ],
            "words": [
                {"segment": word.segment, "start": word.start, "end": word.end, "teacher": round(word.score, 4),
                 "students": [round(shares[n], 4) for shares in theirs]}
                for n, word in enumerate(words)
            ],
        }  # fmt: skip


def _gold(rows: Dataset) -> np.ndarray | None:
    """The labels, or None where no row has one."""
    labels = np.asarray(rows["label"][:])
    return None if (np.isnan(labels) | (labels == UNLABELLED)).all() else labels


def _shown(label: Any, names: Sequence[str] | None) -> str | None:
    if label == UNLABELLED or label != label:
        return None
    return names[int(label)] if names else f"{label:.3g}"


def in_blocks(rows: Dataset) -> Iterator[Dataset]:
    """The rows, ``BLOCK`` at a time."""
    for start in range(0, len(rows), BLOCK):
        yield rows.select(range(start, min(start + BLOCK, len(rows))))


def prediction_of(predictions: Predictions, k: int, names: Sequence[str] | None) -> dict[str, Any]:
    if names is None:
        return {"label": None, "confidence": None, "prediction": round(float(predictions.logits[k, 0]), 4)}
    sure = float(confidence(predictions.logits[k : k + 1])[0])
    return {"label": names[int(predictions.labels[k])], "confidence": round(sure, 4), "prediction": None}


def _agreeing(columns: Columns, k: int) -> dict[str, Any]:
    """``disagreement`` sorts the examples: another label first, then other probabilities, then other reasons."""
    rho = float(columns["saliency"][k])
    reasons = (1 - rho) / 2 if np.isfinite(rho) else 0.0
    same = bool(columns["label"][k]) if "label" in columns else None
    if same is None:
        apart = abs(float(columns["student_prediction"][k] - columns["teacher_prediction"][k]))
    else:
        apart = 2.0 * (not same) + 1 - float(columns["probability"][k])
    agreement = round(rho, 4) if np.isfinite(rho) else None
    return {"agreement": agreement, "same_label": same, "disagreement": round(apart + reasons, 4)}
