"""Teacher and students compared on the same rows, a block at a time: columns of figures, and examples to look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.faithfulness import faithfulness
from gradistill.auditing.methods import Method
from gradistill.auditing.per_example import Columns, columns_of, confidence, joined
from gradistill.auditing.plausibility import marked_tokens, plausibility
from gradistill.auditing.predictions import Predictions, predict_logits, predict_rows
from gradistill.auditing.response import (
    Draw,
    EncodedRow,
    copy_logits,
    count_words,
    draw_coalitions,
    masked_copies,
    measure_response,
    substituted_copies,
    text_agreement,
)
from gradistill.auditing.statistics import Estimate, FlooredEstimate
from gradistill.auditing.word_maps import TokenizedText, readings, row_texts, watched_share
from gradistill.batch import UNLABELLED
from gradistill.data import Collator, Task, encode
from gradistill.data.batching import row_batches
from gradistill.errors import ModelError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.probe import ProbedModel
from gradistill.models.random_head import head_parameters, randomised_head
from gradistill.signals.explained import explained_pass

BLOCK = 1000
"""Rows that are encoded and predicted at a time: memory does not grow with the number of rows beyond it."""

FLOOR_SEEDS = 3
"""Random heads whose mean is the floor of a figure."""

logger = logging.getLogger(__name__)

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
            gold = _gold(some)
            read = readings(some, self.tokenizer, self.task, self.max_length)
            columns = [columns_of(student, teacher, gold) for student in students]
            for own, student in zip(columns, students, strict=True):
                own |= self._in_words(some, read, teacher, student)
            yield AuditBlock(columns, [self._example(some[k], read[k], k, teacher, students, columns)
                                     for k in range(len(some))])  # fmt: skip

    def agreement(self, rows: Dataset) -> list[Columns]:
        """The columns that follow from the predictions alone, for rows of any number."""
        parts: list[list[Columns]] = []
        for some in in_blocks(rows):
            teacher, students = self._predictions(some)
            gold = _gold(some)
            parts.append([columns_of(student, teacher, gold) for student in students])
        return [joined(of_one) for of_one in zip(*parts, strict=True)]

    def faithfulness(self, rows: Dataset) -> list[Columns]:
        """Normalised comprehensiveness and sufficiency of both models' maps, for the teacher's label."""
        encoded, collate = self._encoded(rows), Collator(self.tokenizer)
        labels = predict_logits(self.teacher, encoded, collate).argmax(-1)
        teacher, *students = [self._faithful(probed, encoded, collate, labels) for probed in self._probed]
        return [
            {f"teacher_{name}": values for name, values in teacher.items()}
            | {f"student_{name}": values for name, values in student.items()}
            for student in students
        ]

    def response(self, rows: Dataset, pool: Sequence[str], *, seed: int = 0) -> list[dict[str, Estimate]]:
        """Response loyalty of each student, by substitution (``response``, with slope and labels) and by masking.

        Each figure has the floor of the same student under a random head, the mean of ``FLOOR_SEEDS`` of them.
        ``pool`` holds the words that are put in the place of others.
        """
        texts = row_texts(rows, self.task)
        words, draw = [count_words(row) for row in texts], Draw(seed, rows["index"][:])
        kept = draw_coalitions(words, seed=seed, rows=draw.rows)
        found: list[dict[str, Estimate]] = [{} for _ in self.students]
        copies = substituted_copies(self.tokenizer, texts, kept, pool, draw=draw, max_length=self.max_length)
        self._respond("response", copies, words, seed, found)
        if self.tokenizer.is_fast:
            copies = masked_copies(self.tokenizer, texts, kept, max_length=self.max_length)
            self._respond("response_masked", copies, words, seed, found)
        else:
            logger.warning("response_masked is left out: the tokenizer has no character offsets")
        return found

    def _respond(
        self, name: str, copies: Sequence[Sequence[EncodedRow]], words: Sequence[int], seed: int,
        found: Sequence[dict[str, Estimate]],
    ) -> None:  # fmt: skip
        """Add the figures of one form of copies to what was ``found`` of each student."""
        collate = Collator(self.tokenizer)
        teacher = copy_logits(self.teacher, copies, collate, on_progress=self.on_progress)
        for own, student in zip(found, self.students, strict=True):
            logits = copy_logits(student, copies, collate, on_progress=self.on_progress)
            response = measure_response(logits, teacher, words, seed=seed)
            floors = []
            for number in range(FLOOR_SEEDS if response.agreement.n and has_head(student) else 0):
                with randomised_head(student, seed + number):
                    other = copy_logits(student, copies, collate, on_progress=self.on_progress)
                floors.append(np.nanmean(text_agreement(other, teacher, words)))
            whole, floor = response.agreement, float(np.mean(floors)) if floors else float("nan")
            own[name] = FlooredEstimate(whole.value, whole.low, whole.high, whole.n, floor)
            if name == "response":
                own |= {"response_slope": response.slope, "response_labels": response.labels}

    def _faithful(
        self, probed: ProbedModel, encoded: Dataset, collate: Collator, labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        found = {name: np.full(len(encoded), np.nan) for name in ("comprehensiveness", "sufficiency")}
        with frozen_eval(probed.model):
            for some in row_batches(encoded, collate, probed.device, tokens_at_once=1024, labels=labels):
                forward = explained_pass(probed, some.batch)
                own = some.own_tokens.to(probed.device)
                figures = faithfulness(forward, self.method(forward).detach(), own)
                for name, values in found.items():
                    values[list(some.places)] = figures[f"normalised_{name}"].cpu().numpy()
                self.on_progress(len(some.places))
        return found

    def _predictions(self, rows: Dataset) -> tuple[Predictions, list[Predictions]]:
        predict = partial(
            predict_rows,
            rows=self._encoded(rows),
            collate=Collator(self.tokenizer),
            method=self.method,
            on_progress=self.on_progress,
        )
        teacher, *students = self._probed
        explained = predict(teacher)
        return explained, [predict(student, labels=explained.labels) for student in students]

    def _encoded(self, rows: Dataset) -> Dataset:
        return encode(rows, self.tokenizer, self.task, max_length=self.max_length).dataset

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


def has_head(model: nn.Module) -> bool:
    """Whether a model's head is known from the rest, so that it can be randomised."""
    try:
        return bool(head_parameters(model))
    except ModelError:
        return False


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
    rho = float(columns["saliency_loyalty"][k])
    reasons = (1 - rho) / 2 if np.isfinite(rho) else 0.0
    same = bool(columns["label_loyalty"][k]) if "label_loyalty" in columns else None
    if same is None:
        apart = abs(float(columns["student_prediction"][k] - columns["teacher_prediction"][k]))
    else:
        apart = 2.0 * (not same) + 1 - float(columns["probability_loyalty"][k])
    agreement = round(rho, 4) if np.isfinite(rho) else None
    return {"agreement": agreement, "same_label": same, "disagreement": round(apart + reasons, 4)}
