"""One training run: everything between models and rows in memory and a finished run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from torch import nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
)

from gradistill.audit import Answers, ask, loyalty, predicted_logits
from gradistill.data import Collator, Cut, Encoded, Splits, Task, compute_metrics, encode
from gradistill.jobs.account import described, timing, versions
from gradistill.jobs.data_warnings import doubtful_teacher, teacher_warning
from gradistill.jobs.folder import close_run, opened_run
from gradistill.jobs.guarded import disk_trouble_told, epochs_done, saving, trained
from gradistill.jobs.remembering import remembered_answers
from gradistill.jobs.signals import AUTO, StoreChoice, plan_store, stored_teacher
from gradistill.models.limits import Limits
from gradistill.models.loading import set_padding
from gradistill.models.placing import placed
from gradistill.models.probe import Probe
from gradistill.objectives import Pair, Term
from gradistill.printing import progress_bars
from gradistill.recipe import Recipe, TrainingSettings
from gradistill.report.card import model_card
from gradistill.signals import Signal
from gradistill.signals.building import Build
from gradistill.signals.fingerprint import of_model, of_rows, of_tokenizer
from gradistill.signals.layout import Encoding
from gradistill.signals.store import StoredTeacher
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.arguments import CHECKPOINTS, Measured, sealing, training_arguments
from gradistill.training.processes import processes
from gradistill.training.step import signals_of
from gradistill.training.trainer import DistillationTrainer, online_teacher

logger = logging.getLogger(__name__)

_BEST = "metric_for_best_model"


@dataclass(frozen=True)
class Run:
    """One training run: everything that does not depend on whether there is a teacher."""

    output: Path
    recipe: Recipe
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    signals: StoreChoice = AUTO
    names: Mapping[str, str] = field(default_factory=dict)
    """What people call the teacher, the data and the student, which else is called like its folder."""
    unlabelled: Dataset | None = None
    callbacks: Sequence[TrainerCallback] = ()
    cut: dict[str, Cut] = field(default_factory=dict, init=False)
    """How many texts of each split are cut, once it is encoded."""

    @property
    def max_length(self) -> int:
        """The length at which texts are cut, which is settled before there is a run (``jobs.lengths``)."""
        assert self.recipe.training.max_length is not None
        return self.recipe.training.max_length

    def train(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, *, overwrite: bool
    ) -> dict[str, Any]:
        """Of several processes all train; the first evaluates, writes, and alone has metrics to give."""
        task = self.splits.task
        arguments = training_arguments(
            self._selecting(self.recipe.training),
            self.output,
            Measured(task.select, task.metrics, classes=task.labels is not None),
        )
        self._tell_what_selects(arguments)
        logger.debug(f"device {arguments.device}; {', '.join(f'{k} {v}' for k, v in versions().items())}")
        set_padding(student, self.tokenizer)
        training, validation = self.encoded("train"), self.encoded("validation")
        test = self.encoded("test") if "test" in self.splits.rows else None
        online = online_teacher(teacher, self.recipe.compute) if teacher is not None else None
        self._check(student, online, [rows for rows in (training, validation, test) if rows is not None])
        if teacher is not None:
            self.warn_of_weak_teacher(teacher, validation)
        inputs = self._inputs(student, teacher, training, validation)
        for name, mark in inputs.items():
            logger.debug(f"sha256 of {name}: {mark}")
        with (
            disk_trouble_told(self.output / CHECKPOINTS),
            opened_run(self.output, self.recipe, inputs, overwrite=overwrite) as checkpoint,
        ):
            stored = self._stored(student, online, training) if online and self.recipe.needs_teacher else None
            trainer = self._trainer(
                student, online, stored, arguments, {"train": training, "validation": validation}
            )
            if checkpoint:
                logger.info(f"going on from {checkpoint}")
            seconds = trained(trainer, checkpoint)
            if not processes().is_main_process:
                return {}
            metrics = {
                "task": self.splits.task.name,
                "method": self.recipe.method,
                "seed": self.recipe.training.seed,
                "student": described(student, self.names.get("student", self.output.name)),
                "teacher": described(teacher, self.names.get("teacher", "")) if teacher is not None else None,
                "texts": {
                    "max_length": self.max_length,
                    **{name: c.as_dict() for name, c in self.cut.items()},
                },
                **self._evaluated(student, teacher, validation, inputs),
                **self._tested(student, teacher, test),
                "timing": timing(
                    sum((source.seconds for source in (online, stored) if source), 0.0),
                    seconds,
                    epochs_done(trainer) * len(training),
                ),
                "versions": versions(),
                # Not among what an unfinished run is known by: no weight depends on these rows.
                "inputs": {**inputs, "test": of_rows(test)} if test is not None else inputs,
                "data": self._data(),
                "positive": self.splits.task.positive_label,
                "overlap": self.splits.overlap,
            }
            card = model_card({**metrics, "recipe": self.recipe.as_dict()})
            close_run(self.output, saving(student, self.tokenizer), self.recipe, metrics, card)
        return metrics

    def _data(self) -> dict[str, Any]:
        """How the rows were read, so that others can read the same ones."""
        rows = {split: len(rows) for split, rows in self.splits.rows.items()}
        return {
            "source": Path(self.names.get("data", "")).name, "text_columns": list(self.splits.task.text_columns),
            "label_column": self.splits.label_column, "rows": rows, "notes": dict(self.splits.notes),
        }  # fmt: skip

    def _check(
        self, student: PreTrainedModel, teacher: OnlineTeacher | None, splits: Sequence[Dataset]
    ) -> None:
        """Raise an error, before any work, for rows that a model cannot read and objectives that do not apply."""
        models = {"student": student, **({"teacher": teacher.model} if teacher is not None else {})}
        for owner, model in models.items():
            limits = Limits.find(model)
            for rows in splits:
                limits.check(rows, self.tokenizer, owner=owner)
        if teacher is not None:
            self.asked(student, teacher)

    def warn_of_weak_teacher(self, teacher: PreTrainedModel, validation: Dataset) -> None:
        """Warn, before any work, of a teacher that does not know the task."""
        placed(teacher, processes().device)
        if warning := doubtful_teacher(teacher, validation, Collator(self.tokenizer), self.splits.task):
            logger.warning(warning)

    def _inputs(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        training: Dataset,
        validation: Dataset,
    ) -> dict[str, str]:
        """Hashes of what the run reads: what it starts from, whom it learns from, and of which rows."""
        teachers = {"teacher": of_model(teacher)} if teacher is not None else {}
        rows = {"train": of_rows(training), "validation": of_rows(validation)}
        return {"student": of_model(student), **teachers, "tokenizer": of_tokenizer(self.tokenizer), **rows}

    def asked(self, student: PreTrainedModel, teacher: OnlineTeacher) -> tuple[Signal, ...]:
        """What the objectives request of the teacher. Raises RecipeError where one cannot apply to the pair."""
        pair = self._facts(student, teacher)
        for term in self.terms:
            term.objective.check(pair)
        return tuple(signals_of(self.terms, pair, "teacher"))

    def plan(
        self, asked: Sequence[Signal], teacher: OnlineTeacher, training: Dataset, encoding: Encoding,
        folder: Path | None,
    ) -> Build:  # fmt: skip
        """The store of what was asked for."""
        return plan_store(
            folder, teacher, self.tokenizer, training, asked, encoding=encoding,
            max_length=self.max_length,
            about={"method": self.recipe.method, "task": self.splits.task.name, **self.names},
        )  # fmt: skip

    def _stored(
        self, student: PreTrainedModel, teacher: OnlineTeacher, training: Dataset
    ) -> StoredTeacher | None:
        if self.signals.where == "online":
            return None
        asked = self.asked(student, teacher)
        plan = self.plan(asked, teacher, training, self.signals.written_as, self.signals.folder)
        return stored_teacher(self.signals, plan, teacher, self.tokenizer)

    def _facts(self, student: PreTrainedModel, teacher: OnlineTeacher) -> Pair:
        embeddings_differ = self.recipe.student.checkpoint and self.recipe.student.embeddings == "own"
        return Pair(Probe.find(student), teacher.probe, not embeddings_differ)

    @property
    def terms(self) -> list[Term]:
        return list(self.recipe.objectives.values())

    def encoded(self, split: str) -> Dataset:
        rows = self.splits.rows[split]
        wanted = self.recipe.training.max_train_rows
        if split == "train" and wanted is not None and wanted < len(rows):
            rows = rows.shuffle(seed=self.recipe.training.seed).select(range(wanted))
            logger.info(f"training on {wanted} of {len(self.splits.rows[split])} rows")
        if split == "train" and self.unlabelled is not None:
            rows = concatenate_datasets([rows, self.unlabelled])
        encoded: Encoded = encode(rows, self.tokenizer, self.splits.task, max_length=self.max_length)
        self.cut[split] = encoded.cut
        if encoded.truncated:
            logger.info(f"{split}: {encoded.cut}")
        return encoded.dataset

    def _trainer(
        self,
        student: PreTrainedModel,
        online: OnlineTeacher | None,
        stored: StoredTeacher | None,
        arguments: TrainingArguments,
        rows: Mapping[str, Dataset],
    ) -> DistillationTrainer:
        settings, task = self.recipe.training, self.splits.task
        padded = self.max_length if self.recipe.compute.pad_to_max_length else None
        if online is not None:
            online.model.to("cpu" if stored else arguments.device)
        pair = self._facts(student, online) if online else None
        return DistillationTrainer(
            student,
            arguments,
            Collator(self.tokenizer, pad_to=padded),
            rows["train"],
            rows["validation"],
            processing_class=self.tokenizer,
            compute_metrics=lambda prediction: _metrics_of(prediction, task),
            callbacks=[sealing(settings), *self.callbacks],
            teacher=(stored or online) if self.recipe.needs_teacher else None,
            objectives=self.terms,
            teacher_facts=pair.teacher if pair else None,
            shared_embeddings=pair.shared_embeddings if pair else True,
            compute=self.recipe.compute,
        )

    def _tell_what_selects(self, arguments: TrainingArguments) -> None:
        """Where it is not the task's own metric."""
        name = str(arguments.metric_for_best_model or "").removeprefix("eval_")
        if arguments.load_best_model_at_end and name != self.splits.task.select:
            best = "highest" if arguments.greater_is_better else "lowest"
            logger.info(f"the checkpoint with the {best} {name} is kept")

    def _selecting(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings with the metric that selects under its name here: f1 of several classes is macro_f1."""
        given = settings.arguments.get(_BEST)
        if not isinstance(given, str):
            return settings
        name = self.splits.task.metric(given.removeprefix("eval_"))
        if name == given.removeprefix("eval_"):
            return settings
        logger.info(
            f"{_BEST} {given}: of {self.splits.task.num_labels} classes that is {name}, the mean over them"
        )
        return settings.model_copy(update={"arguments": {**settings.arguments, _BEST: name}})

    def _evaluated(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        validation: Dataset,
        inputs: Mapping[str, str],
    ) -> dict[str, Any]:
        """Metrics and, where there is a teacher, its metrics and the student's loyalty to it."""
        with progress_bars() as progress:
            bar = progress.add_task("evaluating", total=len(validation) * (1 if teacher is None else 2))

            def done(rows: int) -> None:
                progress.advance(bar, rows)

            reference = None
            if teacher is not None:
                reference = self._asked(teacher.to(student.device), validation, inputs, done)  # pyright: ignore[reportArgumentType]
            labels = reference.labels if reference else None
            answers = ask(student, validation, Collator(self.tokenizer), labels=labels, on_progress=done)
        return {
            "eval": self._metrics(answers, validation),
            "teacher_eval": self._metrics(reference, validation) if reference else None,
            "loyalty": loyalty(answers, reference).as_dict() if reference else None,
            "warnings": [*self.splits.warnings, *self._doubts(answers, reference, validation)],
        }

    def _tested(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, test: Dataset | None
    ) -> dict[str, Any]:
        """The metrics of both models on the test split, which nothing was chosen by; None where there is none."""
        found: dict[str, Any] = {"test": None, "teacher_test": None}
        if test is None:
            return found
        models = {"test": student, **({"teacher_test": teacher} if teacher is not None else {})}
        labels, collate = np.asarray(test["labels"][:]), Collator(self.tokenizer)
        with progress_bars() as progress:
            bar = progress.add_task("testing", total=len(test) * len(models))
            for name, model in models.items():
                logits = predicted_logits(
                    model, test, collate, on_progress=lambda n: progress.advance(bar, n)
                )
                found[name] = compute_metrics(self.splits.task, logits, labels)
        return found

    def _doubts(self, answers: Answers, reference: Answers | None, validation: Dataset) -> list[str]:
        """What is wrong with the teacher, or without one with the model that may become one."""
        judged, owner = (answers, "model") if reference is None else (reference, "teacher")
        task, labels = self.splits.task, np.asarray(validation["labels"][:])
        predicted = judged.logits[:, 0] if task.labels is None else judged.labels
        warning = teacher_warning(task, predicted, labels, owner)
        return [warning] if warning else []

    def _asked(
        self,
        teacher: nn.Module,
        rows: Dataset,
        inputs: Mapping[str, str],
        on_progress: Callable[[int], object],
    ) -> Answers:
        if self.signals.where == "online":
            return ask(teacher, rows, Collator(self.tokenizer), on_progress=on_progress)
        hashes = {
            "teacher": inputs["teacher"],
            "tokenizer": inputs["tokenizer"],
            "rows": inputs["validation"],
        }
        return remembered_answers(teacher, self.tokenizer, rows, hashes, on_progress)

    def _metrics(self, answers: Answers, validation: Dataset) -> dict[str, float]:
        labels = np.asarray(validation["labels"][:])
        return compute_metrics(self.splits.task, answers.logits, labels)


def _metrics_of(prediction: EvalPrediction, task: Task) -> dict[str, float]:
    logits = (
        prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    )
    return compute_metrics(task, logits, prediction.label_ids)  # pyright: ignore[reportArgumentType]
