"""Pre-training of a student: a teacher's encoder distilled into a smaller one, on texts that nobody labelled."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from gradistill.data import Collator, Cut, encode, load_texts
from gradistill.data.batching import row_batches
from gradistill.data.data_source import Source, is_path
from gradistill.data.texts import TEXTS
from gradistill.errors import RecipeError
from gradistill.jobs.account import described, timing, versions
from gradistill.jobs.folder import check_run, close_run, opened_run
from gradistill.jobs.guarded import disk_trouble_told, epochs_done, saving, trained
from gradistill.jobs.lengths import Reader, new_length
from gradistill.jobs.runs import build_student
from gradistill.models.limits import Limits
from gradistill.models.loading import load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name, model_paths
from gradistill.models.probe import Probe
from gradistill.models.tracing import evaluating
from gradistill.objectives import Moment, Pair
from gradistill.recipe import Recipe
from gradistill.report.card import model_card
from gradistill.signals import Logits, TargetSignal
from gradistill.signals.fingerprint import of_model, of_rows, of_tokenizer
from gradistill.training.arguments import CHECKPOINTS, Measured, check_training, sealing, training_arguments
from gradistill.training.processes import processes
from gradistill.training.trainer import DistillationTrainer, online_teacher

logger = logging.getLogger(__name__)

HELD_OUT, MOST_HELD_OUT = 0.02, 500
"""Share and number of texts that are not trained on, but measured before and after."""


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

    What is written is the encoder alone, a checkpoint for ``distill --student``. Returns what ``metrics.json`` holds:
    the distances on texts held out, before and after. ``teacher`` is given as to ``finetune``; ``texts`` is a list of
    paths, hub ids, or objects with rows (a ``Dataset``, a frame, a list of dicts). Raises RecipeError for a recipe that
    asks about labels.
    """
    output, texts = Path(output), _listed(texts)
    reads = (*model_paths(teacher, recipe.student.checkpoint), *filter(is_path, texts))
    check_run(output, recipe, overwrite=overwrite, reads=reads)
    check_training(recipe, Measured())
    tokenizer, (model, _) = load_tokenizer(teacher), load_classifier(teacher, new_head=True)
    set_padding(model, tokenizer)
    set_seed(recipe.training.seed)
    student: Any = build_student(model, tokenizer, recipe.student)
    readers = [Reader("teacher", model_folder(teacher), model), Reader("student", "", student)]
    recipe = recipe.with_length(new_length(recipe.training.max_length, readers))
    training, held_out, cut = _rows(texts, text_columns, tokenizer, recipe)
    for reader in readers:
        limits = Limits.find(reader.model)
        for rows in (training, held_out):
            limits.check(rows, tokenizer, owner=reader.owner)
    _refuse_answers(recipe, Pair(Probe.find(student), Probe.find(model)))
    names = {"student": output.name, "teacher": model_name(teacher)}
    run = _Pretraining(output, recipe, student, model, tokenizer, training, held_out, cut, names)
    return run.train(overwrite=overwrite)


@dataclass(frozen=True)
class _Pretraining:
    """One run, with everything loaded."""

    output: Path
    recipe: Recipe
    student: Any
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    training: Dataset
    held_out: Dataset
    cut: Cut
    names: Mapping[str, str]

    def train(self, *, overwrite: bool) -> dict[str, Any]:
        """Of several processes all train; the first measures, writes, and alone has metrics to give."""
        inputs = {
            "student": of_model(self.student), "teacher": of_model(self.teacher),
            "tokenizer": of_tokenizer(self.tokenizer), "train": of_rows(self.training),
        }  # fmt: skip
        with (
            disk_trouble_told(self.output / CHECKPOINTS),
            opened_run(self.output, self.recipe, inputs, overwrite=overwrite) as checkpoint,
        ):
            trainer = self._trainer()
            before = _distances(trainer, self.held_out)
            if checkpoint:
                logger.info(f"going on from {checkpoint}")
            seconds = trained(trainer, checkpoint)
            if not processes().is_main_process:
                return {}
            after = _distances(trainer, self.held_out)
            examples = epochs_done(trainer) * len(self.training)
            models = {"student": self.student, "teacher": self.teacher}
            metrics = {
                "task": "texts", "method": self.recipe.method, "seed": self.recipe.training.seed,
                **{owner: described(model, self.names[owner]) for owner, model in models.items()},
                "texts": {"max_length": self.cut.max_length, "all": self.cut.as_dict()},
                "held_out": {"n": len(self.held_out), "before": before, "after": after},
                "timing": timing(0.0, seconds, examples), "versions": versions(), "inputs": inputs,
            }  # fmt: skip
            card = model_card({**metrics, "recipe": self.recipe.as_dict()})
            save = saving(self.student.base_model, self.tokenizer)
            close_run(self.output, save, self.recipe, metrics, card)
        return metrics

    def _trainer(self) -> DistillationTrainer:
        settings = self.recipe.training
        arguments = training_arguments(settings, self.output, Measured())
        online = online_teacher(self.teacher, self.recipe.compute)
        online.model.to(arguments.device)
        return DistillationTrainer(
            self.student,
            arguments,
            Collator(self.tokenizer),
            self.training,
            processing_class=self.tokenizer,
            callbacks=[sealing(settings)],
            teacher=online,
            objectives=list(self.recipe.objectives.values()),
            teacher_facts=online.probe,
            compute=self.recipe.compute,
        )


def _listed(texts: Any) -> list[Source]:
    """The sources of the texts: of one that is no list, itself; a list of dicts is one source."""
    rows = isinstance(texts, list | tuple) and texts and isinstance(texts[0], Mapping)
    return list(texts) if isinstance(texts, list | tuple) and not rows else [texts]


def _refuse_answers(recipe: Recipe, pair: Pair) -> None:
    """Only what an encoder says before its head can be learned from texts that are no task's."""
    for term in recipe.objectives.values():
        signals = term.objective.signals(pair, "student").values()
        if any(isinstance(signal, Logits | TargetSignal) for signal in signals):
            raise RecipeError(
                f"the objective {term.name} asks for answers to a task, and there is none in pre-training",
                expected="objectives on hidden states and self-attention",
                remedy="leave it out here, and name it when you distil the task",
            )


def _rows(
    texts: Sequence[Source],
    text_columns: tuple[str, ...] | None,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
) -> tuple[Dataset, Dataset, Cut]:
    """What is trained on, what is held out, drawn by the seed, and how many of both are cut."""
    found = load_texts(texts, text_columns=text_columns).shuffle(seed=recipe.training.seed)
    if recipe.training.max_train_rows is not None:
        found = found.select(range(min(len(found), recipe.training.max_train_rows)))
    assert recipe.training.max_length is not None  # settled before
    encoded = encode(found, tokenizer, TEXTS, max_length=recipe.training.max_length)
    if encoded.truncated:
        logger.info(str(encoded.cut))
    rows = encoded.dataset
    apart = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(rows))))
    if len(rows) < 2:
        raise RecipeError(
            f"{len(rows)} text came", expected="two or more", remedy="name files with more texts"
        )
    logger.info(f"pre-training on {len(rows) - apart} texts; {apart} are held out")
    return rows.select(range(apart, len(rows))), rows.select(range(apart)), encoded.cut


def _distances(trainer: DistillationTrainer, rows: Dataset) -> dict[str, float]:
    """The mean of every term over rows, as training would measure it without dropout."""
    student: Any = trainer.model
    collate: Any = trainer.data_collator
    step = replace(trainer.step, terms=[replace(term, share=1.0) for term in trainer.step.terms])
    sums = dict.fromkeys((term.name for term in step.terms), 0.0)
    with evaluating(student), torch.no_grad():
        for some in row_batches(rows, collate, student.device, tokens_at_once=2048):
            for name, values in step.distances(student, some.batch, Moment())[0].items():
                sums[name] += float(values.sum())
    return {name: round(total / len(rows), 6) for name, total in sums.items()}
