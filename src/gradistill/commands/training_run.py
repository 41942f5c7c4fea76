"""The steps of every training run: check, train, evaluate, write. Subclasses define what differs.

``task_run.TaskRun`` trains a classifier on the rows of a task, ``pretrain.Pretraining`` an encoder on texts.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainingArguments,
)

from gradistill.commands.guarded_training import reporting_disk_errors, saving, trained
from gradistill.commands.identity import earlier_training
from gradistill.commands.model_pair import ModelPair
from gradistill.commands.run_folder import close_run, opened_run
from gradistill.commands.run_record import described, timing, versions
from gradistill.data import Collator, Cut
from gradistill.models.factorized_embedding import merge_embeddings
from gradistill.models.loading import set_padding
from gradistill.objectives import Term
from gradistill.recipe import Recipe
from gradistill.report.model_card import model_card
from gradistill.signals.teacher import TeacherSignals
from gradistill.store.fingerprint import model_hash, rows_hash, tokenizer_hash
from gradistill.training.arguments import CHECKPOINTS, overruled, sealing
from gradistill.training.distributed import process_state
from gradistill.training.trainer import DistillationTrainer
from gradistill.training.weight_average import WeightAverage

logger = logging.getLogger(__name__)


def loyalties_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The loyalties of a finished run with their floors, under the names that experiment trackers group by.

    Example: ``{"eval_response_loyalty": 0.81, "eval_response_loyalty_floor": 0.02}``
    """
    figures = {
        name: entry for name, entry in (metrics.get("loyalty") or {}).items() if isinstance(entry, dict)
    }
    logged = {f"eval_{name}_loyalty": entry.get("value") for name, entry in figures.items()}
    logged |= {f"eval_{name}_loyalty_floor": entry.get("floor") for name, entry in figures.items()}
    return {name: value for name, value in logged.items() if value is not None}


@dataclass(frozen=True)
class EncodedRows:
    """The encoded rows of a run, by split, and how many of their texts are cut."""

    rows: Mapping[str, Dataset]
    cut: Mapping[str, Cut]


@dataclass(frozen=True, kw_only=True)
class Run(ABC):
    """A training run with its models loaded and built. ``train`` gets the output folder.

    ``names`` are the display names of the student, the teacher and the data. By default the student has the name of
    the folder.
    """

    recipe: Recipe
    models: ModelPair
    tokenizer: PreTrainedTokenizerBase
    names: Mapping[str, str] = field(default_factory=dict)
    callbacks: Sequence[TrainerCallback] = ()

    hashed: ClassVar[tuple[str, ...]] = ("train",)
    """The splits that the weights depend on: other rows make it another run."""
    checked: ClassVar[tuple[str, ...]] = ("student", "teacher")
    """The models whose positions and vocabulary the rows are checked against, in this order."""

    def train(self, output: Path, *, overwrite: bool) -> dict[str, Any]:
        """Train, evaluate and write a run folder; returns what ``metrics.json`` holds.

        All processes train. Only the main process evaluates and writes; the others return an empty dictionary.
        Raises GradistillError, before any work, where models, rows and settings do not fit together.
        """
        student = self.models.student.model
        arguments = self.arguments(output)
        for line in overruled(self.recipe.training):
            logger.warning(line)
        logger.debug(f"device {arguments.device}; {', '.join(f'{k} {v}' for k, v in versions().items())}")
        set_padding(student, self.tokenizer)
        encoded = self.encode()
        self.check(encoded)

        inputs = self.hashes(encoded)
        made_from = {**inputs, **self.conditions(arguments)}
        with (
            reporting_disk_errors(output / CHECKPOINTS),
            opened_run(output, self.recipe, made_from, overwrite=overwrite) as checkpoint,
        ):
            teacher = self.teacher_signals(encoded, arguments)
            trainer = self.trainer(arguments, encoded, teacher)
            before = self.measure(trainer, encoded)
            if checkpoint:
                logger.info(f"going on from {checkpoint}")
            seconds = trained(trainer, checkpoint)
            merge_embeddings(student)
            if not process_state().is_main_process:
                return {}

            metrics = {
                "task": self.task_name,
                "method": self.recipe.method,
                "seed": self.recipe.training.seed,
                **self.described(output),
                "texts": {
                    "max_length": self.max_length,
                    **({} if self.recipe.windows is None else self.recipe.windows.as_dict()),
                    **{name: cut.as_dict() for name, cut in encoded.cut.items()},
                },
                **self.evaluate(trainer, encoded, inputs, before),
                **({"gradient_balance": balance} if (balance := trainer.gradient_balance) else {}),
                **self.other_batch_size(trainer),
                "timing": timing(
                    self.signal_seconds(teacher),
                    seconds,
                    (trainer.state.epoch or 0) * len(encoded.rows["train"]),
                ),
                "versions": versions(),
                **self.about(encoded, inputs),
            }
            trainer.log(loyalties_of(metrics))
            card = model_card({**metrics, "recipe": self.recipe.as_dict()})
            close_run(output, saving(self.saved_model(), self.tokenizer), self.recipe, metrics, card)
        return metrics

    @property
    @abstractmethod
    def task_name(self) -> str:
        """The name of the task in ``metrics.json``."""

    @abstractmethod
    def arguments(self, output: Path) -> TrainingArguments:
        """The training arguments. Raises RecipeError for settings that a run cannot apply."""

    @abstractmethod
    def encode(self) -> EncodedRows:
        """The encoded rows of each split, one of which is ``train``."""

    def check(self, encoded: EncodedRows) -> None:
        """Raise an error, before any work, for rows that a model cannot read."""
        readers = dict(self.models.readers())
        for owner in filter(readers.__contains__, self.checked):
            for rows in encoded.rows.values():
                readers[owner].limits.check(rows, self.tokenizer, owner=readers[owner].owner)

    def hashes(self, encoded: EncodedRows) -> dict[str, str]:
        """Hashes of what the run reads: the student at the start, the teacher, the tokenizer and the rows."""
        hashes = {owner: model_hash(reader.model) for owner, reader in self.models.readers()}
        hashes["tokenizer"] = tokenizer_hash(self.tokenizer)
        hashes |= {split: rows_hash(encoded.rows[split]) for split in self.hashed}
        for name, value in hashes.items():
            logger.debug(f"sha256 of {name}: {value}")
        return hashes

    def conditions(self, arguments: TrainingArguments) -> dict[str, str]:
        """Conditions outside the recipe that training depends on. A refusal to resume shows their names."""
        return {"processes": str(process_state().num_processes)}

    @abstractmethod
    def teacher_signals(self, encoded: EncodedRows, arguments: TrainingArguments) -> TeacherSignals | None:
        """The teacher's signals for the objectives, on their device; None if no objective needs a teacher."""

    def signal_seconds(self, teacher: TeacherSignals | None) -> float:
        """The seconds spent on the teacher's signals."""
        return 0.0

    def trainer(
        self, arguments: TrainingArguments, encoded: EncodedRows, teacher: TeacherSignals | None
    ) -> DistillationTrainer:
        pair, share = self.models.facts, self.recipe.training.average_weights
        averaging = [WeightAverage(share)] if share else []
        return DistillationTrainer(
            self.models.student.model,
            arguments,
            self.collator(),
            encoded.rows["train"],
            encoded.rows.get("validation"),
            processing_class=self.tokenizer,
            compute_metrics=self.metric_function(encoded),
            callbacks=[*averaging, sealing(self.recipe.training), *self.callbacks],
            teacher=teacher,
            objectives=self.terms,
            teacher_facts=pair.teacher if pair else None,
            shared_embeddings=pair.shared_embeddings if pair else True,
            compute=self.recipe.compute,
        )

    def collator(self) -> Collator:
        """The collator that makes batches of the training rows."""
        return Collator(self.tokenizer, pad_to=self.padded_length())

    def padded_length(self) -> int | None:
        """The length that every batch is padded to; None to pad each batch to its longest text."""
        return self.max_length if self.recipe.compute.pad_to_max_length else None

    def metric_function(self, encoded: EncodedRows) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """The function that computes the task's metrics in evaluations during training."""
        return None

    def measure(self, trainer: DistillationTrainer, encoded: EncodedRows) -> dict[str, float]:
        """Figures of the untrained student, which ``evaluate`` compares with the trained one."""
        return {}

    @abstractmethod
    def evaluate(
        self,
        trainer: DistillationTrainer,
        encoded: EncodedRows,
        inputs: Mapping[str, str],
        before: Mapping[str, float],
    ) -> dict[str, Any]:
        """The part of ``metrics.json`` about the trained student. ``before`` is the result of ``measure``."""

    def about(self, encoded: EncodedRows, inputs: Mapping[str, str]) -> dict[str, Any]:
        """The part of ``metrics.json`` about the data."""
        return {"inputs": inputs}

    def saved_model(self) -> PreTrainedModel:
        """The part of the student that is written."""
        return self.models.student.model

    def other_batch_size(self, trainer: DistillationTrainer) -> dict[str, int]:
        """The batch size that ``auto_find_batch_size`` used, if it is not the one of the recipe."""
        wanted, used = trainer.args.train_batch_size, trainer.batch_size
        if used == wanted:
            return {}
        logger.warning(f"batches of {wanted} rows did not fit into memory: the batch size was {used}")
        return {"batch_size": used}

    @property
    def terms(self) -> list[Term]:
        return list(self.recipe.objectives.values())

    @property
    def max_length(self) -> int:
        """Tokens at which texts are cut. It is set before the run is created (``commands.text_lengths``)."""
        assert self.recipe.training.max_length is not None
        return self.recipe.training.max_length

    def described(self, output: Path) -> dict[str, Any]:
        """Name and size of both models; the teacher is None in a run without one."""
        names = {"student": output.name, "teacher": "", **self.names}
        models: dict[str, Any] = {"student": None, "teacher": None}
        for owner, reader in self.models.readers():
            models[owner] = described(reader.model, names[owner], reader.probe)
        models["student"] |= self.training_history()
        return models

    def training_history(self) -> dict[str, Any]:
        """Earlier recipes and changed copies, for the student's record (``trained_by_record``)."""
        return earlier_training(self.started_from)

    @property
    def started_from(self) -> str | None:
        """The folder or hub id of the student's initial weights; None if they come from its teacher."""
        return self.recipe.student.checkpoint or self.models.student.name or None
