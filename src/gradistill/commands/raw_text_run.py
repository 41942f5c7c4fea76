"""Distillation from a teacher that reads raw texts: both models are compared on whole texts and their words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from gradistill.auditing import Predictions, loyalty, predict_rows
from gradistill.auditing.loyalty_measures import Loyalty
from gradistill.auditing.predictor import ClassifierPredictor, Predictor
from gradistill.auditing.statistics import Estimate
from gradistill.commands.answer_sources import AnswerSource, RowsToAnswer
from gradistill.commands.function_source import CachingPredictor, FunctionSource
from gradistill.commands.live_source import LiveSource, word_maps
from gradistill.commands.loyalty_sample import FLOOR_ROWS, response_of
from gradistill.commands.mean_source import MeanSource
from gradistill.commands.row_sample import WORD_POOL_ROWS, drawn_rows
from gradistill.commands.run_record import described, shown_name
from gradistill.commands.task_run import TaskRun
from gradistill.commands.training_run import EncodedRows, Run
from gradistill.data import Collator, compute_metrics, encode
from gradistill.data.raw_words import row_texts, word_pool
from gradistill.data.text_reader import CopyReader, ReadingCollator
from gradistill.errors import RecipeError
from gradistill.io import digest
from gradistill.models.device_map import placed
from gradistill.objectives.cross_tokenizer import check_cross_tokenizer_objectives
from gradistill.signals import Logits
from gradistill.signals.precomputed_teacher import PrecomputedTeacher
from gradistill.signals.teacher import TeacherSignals
from gradistill.training.distributed import process_state
from gradistill.training.step import signals_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RawTextRun(TaskRun):
    """A run whose teacher, the ``source``, does not need the student. The teacher's signals are computed before
    training and kept in memory."""

    source: AnswerSource

    @property
    def _words(self) -> PreTrainedTokenizerBase | Literal[False]:
        """The teacher's tokenizer, if both models have word maps: encoded rows then have the common words."""
        return self.source.tokenizer if isinstance(self.source, LiveSource) else False

    def encode(self) -> EncodedRows:
        splits = ("train", "validation", *(("test",) if "test" in self.splits.rows else ()))
        encoded_splits = {split: self.encoded(split, words=self._words) for split in splits}
        return EncodedRows(
            {split: part.dataset for split, part in encoded_splits.items()},
            {split: part.cut for split, part in encoded_splits.items()},
        )

    def check(self, encoded: EncodedRows) -> None:
        """Raise an error, before any work, for objectives that need a common tokenizer, and for rows that the student
        cannot read."""
        Run.check(self, encoded)
        pair = self.models.facts
        assert pair is not None
        check_cross_tokenizer_objectives(self.terms, pair)
        self.required_signals()
        asks = isinstance(self.source, FunctionSource) or (
            isinstance(self.source, MeanSource) and self.source.calls_a_function
        )
        if asks and process_state().num_processes > 1:
            raise RecipeError(
                f"{process_state().num_processes} processes train, and each would call the function for all texts",
                expected="one process, or a file of answers",
                remedy="start without torchrun, or write the texts (gradistill signals --write-texts) and use a file",
            )
        if self.source.predictor is None and self.source.predictions(*self._validation) is None:
            logger.warning(
                f"{self.source.name} has no answers to the validation rows, so no loyalty is measured: give them by "
                "--validation-answers, or in the same file, found by their texts or ids"
            )

    @property
    def _validation(self) -> tuple[Dataset, Any, str]:
        return self.splits.rows["validation"], self.task, "validation"

    def hashes(self, encoded: EncodedRows) -> dict[str, str]:
        """Hashes of what the run reads, with the raw texts that the teacher reads instead of the student's tokens."""
        texts = digest(row_texts(self.training_rows, self.task))
        return super().hashes(encoded) | self.source.hashes() | {"texts": texts}

    @cached_property
    def reader(self) -> CopyReader:
        """The reader of the student's copies of training rows. Replacements come from all training rows, even if only
        some are trained on, so that answers to copies stay valid for any number of rows."""
        rows = self.training_rows
        texts = dict(zip(map(int, rows["index"][:]), row_texts(rows, self.task), strict=True))
        pool = copy_words(self.splits.rows["train"], self.task)
        return CopyReader(texts, pool, self.tokenizer, self.max_length)

    def collator(self) -> Collator:
        return ReadingCollator(self.tokenizer, pad_to=self.padded_length(), reader=self.reader)

    def teacher_signals(self, encoded: EncodedRows, arguments: TrainingArguments) -> TeacherSignals | None:
        if not self.recipe.needs_teacher:
            return None
        pair = self.models.facts
        assert pair is not None
        signals = dict.fromkeys(
            signal.stored_as() for signal in (Logits(), *signals_of(self.terms, pair, "teacher"))
        )
        if isinstance(self.source, LiveSource):
            placed(self.source.reader.model, process_state().device)
        rows = self.training_rows
        logger.info(f"teacher signals: {len(rows)} rows, from {self.source.kind}")
        start = perf_counter()
        values = self.source.values(RowsToAnswer(rows, self.task, self.reader.pool), tuple(signals))
        if (share := self.source.notes.get("attribution_outside_words")) is not None:
            logger.info(
                f"the teacher's attribution outside words (special tokens, words cut off): {share:.1%}"
            )
        return PrecomputedTeacher(values, perf_counter() - start)

    def signal_seconds(self, teacher: TeacherSignals | None) -> float:
        return teacher.seconds if isinstance(teacher, PrecomputedTeacher) else 0.0

    def near_words_of(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if isinstance(self.source, LiveSource):
            return self.source.reader.model, self.source.tokenizer
        raise no_near_words(self.source.kind)

    def measure(self, trainer: Any, encoded: EncodedRows) -> dict[str, float]:
        """The loyalties of the untrained student on a sample: the floors."""
        if not process_state().is_main_process:
            return {}
        rows = drawn_rows(self.splits.rows["validation"], FLOOR_ROWS, self.recipe.training.seed)
        teacher = self.source.predictions(rows, self.task, "validation")
        if teacher is None:
            return {}
        encoded_rows = encode(
            rows, self.tokenizer, self.task, max_length=self.max_length, words=self._words
        ).dataset
        student = predict_rows(
            self.models.student.probed, encoded_rows, Collator(self.tokenizer), labels=teacher.labels
        )
        figures = {**self.compared(student, teacher, encoded_rows).figures, "response": self.response()}
        return {name: figure.value for name, figure in figures.items() if figure is not None and figure.n}

    def reference(
        self, rows: Dataset, inputs: Mapping[str, str], done: Callable[[int], object]
    ) -> Predictions | None:
        predictions = self.source.predictions(*self._validation)
        done(len(rows))
        return predictions

    def compared(self, student: Predictions, teacher: Predictions, validation: Dataset) -> Loyalty:
        """The loyalties of the student's predictions. Saliency loyalty is over words that both models read whole."""
        if not teacher.signed:
            return loyalty(replace(student, maps=()), teacher)
        maps = _shared_words(word_maps(student.signed, validation), teacher.signed)
        student, teacher = replace(student, maps=maps[0]), replace(teacher, maps=maps[1])
        return loyalty(student, teacher, method="gradient_x_input, |sum| by word")

    @cached_property
    def _teacher_once(self) -> Predictor | None:
        """The teacher for response loyalty. Its predictions before training are cached and reused after it."""
        return None if self.source.predictor is None else CachingPredictor(self.source.predictor)

    def response(self) -> Estimate | None:
        teacher = self._teacher_once
        if teacher is None:
            return None
        student = ClassifierPredictor(self.models.student.model, self.tokenizer, self.max_length)
        rows, _, _ = self._validation
        return response_of(teacher, student, rows, self.task, self.recipe.training.seed)

    def tested(self, test: Dataset | None) -> dict[str, Any]:
        metrics = super().tested(test)
        if test is None:
            return metrics
        rows = self.splits.rows["test"]
        predictions = self.source.predictions(rows, self.task, "test")
        if predictions is not None:
            labels = np.asarray(test["labels"][:])
            metrics["teacher_test"] = compute_metrics(
                self.task, predictions.logits, labels, predictions.thresholds
            )
        return metrics

    def about(self, encoded: EncodedRows, inputs: Mapping[str, str]) -> dict[str, Any]:
        return super().about(encoded, inputs) | {
            "teacher_source": {"kind": self.source.kind, **self.source.notes}
        }

    def described(self, output: Path) -> dict[str, Any]:
        models, name = super().described(output), self.source.name
        if isinstance(self.source, LiveSource):
            reader = self.source.reader
            return models | {"teacher": described(reader.model, name, reader.probe)}
        return models | {
            "teacher": {"name": shown_name(name), "layers": None, "hidden": None, "parameters": None}
        }


def no_near_words(kind: str) -> RecipeError:
    """The error for ``--augment`` with a teacher whose embeddings are not known."""
    return RecipeError(
        f"--augment makes copies with near words of the teacher's embeddings, and the teacher is {kind}.",
        expected="a model as teacher",
        remedy="write the copies to a file (gradistill augment), have them answered, and give it as --unlabelled",
    )


def copy_words(rows: Dataset, task: Any) -> list[str]:
    """The words that replace others in changed copies: those of some of the training rows."""
    return word_pool(row_texts(drawn_rows(rows, WORD_POOL_ROWS, 0), task))


def _shared_words(
    student: tuple[np.ndarray, ...], teacher: tuple[np.ndarray, ...]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The absolute scores of the words that both maps have."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for ours, theirs in zip(student, teacher, strict=True):
        count = min(len(ours), len(theirs))
        both = np.isfinite(ours[:count]) & np.isfinite(theirs[:count])
        pairs.append((np.abs(ours[:count][both]), np.abs(theirs[:count][both])))
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
