"""Compares teacher and students on the same rows, block by block: columns of figures, and examples for the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.examples import example_of
from gradistill.auditing.faithfulness import ScoresByWord
from gradistill.auditing.map_checks import CheckedRows, agreement_when_random, check_columns
from gradistill.auditing.methods import IntegratedGradients, Method, draws_tokens
from gradistill.auditing.model_outputs import ModelOutputs, ProbedPredictor
from gradistill.auditing.per_example import (
    ON_WORDS,
    Columns,
    StudentColumns,
    columns_of,
    concatenated,
    mean_values,
    prefixed,
)
from gradistill.auditing.plausibility import marked_tokens, plausibility
from gradistill.auditing.predictions import Predictions, predict_rows
from gradistill.auditing.predictor import ClassifierPredictor, Predictor, label_thresholds
from gradistill.auditing.signed_agreement import signed_columns
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.watched_words import watched_share
from gradistill.auditing.word_maps import TokenizedText, readings, shared_units
from gradistill.batch import UNLABELLED
from gradistill.data import Collator, Task, encode
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import count_words, row_texts
from gradistill.data.token_pool import word_tokens
from gradistill.models.random_head import head_parameters, paired_seeds, randomised

BLOCK = 1000
"""Rows that are encoded and predicted at a time, which bounds the memory."""

FLOOR_SEEDS = paired_seeds(4)
"""Seeds of the random heads over which the floor of a gradient figure is averaged. Each runs the whole model."""

EXPECTED_GRADIENTS = IntegratedGradients(24, baseline="tokens")
EXPECTED_GRADIENTS_SEEDS = paired_seeds(2)
"""Fewer random heads: each runs the model along three paths, and a pair is enough for a mean near 0."""


@dataclass(frozen=True)
class AuditBlock:
    """Results of a block of rows (``ModelComparison.blocks``): the ``columns`` of each student, one example per row."""

    columns: list[Columns]
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class ModelComparison:
    """Compares ``teacher`` and ``students``. ``method`` explains the teacher's label, in PyTorch classifiers only.

    Maps of two classifiers that share one tokenizer object are compared token by token. Others are compared on the
    words of the raw text: by ``|Σ|`` of the signed scores of a word's tokens, or by their sum if the method has no
    signs. Words that share a token in either model are merged. Words that one model does not read are left out.
    ``pool`` holds words of the data, for methods that draw from them.

    Example: ``ModelComparison(teacher, [student], task, GradientXInput()).agreement(rows)`` of two ClassifierPredictors
    """

    teacher: Predictor
    students: Sequence[Predictor]
    task: Task
    method: Method
    watched: Sequence[str] = ()
    pool: Sequence[str] = ()

    @cached_property
    def _models(self) -> tuple[ProbedPredictor, ...]:
        """The teacher, then the students."""
        return tuple(map(ProbedPredictor.of, (self.teacher, *self.students)))

    def blocks(self, rows: Dataset) -> Iterator[AuditBlock]:
        """Yield the results of all rows: columns, with plausibility and watched words if available, and examples."""
        for block in in_blocks(rows):
            teacher, students = self._outputs_of_all(block)
            columns = [
                self._compared(block, teacher, student) | self._in_words(block, teacher, student)
                for student in students
            ]
            yield AuditBlock(
                columns,
                [
                    example_of(block[k], k, self.task, (teacher, *students), columns)
                    for k in range(len(block))
                ],
            )

    def agreement(self, rows: Dataset) -> list[Columns]:
        """The columns of each student without plausibility, watched words and examples, for any number of rows."""
        parts: list[list[Columns]] = []
        for block in in_blocks(rows):
            teacher, students = self._outputs_of_all(block)
            parts.append([self._compared(block, teacher, student) for student in students])
        return [concatenated(of_one) for of_one in zip(*parts, strict=True)]

    def word_scores(self, rows: Dataset) -> list[ScoresByWord | None]:
        """Word scores of each row for the teacher's label, by model, the teacher first: sums over each word's tokens.
        NaN for words that are cut off; None for a model without maps."""
        teacher, students = self._outputs_of_all(rows)
        return [
            outputs.word_sums(outputs.predictions.maps) if outputs.in_words else None
            for outputs in (teacher, *students)
        ]

    def map_checks(self, rows: Dataset, seed: int) -> list[Columns]:
        """Columns of infidelity and max-sensitivity of the teacher's and each student's maps (``check_columns``)."""
        labels = self._labels(rows)
        teacher, *students = (
            check_columns(model.probed, self.method, self._checked(model, rows, labels, seed))
            if model.probed
            else {}
            for model in self._models
        )
        return [prefixed("teacher", teacher) | prefixed("student", student) for student in students]

    def when_teacher_is_random(self, rows: Dataset, seed: int) -> dict[str, Estimate]:
        """Agreement of the teacher's maps with its maps under random weights (``agreement_when_random``)."""
        teacher = self._models[0]
        if teacher.probed is None:
            return {}
        checked = self._checked(teacher, rows, self._labels(rows), seed)
        return agreement_when_random(teacher.probed, self.method, checked)

    def _labels(self, rows: Dataset) -> np.ndarray:
        """The labels that the teacher predicts."""
        return self.teacher.logits([Copy(texts) for texts in row_texts(rows, self.task)])[0].argmax(-1)

    def _checked(self, model: ProbedPredictor, rows: Dataset, labels: np.ndarray, seed: int) -> CheckedRows:
        assert model.tokenizer is not None
        encoded, _ = self._encoded(model, rows)
        return CheckedRows(encoded, self._collator(model.tokenizer), labels, rows["index"][:], seed)

    def floors(self, rows: Dataset) -> list[dict[str, float]]:
        """Figures of agreement of each student under a random head, averaged over ``FLOOR_SEEDS``. Empty for a student
        whose head cannot be told from its other weights."""
        return [
            self.when_randomised(k, rows, head_parameters(model.probed.model))
            if model.probed and model.predictor.has_head
            else {}
            for k, model in enumerate(self._models[1:])
        ]

    def when_randomised(
        self,
        k: int,
        rows: Dataset,
        parameters: Mapping[str, nn.Parameter],
        seeds: Sequence[int] = FLOOR_SEEDS,
    ) -> dict[str, float]:
        """Figures of agreement of the k-th student while ``parameters`` are random, averaged over ``seeds``.

        The student must be a PyTorch classifier.
        """
        teacher = self._outputs(self._models[0], rows)
        return mean_values(list(self._randomised(self._models[1 + k], teacher, rows, parameters, seeds)))

    def expected_gradients(self, rows: Dataset, seed: int) -> list[StudentColumns]:
        """Columns of ``expected_gradients``: agreement of signed attributions along paths from other texts (Erion et
        al. 2021). It does not depend on ``method``. Models without gradients have no columns, models whose head is
        unknown have no floors. ``seed`` draws the tokens at which paths start."""
        comparison = replace(self, method=replace(EXPECTED_GRADIENTS, seed=seed))
        teacher = comparison._outputs(comparison._models[0], rows)
        if not teacher.predictions.maps:
            return [StudentColumns({}, []) for _ in self.students]
        results = []
        for model in comparison._models[1:]:
            outputs = comparison._outputs(model, rows, teacher.predictions.labels)
            by_head = [comparison._compared(rows, teacher, outputs)]
            if "signed" in by_head[0] and model.probed and model.predictor.has_head:
                heads = head_parameters(model.probed.model), EXPECTED_GRADIENTS_SEEDS
                by_head += comparison._randomised(model, teacher, rows, *heads)
            figures, *floors = (
                {"expected_gradients": columns["signed"]} if "signed" in columns else {}
                for columns in by_head
            )
            figures |= {ON_WORDS: by_head[0][ON_WORDS]} if ON_WORDS in by_head[0] else {}
            results.append(StudentColumns(figures, floors))
        return results

    def _randomised(
        self,
        student: ProbedPredictor,
        teacher: ModelOutputs,
        rows: Dataset,
        parameters: Mapping[str, nn.Parameter],
        seeds: Sequence[int],
    ) -> Iterator[Columns]:
        """Yield the student's columns while ``parameters`` are random, for each seed."""
        assert student.probed is not None
        for seed in seeds:
            with randomised(student.probed.model, parameters, seed):
                outputs = self._outputs(student, rows, teacher.predictions.labels)
                yield self._compared(rows, teacher, outputs)

    def _outputs_of_all(self, rows: Dataset) -> tuple[ModelOutputs, list[ModelOutputs]]:
        teacher = self._outputs(self._models[0], rows)
        return teacher, [self._outputs(model, rows, teacher.predictions.labels) for model in self._models[1:]]

    def _outputs(
        self, model: ProbedPredictor, rows: Dataset, labels: np.ndarray | None = None
    ) -> ModelOutputs:
        """A model's predictions, and its maps for ``labels`` (default: its own labels) if it has gradients."""
        if model.probed is None or model.tokenizer is None:
            copies = [Copy(texts) for texts in row_texts(rows, self.task)]
            logits, multi_label = model.predictor.logits(copies)[0], self.task.multi_label
            thresholds = label_thresholds(model.predictor)
            return ModelOutputs(model, Predictions(logits, multi_label=multi_label, thresholds=thresholds))
        encoded, reads = self._encoded(model, rows)
        predictions = predict_rows(
            model.probed,
            encoded,
            self._collator(model.tokenizer),
            labels=labels,
            method=self.method,
            on_progress=_classifier(model).on_progress,
        )
        return ModelOutputs(model, predictions, reads)

    def _collator(self, tokenizer: PreTrainedTokenizerBase) -> Collator:
        if not draws_tokens(self.method):
            return Collator(tokenizer)
        if id(tokenizer) not in self._drawn_from:
            self._drawn_from[id(tokenizer)] = word_tokens(self.pool, tokenizer)
        return Collator(tokenizer, token_pool=self._drawn_from[id(tokenizer)])

    @cached_property
    def _drawn_from(self) -> dict[int, Tensor | None]:
        """The tokens of ``pool``, by the id of each tokenizer."""
        return {}

    def _encoded(self, model: ProbedPredictor, rows: Dataset) -> tuple[Dataset, Sequence[TokenizedText]]:
        """The rows, encoded for a classifier with the word of each token, and the tokens' positions in the texts."""
        assert model.tokenizer is not None
        length = _classifier(model).max_length
        encoded = encode(rows, model.tokenizer, self.task, max_length=length).dataset
        if not model.tokenizer.is_fast:
            return encoded, ()
        reads = readings(rows, model.tokenizer, self.task, length)
        numbers = [read.word_numbers.tolist() for read in reads]
        return encoded.add_column("word_ids", numbers), reads  # pyright: ignore

    def _compared(self, rows: Dataset, teacher: ModelOutputs, student: ModelOutputs) -> Columns:
        """The columns of a student, with the agreement of maps if both models have maps, and the agreement of signed
        maps if the method has signs."""
        ours, theirs = student.predictions, teacher.predictions
        words: Sequence[np.ndarray] | None = None
        if not (ours.maps and theirs.maps):
            ours, theirs = replace(ours, maps=(), signed=()), replace(theirs, maps=(), signed=())
        elif student.model.tokenizer is teacher.model.tokenizer:
            words = [read.word_numbers[read.own] for read in teacher.reads] or None
        else:
            ours, theirs = _on_words(student, teacher)
            words = [np.arange(len(scores)) for scores in theirs.signed]
        columns = columns_of(ours, theirs, _gold(rows))
        if ours.maps and student.model.tokenizer is not teacher.model.tokenizer:
            columns[ON_WORDS] = np.ones(len(rows), dtype=bool)
        if words is not None and theirs.signed:
            columns |= signed_columns(ours.signed, theirs.signed, words)
        if maps := teacher.predictions.maps:
            return columns | {"tokens": np.array([len(scores) for scores in maps])}
        return columns | {"words": np.array([count_words(texts) for texts in row_texts(rows, self.task)])}

    def _in_words(self, rows: Dataset, teacher: ModelOutputs, student: ModelOutputs) -> Columns:
        columns: Columns = {}
        for owner, outputs in (("teacher", teacher), ("student", student)):
            if not outputs.in_words:
                continue
            maps = outputs.predictions.maps
            if "spans" in rows.column_names:
                marked = [
                    marked_tokens(r.places, spans, r.own)
                    for r, spans in zip(outputs.reads, rows["spans"], strict=True)
                ]
                values = [plausibility(m, marks) for m, marks in zip(maps, marked, strict=True)]
                columns |= {f"{owner}_{name}": np.array([v[name] for v in values]) for name in values[0]}
            if self.watched:
                shares = [
                    watched_share(read, scores, self.watched)
                    for read, scores in zip(outputs.reads, maps, strict=True)
                ]
                columns[f"{owner}_watched_share"] = np.array(shares)
        return columns


def _classifier(model: ProbedPredictor) -> ClassifierPredictor:
    assert isinstance(model.predictor, ClassifierPredictor)
    return model.predictor


def _on_words(student: ModelOutputs, teacher: ModelOutputs) -> tuple[Predictions, Predictions]:
    """Both models' predictions, with maps of the units (``shared_units``) that both read; without maps if a tokenizer
    has no offsets."""
    ours, theirs = student.predictions, teacher.predictions
    if not (student.in_words and teacher.in_words):
        return replace(ours, maps=(), signed=()), replace(theirs, maps=(), signed=())
    predictions = []
    signed = bool(ours.signed and theirs.signed)
    starts = [shared_units(reads) for reads in zip(student.reads, teacher.reads, strict=True)]
    sums = []
    for outputs in (student, teacher):
        maps = outputs.predictions.signed if signed else outputs.predictions.maps
        parts = zip(outputs.reads, maps, starts, strict=True)
        sums.append([read.units(scores, first) for read, scores, first in parts])
    both = [~np.isnan(ours + theirs) for ours, theirs in zip(*sums, strict=True)]
    for outputs, unit_sums in zip((student, teacher), sums, strict=True):
        kept = tuple(scores[known] for scores, known in zip(unit_sums, both, strict=True))
        maps = tuple(np.abs(scores) for scores in kept)
        predictions.append(replace(outputs.predictions, maps=maps, signed=kept if signed else ()))
    return predictions[0], predictions[1]


def _gold(rows: Dataset) -> np.ndarray | None:
    """The gold labels of the rows (flags with several labels a row), or None if no row has a label."""
    labels = np.asarray(rows["label"][:])
    return None if (np.isnan(labels) | (labels == UNLABELLED)).all() else labels


def in_blocks(rows: Dataset) -> Iterator[Dataset]:
    """Yield the rows, ``BLOCK`` at a time."""
    for start in range(0, len(rows), BLOCK):
        yield rows.select(range(start, min(start + BLOCK, len(rows))))
