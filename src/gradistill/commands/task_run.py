"""Training a classifier on the rows of a task: fine-tuning, and distillation from a teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from gradistill.auditing import Predictions, loyalty, predict_logits, predict_rows
from gradistill.auditing.loyalty_measures import Loyalty
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.trained_figures import (
    CHANGED_COPIES,
    trained_by_record,
    trained_figures,
    united,
    with_trained_on,
)
from gradistill.commands.augment import transfer_rows_of
from gradistill.commands.cached_predictions import cached_predictions
from gradistill.commands.data_warnings import OF_DATA, constant_prediction_warning, weak_teacher_warning
from gradistill.commands.loyalty_sample import LoyaltySample
from gradistill.commands.signal_stores import AUTO, StoreChoice, StoreRows, plan_store, stored_teacher
from gradistill.commands.training_run import EncodedRows, Run
from gradistill.data import Collator, Encoded, Splits, Task, compute_metrics, encode
from gradistill.data.constant_prediction import constant_metrics
from gradistill.data.multilabel_metrics import choose_thresholds
from gradistill.data.transfer_rows import TransferRows
from gradistill.data.unlabelled_texts import Unlabelled
from gradistill.data.windows import encode_windows, pooled, text_labels, window_counts
from gradistill.models.device_map import placed
from gradistill.models.facts import set_thresholds, thresholds_of
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.probe import ProbedModel
from gradistill.models.teacher_loading import is_low_precision
from gradistill.objectives.base import ANY_PAIR
from gradistill.printing import progress_bars
from gradistill.recipe import TrainingSettings
from gradistill.signals import Signal
from gradistill.signals.teacher import TeacherSignals
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import Encoding
from gradistill.store.fingerprint import rows_hash, word_ids_hash
from gradistill.store.reader import StoredTeacher
from gradistill.training.arguments import MetricNames, training_arguments
from gradistill.training.distributed import process_state
from gradistill.training.step import signals_of
from gradistill.training.trainer import DistillationTrainer

logger = logging.getLogger(__name__)

_BEST = "metric_for_best_model"


@dataclass(frozen=True, kw_only=True)
class TaskRun(Run):
    """A run on the rows of a task, with or without a teacher.

    ``unlabelled`` rows are added to the training rows, and changed ``copies`` if the recipe has ``augment``.
    """

    splits: Splits
    signals: StoreChoice = AUTO
    unlabelled: Unlabelled | None = None

    hashed: ClassVar[tuple[str, ...]] = ("train", "validation")

    @property
    def task(self) -> Task:
        return self.splits.task

    @property
    def task_name(self) -> str:
        return self.splits.task.name

    def arguments(self, output: Path) -> TrainingArguments:
        measured = MetricNames(self.task.select, self.task.metrics, classes=self.task.labels is not None)
        arguments = training_arguments(self._selecting(self.recipe.training), output, measured)
        name = str(arguments.metric_for_best_model or "").removeprefix("eval_")
        if arguments.load_best_model_at_end and name != self.task.select:
            best = "highest" if arguments.greater_is_better else "lowest"
            logger.info(f"the checkpoint with the {best} {name} is kept")
        return arguments

    def _selecting(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with the task's own name of the selecting metric: with several classes, f1 is macro_f1."""
        given = settings.arguments.get(_BEST)
        if not isinstance(given, str):
            return settings
        name = self.task.metric(given.removeprefix("eval_"))
        if name == given.removeprefix("eval_"):
            return settings
        logger.info(
            f"{_BEST} {given}: with {self.task.num_labels} classes this is {name}, the mean over them"
        )
        return settings.model_copy(update={"arguments": {**settings.arguments, _BEST: name}})

    def hashes(self, encoded: EncodedRows) -> dict[str, str]:
        rows, hashes = encoded.rows["train"], super().hashes(encoded)
        return hashes | (
            {"words": word_ids_hash(rows, self.tokenizer)} if "word_ids" in rows.column_names else {}
        )

    def conditions(self, arguments: TrainingArguments) -> dict[str, str]:
        conditions = super().conditions(arguments)
        if arguments.load_best_model_at_end:
            conditions["best checkpoint by"] = self._chosen_by(str(arguments.metric_for_best_model))
        return conditions | ({"teacher signals": self.signals.kept_as} if self.recipe.needs_teacher else {})

    def _chosen_by(self, metric: str) -> str:
        labels, name = self.task.labels, metric.removeprefix("eval_")
        return f"{name} of {labels[self.task.positive]}" if name == "f1" and labels is not None else name

    def encode(self) -> EncodedRows:
        signals = signals_of(self.terms, self.models.facts or ANY_PAIR, "student")
        encoded = {
            split: self.encoded(split, words=split == "train" and replaces_words(signals))
            for split in ("train", "validation", *(("test",) if "test" in self.splits.rows else ()))
        }
        return EncodedRows(
            {split: part.dataset for split, part in encoded.items()},
            {split: part.cut for split, part in encoded.items()},
        )

    def encoded(self, split: str, *, words: bool | PreTrainedTokenizerBase = False) -> Encoded:
        """The encoded rows of one split; ``train`` includes unlabelled rows and changed copies. ``words``: with the
        word of each token."""
        rows = self.training_rows if split == "train" else self.splits.rows[split]
        if (windows := self.recipe.windows) is not None:
            encoded = encode_windows(
                rows, self.tokenizer, self.task, windows, max_length=self.max_length, words=bool(words)
            )
            more = f"; {len(encoded.dataset)} windows, overlap {windows.overlap}, {windows.pool}"
            line = f"{split}: {encoded.cut}{more}" if encoded.windowed else f"{split}: every text fits"
            logger.info(line, extra=OF_DATA)
            return encoded
        encoded = encode(rows, self.tokenizer, self.task, max_length=self.max_length, words=words)
        if encoded.truncated or encoded.words_unread:
            longer = encoded.truncated and self._may_have_windows
            hint = "; --windows mean (in a project windows: mean) reads them whole" if longer else ""
            logger.info(f"{split}: {encoded.cut}{hint}", extra=OF_DATA)
        return encoded

    @property
    def _may_have_windows(self) -> bool:
        return len(self.task.text_columns) == 1 and not self.task.token_labels

    def of_texts(self, logits: np.ndarray, rows: Dataset) -> np.ndarray:
        """The logits of texts from those of encoded rows: the logits of a text's windows are pooled."""
        windows, counts = self.recipe.windows, window_counts(rows)
        if windows is None or counts is None:
            return logits
        return pooled(logits, counts, windows, multi_label=self.task.multi_label)

    @cached_property
    def training_rows(self) -> Dataset:
        """All rows that are trained on: labelled rows, unlabelled rows, and changed copies."""
        parts = [self.labelled]
        if self.unlabelled is not None:
            parts.append(self.unlabelled.rows)
        if self.copies is not None:
            logger.info(f"augmented: {self.copies.describe(len(self.labelled))}")
            known = len(self.splits.rows["train"]) + sum(map(len, parts[1:]))
            parts.append(self.copies.rows(self.task, first_index=known))
        return concatenate_datasets(parts)

    @cached_property
    def labelled(self) -> Dataset:
        """The rows of the training split, at most ``max_train_rows``."""
        return labelled_rows(self.splits, self.recipe.training)

    @cached_property
    def copies(self) -> TransferRows | None:
        """Changed copies of the labelled rows. They do not depend on the seed, so one store serves all seeds."""
        if not self.recipe.training.augment:
            return None
        return transfer_rows_of(
            self.labelled, self.task, self.near_words_of(), times=self.recipe.training.augment
        )

    def near_words_of(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model whose embeddings define the distance between words, with its tokenizer."""
        assert self.models.teacher is not None  # the recipe has an objective that needs one
        return self.models.teacher.model, self.tokenizer

    def check(self, encoded: EncodedRows) -> None:
        """Also raise for objectives that do not apply to the pair, and warn of a weak teacher."""
        super().check(encoded)
        if self.models.teacher is not None:
            self.required_signals()
            self.warn_of_weak_teacher(encoded.rows["validation"])

    def warn_of_weak_teacher(self, validation: Dataset) -> None:
        """Warn, before any work, of a teacher that is no better than a constant prediction."""
        assert self.models.teacher is not None
        teacher = self.models.teacher.model
        placed(teacher, process_state().device)
        if warning := weak_teacher_warning(teacher, validation, Collator(self.tokenizer), self.task):
            logger.warning(warning)

    def required_signals(self) -> tuple[Signal, ...]:
        """The teacher signals that the objectives need. Raises RecipeError where one cannot apply to the pair."""
        return self.models.required_signals()

    def plan(
        self, signals: Sequence[Signal], training: Dataset, encoding: Encoding, folder: Path | None
    ) -> BuildPlan:
        """The plan of a store with these signals of the training rows; without a folder, in the cache."""
        assert self.models.online is not None
        return plan_store(
            self.models.online,
            StoreRows(training, self.tokenizer, self.max_length),
            signals,
            folder=folder,
            encoding=encoding,
            about={"method": self.recipe.method, "task": self.task.name, **self.names},
        )

    def teacher_signals(self, encoded: EncodedRows, arguments: TrainingArguments) -> TeacherSignals | None:
        """The store of the teacher's signals, or the teacher itself."""
        online = self.models.online
        if online is None:
            return None
        stored = self._stored(encoded.rows["train"]) if self.recipe.needs_teacher else None
        placed(online.model, "cpu" if stored else arguments.device)
        return (stored or online) if self.recipe.needs_teacher else None

    def _stored(self, training: Dataset) -> StoredTeacher | None:
        if self.signals.where == "online":
            return None
        assert self.models.online is not None
        plan = self.plan(self.required_signals(), training, self.signals.written_as, self.signals.folder)
        return stored_teacher(self.signals, plan, self.models.online, self.tokenizer)

    def signal_seconds(self, teacher: TeacherSignals | None) -> float:
        online = self.models.online
        stored = teacher if isinstance(teacher, StoredTeacher) else None
        return sum((source.seconds for source in (online, stored) if source is not None), 0.0)

    def metric_function(self, encoded: EncodedRows) -> Callable[[EvalPrediction], dict[str, float]]:
        rows = encoded.rows["validation"]
        metrics = partial(_metrics_of, task=self.task, choose=self.chooses_thresholds)
        if window_counts(rows) is None:
            return metrics
        labels = text_labels(rows)

        def of_texts(prediction: EvalPrediction) -> dict[str, float]:
            logits = _logits_of(prediction)
            if len(logits) != len(rows):  # a check of the metrics' names, with a few zeros
                return metrics(prediction)
            return metrics(EvalPrediction(self.of_texts(logits, rows), labels))

        return of_texts

    def trained_figures(self) -> dict[str, list[str]]:
        """The figures that the student trains on in this run, or was trained on in earlier ones."""
        return united(trained_figures(self.recipe), trained_by_record(self.training_history()))

    def training_history(self) -> dict[str, Any]:
        changed = self.unlabelled is not None and self.unlabelled.words_changed
        return super().training_history() | ({CHANGED_COPIES: True} if changed else {})

    @property
    def chooses_thresholds(self) -> bool:
        """Whether a multi-label student gets, for each label, the threshold of highest F1 on validation rows."""
        return self.task.multi_label and self.recipe.training.thresholds == "validation"

    def evaluate(
        self,
        trainer: DistillationTrainer,
        encoded: EncodedRows,
        inputs: Mapping[str, str],
        before: Mapping[str, float],
    ) -> dict[str, Any]:
        """The student's metrics and, with a teacher, the teacher's metrics and the student's loyalty."""
        return {
            **self._validated(encoded.rows["validation"], inputs, before),
            **self.tested(encoded.rows.get("test")),
        }

    def measure(self, trainer: DistillationTrainer, encoded: EncodedRows) -> dict[str, float]:
        """The loyalties of the untrained student. They are the floors of the trained student's loyalties."""
        teacher = self.models.teacher
        if teacher is None or not process_state().is_main_process:
            return {}
        device = next(teacher.model.parameters()).device
        floors = self._sample(teacher).initial(self.models.student.probed)
        placed(teacher.model, device)  # with stored signals the teacher stays in main memory
        return floors

    def _sample(self, teacher: LoadedModel) -> LoyaltySample:
        """The validation rows for loyalty before training, and for response loyalty after it."""
        rows, seed = self.splits.rows["validation"], self.recipe.training.seed
        placed(teacher.model, process_state().device)
        windows = self.recipe.windows
        return LoyaltySample(teacher.probed, self.tokenizer, self.task, rows, self.max_length, seed, windows)

    def _validated(
        self, validation: Dataset, inputs: Mapping[str, str], before: Mapping[str, float]
    ) -> dict[str, Any]:
        student = self.models.student.probed
        with progress_bars() as progress:
            has_teacher = self.models.facts is not None
            bar = progress.add_task("evaluating", total=len(validation) * (2 if has_teacher else 1))

            def done(rows: int) -> None:
                progress.advance(bar, rows)

            reference = self.reference(validation, inputs, done)
            labels = reference.labels if reference else None
            predictions = self._predictions(student, validation, labels, done)
        predictions = self._with_thresholds(predictions, validation)
        loyal = None
        if reference is not None:
            loyalties = self.compared(predictions, reference, validation)
            loyal = replace(loyalties, response=self.response(), floors=before).as_dict()
            loyal = with_trained_on(loyal, self.trained_figures())
        chosen = {} if predictions.thresholds is None else {"thresholds": self._thresholds(predictions)}
        return {
            **chosen,
            "eval": self._metrics(predictions, validation),
            "teacher_eval": self._metrics(reference, validation) if reference else None,
            "constant_eval": constant_metrics(self.task, text_labels(validation)),
            "loyalty": loyal,
            "warnings": [*self.splits.warnings, *self._doubts(predictions, reference, validation)],
        }

    def _predictions(
        self, probed: ProbedModel, rows: Dataset, labels: np.ndarray | None, done: Callable[[int], object]
    ) -> Predictions:
        """The predictions for encoded rows, with attribution maps if every text is one row."""
        if max(window_counts(rows) or [1]) == 1:
            return predict_rows(probed, rows, Collator(self.tokenizer), labels=labels, on_progress=done)
        model = probed.model
        logits = self.of_texts(predict_logits(model, rows, Collator(self.tokenizer), on_progress=done), rows)
        return Predictions(logits, multi_label=self.task.multi_label, thresholds=thresholds_of(model))

    def _with_thresholds(self, predictions: Predictions, validation: Dataset) -> Predictions:
        """The student's predictions with a threshold for each label. The student's configuration gets them too."""
        if not self.task.multi_label:
            return predictions
        labels, chosen = text_labels(validation), None
        if self.chooses_thresholds:
            chosen = choose_thresholds(predictions.logits, labels)
        set_thresholds(self.models.student.model, chosen)
        return replace(predictions, thresholds=thresholds_of(self.models.student.model))

    def _thresholds(self, predictions: Predictions) -> dict[str, float]:
        assert predictions.thresholds is not None
        return dict(zip(self.task.labels or (), predictions.thresholds.tolist(), strict=True))

    def compared(self, student: Predictions, teacher: Predictions, validation: Dataset) -> Loyalty:
        """The loyalties of the student's predictions to the teacher's, for the encoded rows."""
        return loyalty(student if teacher.maps else replace(student, maps=()), teacher)

    def response(self) -> Estimate | None:
        """Response loyalty on a sample of the validation rows; None where it cannot be measured."""
        assert self.models.teacher is not None  # there is a reference
        return self._sample(self.models.teacher).response(self.models.student.model)

    def reference(
        self, rows: Dataset, inputs: Mapping[str, str], done: Callable[[int], object]
    ) -> Predictions | None:
        """The teacher's predictions for encoded validation rows, from the cache if possible; None without a
        teacher."""
        if self.models.teacher is None:
            return None
        teacher: Any = self.models.teacher.model
        placed(teacher, self.models.student.model.device)
        several, narrow = max(window_counts(rows) or [1]) > 1, is_low_precision(teacher)
        if several or narrow:
            why = f"the teacher is in {teacher.dtype}" if narrow else "a text of several windows has no map"
            logger.info(f"saliency loyalty is left out: {why.replace('torch.', '')}")
        if several or narrow or self.signals.where == "online":
            return self._predictions(self.models.teacher.probed, rows, None, done)
        hashes = {
            "teacher": inputs["teacher"],
            "tokenizer": inputs["tokenizer"],
            "rows": inputs["validation"],
        }
        return cached_predictions(self.models.teacher.probed, self.tokenizer, rows, hashes, done)

    def tested(self, test: Dataset | None) -> dict[str, Any]:
        """The metrics of the models on the test split, which selects nothing; None for each without that split."""
        metrics: dict[str, Any] = {"test": None, "teacher_test": None, "constant_test": None}
        if test is None:
            return metrics
        metrics["constant_test"] = constant_metrics(self.task, text_labels(test))
        names = {"student": "test", "teacher": "teacher_test"}
        models = {names[owner]: reader.model for owner, reader in self.models.readers()}
        labels, collate = text_labels(test), Collator(self.tokenizer)
        with progress_bars() as progress:
            bar = progress.add_task("testing", total=len(test) * len(models))
            for name, model in models.items():
                logits = predict_logits(model, test, collate, on_progress=lambda n: progress.advance(bar, n))
                logits = self.of_texts(logits, test)
                metrics[name] = compute_metrics(self.task, logits, labels, thresholds_of(model))
        return metrics

    def _doubts(
        self, predictions: Predictions, reference: Predictions | None, validation: Dataset
    ) -> list[str]:
        """A warning if the teacher or else the student is no better than a constant prediction. Without a teacher the
        student is called the model."""
        student = "student" if reference else "model"
        for owner, model_predictions in (("teacher", reference), (student, predictions)):
            if model_predictions is not None:
                predicted = self.task.predicted(model_predictions.logits, model_predictions.thresholds)
                warning = constant_prediction_warning(self.task, predicted, text_labels(validation), owner)
                if warning:
                    return [warning]
        return []

    def _metrics(self, predictions: Predictions, validation: Dataset) -> dict[str, float]:
        labels = text_labels(validation)
        return compute_metrics(self.task, predictions.logits, labels, predictions.thresholds)

    def about(self, encoded: EncodedRows, inputs: Mapping[str, str]) -> dict[str, Any]:
        """The part of ``metrics.json`` about the data: how the rows were read, so that others can read the same."""
        test = encoded.rows.get("test")
        rows = {split: len(rows) for split, rows in self.splits.rows.items()}
        return {
            # Not part of the inputs that identify an unfinished run: no weight depends on the test rows.
            "inputs": {**inputs, "test": rows_hash(test)} if test is not None else inputs,
            "data": {
                "source": Path(self.names.get("data", "")).name,
                "text_columns": list(self.task.text_columns),
                "label_column": self.splits.label_column, "rows": rows, "notes": dict(self.splits.notes),
                "incomplete": {split: n for split, n in self.splits.incomplete.items() if n},
                "augmented": self.copies and self.copies.counts(),
            },
            "positive": self.task.positive_label,
            "overlap": self.splits.overlap,
        }  # fmt: skip


def labelled_rows(splits: Splits, settings: TrainingSettings) -> Dataset:
    """The rows of the training split that a recipe trains on: all, or ``max_train_rows`` drawn by the seed."""
    rows, wanted = splits.rows["train"], settings.max_train_rows
    if wanted is None or wanted >= len(rows):
        return rows
    logger.info(f"training on {wanted} of {len(rows)} rows")
    return rows.shuffle(seed=settings.seed).select(range(wanted))


def replaces_words(signals: Iterable[Signal]) -> bool:
    """Whether one of the signals replaces words of texts: encoded rows then need the word of each token."""
    return any(signal.replaces_words for signal in signals)


def _logits_of(prediction: EvalPrediction) -> np.ndarray:
    logits = prediction.predictions
    return np.asarray(logits[0] if isinstance(logits, tuple) else logits)


def _metrics_of(prediction: EvalPrediction, task: Task, *, choose: bool = False) -> dict[str, float]:
    """The task's metrics. ``choose``: each label's threshold is the one of highest F1 on these rows."""
    logits, labels = _logits_of(prediction), cast("Any", prediction.label_ids)
    return compute_metrics(task, logits, labels, choose_thresholds(logits, labels) if choose else None)
