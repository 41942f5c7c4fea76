"""Pre-training of a student: a teacher's encoder distilled into a smaller one, on unlabelled texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed

from gradistill.commands.model_pair import ModelPair
from gradistill.commands.prepared_run import build_student
from gradistill.commands.run_folder import check_run
from gradistill.commands.text_lengths import new_length
from gradistill.commands.training_run import EncodedRows, Run
from gradistill.data import Cut, encode, load_texts
from gradistill.data.batching import row_batches
from gradistill.data.data_source import Source, is_path
from gradistill.data.unlabelled_texts import TEXTS
from gradistill.errors import RecipeError
from gradistill.io import path_of
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name, model_paths
from gradistill.models.tracing import evaluating
from gradistill.objectives import EpochProgress, Pair
from gradistill.recipe import Recipe
from gradistill.recipe.schema import check_recipe
from gradistill.signals import Logits, TargetSignal
from gradistill.signals.teacher import TeacherSignals
from gradistill.training.arguments import MetricNames, check_training, training_arguments
from gradistill.training.trainer import DistillationTrainer

logger = logging.getLogger(__name__)

HELD_OUT, MOST_HELD_OUT = 0.02, 500
"""The share of texts that are held out of training, and their largest number. They are measured before and after."""


def pretrain(
    teacher: ModelSource,
    texts: Sequence[Source],
    output: str | Path,
    recipe: Recipe,
    *,
    text_columns: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Distil an encoder, fine-tuned or not, into the student that the recipe describes; no label is read.

    The run folder holds the encoder without a head, a checkpoint for ``distill --student``.

    Parameters:
        ``teacher``: a folder, a hub id, ``minilm-l6``, or a pair ``(model, tokenizer)``.
        ``texts``: a list of paths, hub ids, or objects with rows (a ``Dataset``, a frame, a list of dicts).
        ``output``: the run folder.
        ``recipe``: a recipe from ``load_recipe("pretrain")``.
        ``text_columns``: the columns of text, if they cannot be inferred.
        ``overwrite``: replace an earlier run in that folder.

    Returns what ``metrics.json`` holds: the distances on held-out texts, before and after. Raises RecipeError for a
    recipe that needs labels.

    Example: ``pretrain("minilm-l6", ["DATA/mrpc"], "runs/small", load_recipe("pretrain"))``
    """
    check_recipe(recipe)
    output, texts = path_of(output), _listed(texts)
    reads = (*model_paths(teacher, recipe.student.checkpoint), *filter(is_path, texts))
    check_run(output, recipe, overwrite=overwrite, reads=reads)
    check_training(recipe, MetricNames())
    _refuse_options(recipe)
    # A teacher without a head gets a random one, which changes the teacher's hash among the run's inputs.
    set_seed(recipe.training.seed)
    tokenizer, (model, _) = load_tokenizer(teacher), load_classifier(teacher, new_head=True)
    set_padding(model, tokenizer)
    set_seed(recipe.training.seed)
    reader = LoadedModel("teacher", model_folder(teacher), model)
    student = build_student(reader, tokenizer, recipe.student)
    recipe = recipe.with_length(new_length(recipe.training.max_length, [reader, student]))
    models = ModelPair.of(student, reader, recipe)
    names = {"teacher": model_name(teacher)}
    run = Pretraining(
        recipe=recipe,
        models=models,
        tokenizer=tokenizer,
        names=names,
        texts=load_texts(texts, text_columns=text_columns),
    )
    return run.train(output, overwrite=overwrite)


def _refuse_options(recipe: Recipe) -> None:
    """Raise RecipeError for settings that have no meaning without labels."""
    if recipe.training.augment:
        raise RecipeError(
            f"training.augment is {recipe.training.augment}, and pre-training copies no texts",
            expected="texts as they are",
            remedy="leave it out, and name more --texts",
        )
    if recipe.training.windows not in (None, "off"):
        raise RecipeError(
            f"training.windows is {recipe.training.windows}, and pre-training predicts nothing that could be pooled",
            expected="texts that are cut at max_length",
            remedy="leave it out here, and give it to finetune and distill",
        )
    if recipe.training.window_overlap is not None:
        raise RecipeError(
            f"training.window_overlap is {recipe.training.window_overlap}, and pre-training has no windows",
            expected="texts that are cut at max_length",
            remedy="leave it out here",
        )
    if recipe.student.size is not None:
        raise RecipeError(
            f"student.size is {recipe.student.size}, and pre-training writes no classifier that could be counted",
            expected="layers or a width",
            remedy="give --student-layers or --student-width; distill takes the size",
        )


@dataclass(frozen=True, kw_only=True)
class Pretraining(Run):
    """A run on texts without labels."""

    texts: Dataset

    checked: ClassVar[tuple[str, ...]] = ("teacher", "student")

    @property
    def task_name(self) -> str:
        return "texts"

    def arguments(self, output: Path) -> TrainingArguments:
        return training_arguments(self.recipe.training, output, MetricNames())

    def encode(self) -> EncodedRows:
        training, held_out, cut = _rows(self.texts, self.tokenizer, self.recipe)
        return EncodedRows({"train": training, "held_out": held_out}, {"all": cut})

    def check(self, encoded: EncodedRows) -> None:
        super().check(encoded)
        assert self.models.facts is not None
        _refuse_prediction_objectives(self.recipe, self.models.facts)

    def teacher_signals(self, encoded: EncodedRows, arguments: TrainingArguments) -> TeacherSignals:
        online = self.models.online
        assert online is not None
        online.model.to(arguments.device)
        return online

    def measure(self, trainer: DistillationTrainer, encoded: EncodedRows) -> dict[str, float]:
        """The distances of all terms on the held-out texts."""
        return _distances(trainer, encoded.rows["held_out"])

    def evaluate(
        self,
        trainer: DistillationTrainer,
        encoded: EncodedRows,
        inputs: Mapping[str, str],
        before: Mapping[str, float],
    ) -> dict[str, Any]:
        after = self.measure(trainer, encoded)
        return {"held_out": {"n": len(encoded.rows["held_out"]), "before": before, "after": after}}

    def saved_model(self) -> PreTrainedModel:
        """The encoder without its head, which is not trained."""
        encoder: Any = self.models.student.model.base_model
        return encoder


def _listed(texts: Any) -> list[Source]:
    """The sources of the texts as a list. A list of dicts is one source."""
    rows = isinstance(texts, list | tuple) and texts and isinstance(texts[0], Mapping)
    return list(texts) if isinstance(texts, list | tuple) and not rows else [texts]


def _refuse_prediction_objectives(recipe: Recipe, pair: Pair) -> None:
    """Raise RecipeError for objectives on predictions: texts without a task train only the layers below the head."""
    for term in recipe.objectives.values():
        signals = term.objective.signals(pair, "student").values()
        if any(isinstance(signal, Logits | TargetSignal) for signal in signals):
            raise RecipeError(
                f"the objective {term.name} compares predictions for a task, and pre-training has none",
                expected="objectives on hidden states and self-attention",
                remedy="leave it out here, and name it when you distil the task",
            )


def _rows(texts: Dataset, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> tuple[Dataset, Dataset, Cut]:
    """The encoded rows to train on and to hold out, drawn by the seed, and the count of cut texts in both."""
    drawn = texts.shuffle(seed=recipe.training.seed)
    if recipe.training.max_train_rows is not None:
        drawn = drawn.select(range(min(len(drawn), recipe.training.max_train_rows)))
    assert recipe.training.max_length is not None  # set before
    encoded = encode(drawn, tokenizer, TEXTS, max_length=recipe.training.max_length)
    if encoded.truncated:
        logger.info(str(encoded.cut))
    rows = encoded.dataset
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(rows))))
    if len(rows) < 2:
        raise RecipeError(
            f"Pre-training has {len(rows)} text.",
            expected="two or more",
            remedy="name files with more texts, or raise training.max_train_rows",
        )
    logger.info(f"pre-training on {len(rows) - count} texts; {count} are held out")
    return rows.select(range(count, len(rows))), rows.select(range(count)), encoded.cut


def _distances(trainer: DistillationTrainer, rows: Dataset) -> dict[str, float]:
    """The mean distance of every term over rows, as in training but without dropout."""
    student: Any = trainer.model
    collate: Any = trainer.data_collator
    step = replace(trainer.step, terms=[replace(term, share=1.0) for term in trainer.step.terms])
    sums = dict.fromkeys((term.name for term in step.terms), 0.0)
    with evaluating(student), torch.no_grad():
        for batch in row_batches(rows, collate, student.device):
            step.student.verified(batch.batch)
            for name, values in step.distances(student, batch.batch, EpochProgress())[0].items():
                sums[name] += float(values.sum())
    return {name: round(total / len(rows), 6) for name, total in sums.items()}
