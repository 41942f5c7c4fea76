"""Training a token classifier on words with a label each: the differences from a classifier of texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset
from torch import nn

from gradistill.auditing.loyalty_measures import Loyalty
from gradistill.auditing.token_loyalty import token_loyalty
from gradistill.auditing.token_predictions import TokenPredictions, predict_tokens, word_labels
from gradistill.commands.loyalty_sample import FLOOR_ROWS
from gradistill.commands.row_sample import drawn_rows
from gradistill.commands.task_run import TaskRun
from gradistill.data import Collator, Task, encode
from gradistill.data.span_metrics import no_span_warning, token_metrics
from gradistill.models.device_map import placed
from gradistill.objectives.labelled_tokens import refuse_what_labels_no_tokens
from gradistill.printing import progress_bars
from gradistill.training.distributed import process_state

logger = logging.getLogger(__name__)


def task_run_of(task: Task) -> type[TaskRun]:
    """The kind of run that trains on the rows of a task."""
    return TokenRun if task.token_labels else TaskRun


@dataclass(frozen=True, kw_only=True)
class TokenRun(TaskRun):
    """A run on rows of words with a label each, with or without a teacher.

    Metrics and loyalties are over words and spans. Loyalties of attributions are not measured: an attribution explains
    one word's label, and there is no figure for that yet.
    """

    def required_signals(self) -> Any:
        pair = self.models.facts
        assert pair is not None
        refuse_what_labels_no_tokens(self.terms, pair)
        return super().required_signals()

    def warn_of_weak_teacher(self, validation: Dataset) -> None:
        assert self.models.teacher is not None
        teacher = placed(self.models.teacher.model, process_state().device)
        sample = drawn_rows(validation, FLOOR_ROWS, 0)
        if warning := self._doubt(self._metrics_of(self._predicted(teacher, sample), sample), "teacher"):
            logger.warning(warning)

    def measure(self, trainer: Any, encoded: Any) -> dict[str, float]:
        """The loyalties of the untrained student on a sample: the floors."""
        if self.models.teacher is None or not process_state().is_main_process:
            return {}
        teacher: Any = self.models.teacher.model
        device = next(teacher.parameters()).device
        rows = drawn_rows(self.splits.rows["validation"], FLOOR_ROWS, self.recipe.training.seed)
        encoded_rows = encode(rows, self.tokenizer, self.task, max_length=self.max_length).dataset
        predicted_by_teacher = self._predicted(placed(teacher, process_state().device), encoded_rows)
        loyalties = self._loyalty(
            self._predicted(self.models.student.model, encoded_rows), predicted_by_teacher
        )
        placed(teacher, device)
        return {name: figure.value for name, figure in loyalties.figures.items() if figure is not None}

    def _validated(
        self, validation: Dataset, inputs: Mapping[str, str], before: Mapping[str, float]
    ) -> dict[str, Any]:
        predictions_by_owner: dict[str, TokenPredictions] = {}
        with progress_bars() as progress:
            readers = dict(self.models.readers())
            bar = progress.add_task("evaluating", total=len(validation) * len(readers))
            for owner, reader in readers.items():
                model = placed(reader.model, process_state().device)
                predictions_by_owner[owner] = predict_tokens(
                    model,
                    validation,
                    Collator(self.tokenizer),
                    on_progress=lambda rows: progress.advance(bar, rows),
                )
        metrics = {
            owner: self._metrics_of(predictions, validation)
            for owner, predictions in predictions_by_owner.items()
        }
        loyal = None
        if "teacher" in predictions_by_owner:
            loyal = replace(
                self._loyalty(predictions_by_owner["student"], predictions_by_owner["teacher"]), floors=before
            ).as_dict()
        doubts = [
            doubt
            for owner in ("teacher", "student")
            if owner in metrics and (doubt := self._doubt(metrics[owner], owner if loyal else "model"))
        ]
        return {
            "eval": metrics["student"],
            "teacher_eval": metrics.get("teacher"),
            "loyalty": loyal,
            "warnings": [*self.splits.warnings, *doubts[:1]],
        }

    def tested(self, test: Dataset | None) -> dict[str, Any]:
        metrics: dict[str, Any] = {"test": None, "teacher_test": None}
        if test is not None:
            names = {"student": "test", "teacher": "teacher_test"}
            for owner, reader in self.models.readers():
                metrics[names[owner]] = self._metrics_of(self._predicted(reader.model, test), test)
        return metrics

    def _predicted(self, model: nn.Module, encoded: Dataset) -> TokenPredictions:
        return predict_tokens(model, encoded, Collator(self.tokenizer))

    def _metrics_of(self, predictions: TokenPredictions, encoded: Dataset) -> dict[str, float]:
        return token_metrics(self.task.labels or (), predictions.labels, word_labels(encoded))

    def _loyalty(self, student: TokenPredictions, teacher: TokenPredictions) -> Loyalty:
        return token_loyalty(student, teacher, self.task.labels or ())

    def _doubt(self, metrics: Mapping[str, float], owner: str) -> str | None:
        return no_span_warning(metrics, owner)
