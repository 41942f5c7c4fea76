"""Fine-tuning and distillation, from names to a run folder: load, build, train, compare, write."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import Dataset
from rich.progress import Progress
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from gradistill.audit import Answers, ask, loyalty
from gradistill.data import (
    Collator,
    Encoded,
    Splits,
    Task,
    align_labels,
    compute_metrics,
    encode,
    load_splits,
)
from gradistill.errors import RecipeError
from gradistill.jobs.folder import check_run, close_run, open_run
from gradistill.models.loading import (
    Head,
    label_names,
    load_classifier,
    load_tokenizer,
    set_padding,
    without_file_bars,
)
from gradistill.models.probe import Probe
from gradistill.models.student import (
    share_embeddings,
    silence_embedding_dropout,
    student_from_checkpoint,
    student_from_teacher,
)
from gradistill.models.tokenizers import check_same_tokens
from gradistill.recipe import Recipe, StudentSettings
from gradistill.report.card import model_card
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.arguments import training_arguments
from gradistill.training.step import Term
from gradistill.training.trainer import DistillationTrainer, facts

Say = Callable[[str], object]


@dataclass(frozen=True)
class DataChoice:
    """Where the rows are and how to read them; see ``load_splits``."""

    source: str
    task: str | None = None
    label_column: str | None = None
    text_columns: tuple[str, ...] | None = None

    def load(self, splits: tuple[str, ...] = ("train", "validation")) -> Splits:
        return load_splits(
            self.source,
            task=self.task,
            splits=splits,
            label_column=self.label_column,
            text_columns=self.text_columns,
        )


def finetune(
    model: str,
    data: DataChoice,
    output: str | Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Fine-tune a pre-trained model into a teacher; returns what ``metrics.json`` holds."""
    if recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} needs a teacher",
            expected="finetune",
            remedy="use gradistill distill",
        )
    check_run(Path(output), recipe, overwrite=overwrite, reads=(model, data.source))
    splits = data.load()
    say(splits.describe())
    set_seed(recipe.training.seed)
    tokenizer = load_tokenizer(model)
    student, _ = load_classifier(model, head=Head(splits.task.labels), new_head=True)
    run = _Run(Path(output), recipe, splits, tokenizer, say)
    return run.train(student, None, student_name=model, overwrite=overwrite)


def distill(
    teacher: str,
    data: DataChoice,
    output: str | Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Distil a fine-tuned teacher into a student; returns what ``metrics.json`` holds."""
    reads = (teacher, data.source, recipe.student.checkpoint)
    check_run(Path(output), recipe, overwrite=overwrite, reads=reads)
    tokenizer = load_tokenizer(teacher)
    teacher_model, _ = load_classifier(teacher)
    splits = align_labels(data.load(), label_names(teacher_model))
    say(splits.describe())
    set_seed(recipe.training.seed)
    student = build_student(teacher_model, tokenizer, recipe.student)
    run = _Run(Path(output), recipe, splits, tokenizer, say)
    return run.train(student, teacher_model, teacher_name=teacher, overwrite=overwrite)


def build_student(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings
) -> PreTrainedModel:
    """The student that the settings describe; without a depth or a checkpoint, half of the teacher's layers."""
    if settings.checkpoint is not None:
        if settings.layers is not None:
            raise RecipeError(
                "both a student checkpoint and a number of student layers came",
                expected="one of them",
                remedy="drop --student-layers: a checkpoint has its own depth",
            )
        check_same_tokens(load_tokenizer(settings.checkpoint), tokenizer)
        student = student_from_checkpoint(settings.checkpoint, teacher, dropout=settings.dropout)
    else:
        layers = settings.layers or max(1, teacher.config.num_hidden_layers // 2)
        student = student_from_teacher(
            teacher, layers, layer_map=settings.layer_map, dropout=settings.dropout
        )
    set_padding(student, tokenizer)
    share_embeddings(student, teacher, settings.embeddings)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(student)
    return student


@dataclass(frozen=True)
class _Run:
    """One training run: everything that does not depend on whether there is a teacher."""

    output: Path
    recipe: Recipe
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    say: Say

    def train(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        *,
        overwrite: bool,
        student_name: str = "",
        teacher_name: str = "",
    ) -> dict[str, Any]:
        set_padding(student, self.tokenizer)
        training, validation = self._encoded("train"), self._encoded("validation")
        online = None
        if teacher is not None:
            set_padding(teacher, self.tokenizer)
            online = OnlineTeacher(teacher)
        checkpoint = open_run(self.output, self.recipe, overwrite=overwrite)
        trainer = self._trainer(student, online, training, validation)
        if checkpoint:
            self.say(f"going on from {checkpoint}")
        start = perf_counter()
        with without_file_bars():
            trainer.train(resume_from_checkpoint=checkpoint)
            train_seconds = perf_counter() - start
            # Not save_model: it adds a pickle of the arguments, which recipe.yaml says better.
            student.save_pretrained(self.output)
            self.tokenizer.save_pretrained(self.output)
        metrics = {
            "task": self.splits.task.name,
            "method": self.recipe.method,
            "seed": self.recipe.training.seed,
            "student": _described(student, student_name or self.output.name),
            "teacher": _described(teacher, teacher_name) if teacher is not None else None,
            **self._evaluated(student, teacher, validation),
            "timing": _timing(online, train_seconds, len(training) * self.recipe.training.epochs),
            "versions": versions(),
        }
        close_run(self.output, metrics, model_card({**metrics, "recipe": self.recipe.as_dict()}))
        return metrics

    def _encoded(self, split: str) -> Dataset:
        rows = self.splits.rows[split]
        wanted = self.recipe.training.max_train_rows
        if split == "train" and wanted is not None and wanted < len(rows):
            rows = rows.shuffle(seed=self.recipe.training.seed).select(range(wanted))
            self.say(f"training on {wanted} of {len(self.splits.rows[split])} rows")
        encoded: Encoded = encode(
            rows, self.tokenizer, self.splits.task, max_length=self.recipe.training.max_length
        )
        if encoded.truncated:
            self.say(
                f"{split}: {encoded.truncated} of {len(rows)} texts are cut at "
                f"{self.recipe.training.max_length} tokens (the longest has {encoded.longest})"
            )
        return encoded.dataset

    def _trainer(
        self, student: PreTrainedModel, teacher: OnlineTeacher | None, training: Dataset, validation: Dataset
    ) -> DistillationTrainer:
        settings, task = self.recipe.training, self.splits.task
        arguments = training_arguments(settings, self.output, select=task.select)
        if teacher is not None:
            teacher.model.to(arguments.device)
        embeddings_differ = self.recipe.student.checkpoint and self.recipe.student.embeddings == "own"
        return DistillationTrainer(
            student,
            teacher if self.recipe.needs_teacher else None,
            [Term(entry.objective, entry.weight) for entry in self.recipe.objectives.values()],
            teacher_facts=facts(teacher.probe) if teacher else None,
            shared_embeddings=not embeddings_differ,
            args=arguments,
            data_collator=Collator(self.tokenizer),
            train_dataset=training,
            eval_dataset=validation,
            processing_class=self.tokenizer,
            compute_metrics=lambda prediction: _metrics_of(prediction, task),
        )

    def _evaluated(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, validation: Dataset
    ) -> dict[str, Any]:
        """Metrics and, where there is a teacher, its metrics and the student's loyalty to it."""
        collate = Collator(self.tokenizer)
        models = {"teacher": teacher, "student": student}
        asked = {owner: model for owner, model in models.items() if model is not None}
        answers: dict[str, Answers] = {}
        with Progress(transient=True) as progress:
            bar = progress.add_task("evaluating", total=len(validation) * len(asked))
            for owner, model in asked.items():
                answers[owner] = ask(
                    model, validation, collate,
                    labels=answers["teacher"].labels if "teacher" in answers else None,
                    on_progress=lambda done: progress.advance(bar, done),
                )  # fmt: skip
        reference = answers.get("teacher")
        return {
            "eval": self._metrics(answers["student"], validation),
            "teacher_eval": self._metrics(reference, validation) if reference else None,
            "loyalty": loyalty(answers["student"], reference).as_dict() if reference else None,
        }

    def _metrics(self, answers: Answers, validation: Dataset) -> dict[str, float]:
        labels = np.asarray(validation["labels"][:])
        return compute_metrics(self.splits.task, answers.logits, labels)


def _metrics_of(prediction: EvalPrediction, task: Task) -> dict[str, float]:
    logits = (
        prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    )
    return compute_metrics(task, logits, prediction.label_ids)  # pyright: ignore[reportArgumentType]


def _described(model: PreTrainedModel, name: str) -> dict[str, Any]:
    probe = Probe.find(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"name": Path(name).name, "layers": probe.layers, "hidden": probe.width, "parameters": parameters}


def _timing(teacher: OnlineTeacher | None, train_seconds: float, examples: float) -> dict[str, float]:
    return {
        "signals_s": round(teacher.seconds, 3) if teacher else 0.0,
        "train_s": round(train_seconds, 3),
        "examples_per_s": round(examples / train_seconds, 2),
        "peak_rss_mb": round(_peak_rss_mb(), 1),
    }


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("gradistill", "torch", "transformers", "datasets")},
    }


def _peak_rss_mb() -> float:
    """The process's largest resident set so far, in MB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
