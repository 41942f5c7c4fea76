"""Fine-tuning, distillation and stores of teacher signals, from names to folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from gradistill.data import DataChoice, Splits, align_labels, load_unlabelled, read_splits
from gradistill.data.data_source import Source
from gradistill.errors import GradistillError, RecipeError
from gradistill.jobs.data_warnings import log_splits, with_positive
from gradistill.jobs.folder import check_run
from gradistill.jobs.lengths import Reader, new_length, task_length
from gradistill.jobs.running import Run
from gradistill.jobs.signals import AUTO, DEFAULT_ENCODING, StoreChoice, filled, mended
from gradistill.models.limits import check_readable
from gradistill.models.loading import Head, label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name, model_paths
from gradistill.models.placing import DeviceMap, is_spread
from gradistill.models.student import (
    narrow_student,
    pair_warnings,
    share_embeddings,
    silence_embedding_dropout,
    student_from_checkpoint,
    student_from_teacher,
)
from gradistill.models.tokenizers import check_same_rows, check_same_tokens
from gradistill.recipe import Recipe, StudentSettings
from gradistill.signals import Signal
from gradistill.signals.layout import Encoding
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.arguments import check_training
from gradistill.training.trainer import online_teacher

logger = logging.getLogger(__name__)

_TEST = ("test",)
"""Read where it is there with labels, and reported at the end; nothing is chosen by it."""


def finetune(
    model: ModelSource,
    data: DataChoice | Source,
    output: str | Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fine-tune a pre-trained model into a teacher; returns what ``metrics.json`` holds.

    ``model`` is a folder, a hub id, ``minilm-l6``, or a pair ``(model, tokenizer)``, which is left as it is. ``data``
    is a ``DataChoice``, or what its ``source`` may be: a path, a ``Dataset``, a frame, a list of dicts. Where there is
    a ``test`` split with labels, it is evaluated at the end.

    Example: ``finetune("minilm-l6", {"train": rows, "validation": more}, "runs/teacher", load_recipe("finetune"))``
    """
    choice = DataChoice.of(data)
    if recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} needs a teacher",
            expected="finetune",
            remedy="use gradistill distill",
        )
    for name in ("label_map", "unlabelled"):
        if getattr(choice, name) is not None:
            raise RecipeError(
                f"{name} was given, and fine-tuning has no teacher that it could be for",
                expected="label_column, text_columns, kind, validation_share or positive",
                remedy=f"leave {name} out, or give it to distill",
            )
    reads = (*model_paths(model), *choice.paths)
    check_run(Path(output), recipe, overwrite=overwrite, reads=reads)
    check_training(recipe)
    splits = with_positive(read_splits(choice, optional=_TEST), choice.positive)
    log_splits(splits)
    set_seed(recipe.training.seed)
    tokenizer = load_tokenizer(model)
    student, _ = load_classifier(model, head=Head(splits.task.labels), new_head=True)
    readers = [Reader("model", model_folder(model), student)]
    recipe = recipe.with_length(new_length(recipe.training.max_length, readers))
    names = {"student": model_name(model), "data": choice.name}
    run = Run(Path(output), recipe, splits, tokenizer, names=names)
    return run.train(student, None, overwrite=overwrite)


def distill(
    teacher: ModelSource,
    data: DataChoice | Source,
    output: str | Path,
    recipe: Recipe,
    *,
    signals: StoreChoice = AUTO,
    callbacks: Sequence[TrainerCallback] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Distil a fine-tuned teacher into a student; returns what ``metrics.json`` holds.

    ``signals`` says where what the teacher says comes from: a store in the cache, in a folder, or the teacher itself.
    ``callbacks`` go to transformers' Trainer. ``teacher`` and ``data`` are given as to ``finetune``.
    """
    choice = DataChoice.of(data)
    reads = (*model_paths(teacher, recipe.student.checkpoint), *choice.paths)
    check_run(Path(output), recipe, overwrite=overwrite, reads=reads)
    check_training(recipe)
    run, teacher_model, student = prepared_pair(teacher, choice, recipe, optional=_TEST)
    run = replace(run, output=Path(output), signals=signals, callbacks=callbacks)
    return run.train(student, teacher_model, overwrite=overwrite)


def store_signals(
    teacher: ModelSource,
    data: DataChoice | Source,
    output: str | Path | None,
    recipe: Recipe,
    *,
    others: Sequence[Recipe] = (),
    encoding: Encoding = DEFAULT_ENCODING,
    repair: bool = False,
    device_map: DeviceMap | None = None,
) -> Path:
    """Write what a recipe asks of the teacher into a store, or finish one; without ``output``, into the cache.

    What ``others`` ask is written beside it, so that one store serves them all: they read the same rows, cut at the
    same length; one that cannot learn from this teacher is left out, and said. With ``repair`` damaged shards of a
    finished store are written again, and no others. With a ``device_map`` accelerate spreads a large teacher over the
    devices there are. Returns the folder.
    """
    if not recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} asks nothing of a teacher",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    run, teacher_model, student = prepared_pair(teacher, DataChoice.of(data), recipe, device_map=device_map)
    online = online_teacher(teacher_model, recipe.compute)
    asked = [*run.asked(student, online), *_asked_beside(run, online, teacher_model, others)]
    rows = run.encoded("train")
    check_readable(teacher_model, rows, run.tokenizer, owner="teacher")
    validation = run.encoded("validation")
    if not is_spread(
        teacher_model
    ):  # its weights would lie elsewhere in memory, and the store's last bits differ
        run.warn_of_weak_teacher(teacher_model, validation)
    plan = run.plan(asked, online, rows, encoding, Path(output) if output else None)
    if repair and mended(plan, online, run.tokenizer):
        return plan.folder
    filled(plan, online, run.tokenizer)
    if is_spread(teacher_model):
        run.warn_of_weak_teacher(teacher_model, validation)
    return plan.folder


def _asked_beside(
    run: Run, online: OnlineTeacher, teacher: PreTrainedModel, others: Sequence[Recipe]
) -> Iterator[Signal]:
    for other in others:
        try:
            student = build_student(teacher, run.tokenizer, other.student)
            yield from replace(run, recipe=other).asked(student, online)
        except GradistillError as error:
            logger.warning(f"the store does not serve {other.method}: {error}")


def prepared_pair(
    teacher: ModelSource,
    data: DataChoice,
    recipe: Recipe,
    *,
    optional: tuple[str, ...] = (),
    device_map: DeviceMap | None = None,
) -> tuple[Run, PreTrainedModel, PreTrainedModel]:
    """The run, the teacher and the new student that these names describe, with the ``optional`` splits that exist."""
    tokenizer = load_tokenizer(teacher)
    teacher_model, _ = load_classifier(teacher, device_map=device_map)
    splits = align_labels(
        read_splits(data, optional=optional), label_names(teacher_model), label_map=data.label_map
    )
    splits = with_positive(splits, data.positive, [model_folder(teacher)])
    log_splits(splits)
    set_seed(recipe.training.seed)
    student = build_student(teacher_model, tokenizer, recipe.student)
    set_padding(teacher_model, tokenizer)
    readers = [Reader("teacher", model_folder(teacher), teacher_model), Reader("student", "", student)]
    length = task_length(recipe.training.max_length, tokenizer, readers)
    recipe = recipe.with_length(length)
    if recipe.student.checkpoint is not None:
        own = load_tokenizer(recipe.student.checkpoint)
        check_same_rows(own, tokenizer, splits.rows["train"], splits.task, max_length=length)
    warnings = pair_warnings(teacher_model, student)
    for warning in warnings:
        logger.warning(warning)
    splits = replace(splits, warnings=(*splits.warnings, *warnings))
    names = {"teacher": model_name(teacher), "data": data.name}
    unlabelled = _unlabelled(data, recipe, splits)
    run = Run(Path(), recipe, splits, tokenizer, names=names, unlabelled=unlabelled)
    return run, teacher_model, student


def _unlabelled(data: DataChoice, recipe: Recipe, splits: Splits) -> Dataset | None:
    """The rows without labels, numbered behind those of the training split."""
    if data.unlabelled is None:
        return None
    if not recipe.needs_teacher:
        raise RecipeError(
            f"unlabelled rows came for {recipe.method!r}, which learns from labels alone",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    gold = [t.name for t in recipe.objectives.values() if getattr(t.objective, "view", None) == "gold"]
    if gold and splits.task.labels is None:
        raise RecipeError(
            f"{gold[0]} differentiates the distance from the gold score, which unlabelled rows do not have",
            expected="another target, such as log_odds (the prediction)",
            remedy=f"--set objectives.{gold[0]}.target=log_odds --set objectives.{gold[0]}.view=all, "
            "or --settings default",
        )
    rows = load_unlabelled(data.unlabelled, splits.task, first_index=len(splits.rows["train"]))
    logger.info(f"unlabelled: {len(rows)} rows, which learn from the teacher alone")
    return rows


def build_student(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings
) -> PreTrainedModel:
    """The student that the settings describe; without a depth or a checkpoint, half of the teacher's layers."""
    if settings.checkpoint is not None:
        if settings.layers is not None or settings.width is not None:
            raise RecipeError(
                "both a student checkpoint and a number of student layers, or a width, came",
                expected="one of them",
                remedy="drop --student-layers and student.width: a checkpoint has its own",
            )
        check_same_tokens(load_tokenizer(settings.checkpoint), tokenizer)
        student = student_from_checkpoint(settings.checkpoint, teacher, dropout=settings.dropout)
    else:
        layers = settings.layers or max(1, teacher.config.num_hidden_layers // 2)
        if settings.width is None:
            student = student_from_teacher(
                teacher, layers, layer_map=settings.layer_map, dropout=settings.dropout
            )
        else:
            student = narrow_student(teacher, layers, settings.width, dropout=settings.dropout)
    set_padding(student, tokenizer)
    share_embeddings(student, teacher, settings.embeddings)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(student)
    return student
