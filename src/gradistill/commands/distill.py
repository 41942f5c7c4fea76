"""Fine-tuning, distillation and stores of teacher signals, from names to folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, set_seed

from gradistill.commands.data_warnings import log_splits, with_positive
from gradistill.commands.model_pair import ModelPair
from gradistill.commands.run_folder import check_run
from gradistill.commands.signal_stores import (
    AUTO,
    DEFAULT_SETTINGS,
    StoreChoice,
    StoreSettings,
    filled,
    mended,
)
from gradistill.commands.task_run import TaskRun
from gradistill.commands.text_lengths import Reader, new_length, task_length
from gradistill.data import DataChoice, Splits, align_labels, load_unlabelled, read_splits
from gradistill.data.data_source import Source
from gradistill.errors import GradistillError, RecipeError
from gradistill.models.device_map import DeviceMap, is_spread
from gradistill.models.loading import Head, label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name, model_paths
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
from gradistill.training.arguments import check_training

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
    loaded, _ = load_classifier(model, head=Head(splits.task.labels), new_head=True)
    student = Reader("model", model_folder(model), loaded)
    recipe = recipe.with_length(new_length(recipe.training.max_length, [student]))
    names = {"student": model_name(model), "data": choice.name}
    run = TaskRun(
        recipe=recipe,
        models=ModelPair(student, None, recipe),
        tokenizer=tokenizer,
        names=names,
        splits=splits,
    )
    return run.train(Path(output), overwrite=overwrite)


def distill(  # noqa: PLR0913 (public; callbacks are the Trainer's own keyword)
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
    run = prepared_run(teacher, choice, recipe, optional=_TEST)
    run = replace(run, signals=signals, callbacks=callbacks)
    return run.train(Path(output), overwrite=overwrite)


def store_signals(
    teacher: ModelSource,
    data: DataChoice | Source,
    output: str | Path | None,
    recipe: Recipe,
    *,
    others: Sequence[Recipe] = (),
    settings: StoreSettings = DEFAULT_SETTINGS,
) -> Path:
    """Write what a recipe asks of the teacher into a store, or finish one; without ``output``, into the cache.

    What ``others`` ask is written beside it, so that one store serves them all: they read the same rows, cut at the
    same length; one that cannot learn from this teacher is left out, and said. Returns the folder.
    """
    if not recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} asks nothing of a teacher",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    run = prepared_run(teacher, DataChoice.of(data), recipe, device_map=settings.device_map)
    reader, online = run.models.teacher, run.models.online
    assert reader is not None
    assert online is not None
    signals = [*run.required_signals(), *_signals_of_others(run, reader, others)]
    rows = run.encoded("train").dataset
    reader.limits.check(rows, run.tokenizer, owner="teacher")
    validation = run.encoded("validation").dataset
    if not is_spread(reader.model):
        # its weights would lie elsewhere in memory, and the store's last bits differ
        run.warn_of_weak_teacher(validation)
    plan = run.plan(signals, rows, settings.encoding, Path(output) if output else None)
    if settings.repair and mended(plan, online, run.tokenizer):
        return plan.folder
    filled(plan, online, run.tokenizer)
    if is_spread(reader.model):
        run.warn_of_weak_teacher(validation)
    return plan.folder


def _signals_of_others(run: TaskRun, teacher: Reader, others: Sequence[Recipe]) -> Iterator[Signal]:
    """The signals that further recipes need; one that cannot learn from this teacher is left out, with a warning."""
    for other in others:
        try:
            student = build_student(teacher, run.tokenizer, other.student)
            yield from replace(
                run, recipe=other, models=ModelPair.of(student, teacher, other)
            ).required_signals()
        except GradistillError as error:
            logger.warning(f"the store does not serve {other.method}: {error}")


def prepared_run(
    teacher: ModelSource,
    data: DataChoice,
    recipe: Recipe,
    *,
    optional: tuple[str, ...] = (),
    device_map: DeviceMap | None = None,
) -> TaskRun:
    """The run with its teacher and a new student, and with those of the ``optional`` splits that exist."""
    tokenizer = load_tokenizer(teacher)
    teacher_model, _ = load_classifier(teacher, device_map=device_map)
    splits = align_labels(
        read_splits(data, optional=optional), label_names(teacher_model), label_map=data.label_map
    )
    splits = with_positive(splits, data.positive, [model_folder(teacher)])
    log_splits(splits)
    set_seed(recipe.training.seed)
    reader = Reader("teacher", model_folder(teacher), teacher_model)
    student = build_student(reader, tokenizer, recipe.student)
    set_padding(teacher_model, tokenizer)
    length = task_length(recipe.training.max_length, tokenizer, [reader, student])
    recipe = recipe.with_length(length)
    if recipe.student.checkpoint is not None:
        own = load_tokenizer(recipe.student.checkpoint)
        check_same_rows(own, tokenizer, splits.rows["train"], splits.task, max_length=length)
    warnings = pair_warnings(reader.model, student.model, layers=(reader.probe.layers, student.probe.layers))
    for warning in warnings:
        logger.warning(warning)
    return TaskRun(
        recipe=recipe,
        models=ModelPair.of(student, reader, recipe),
        tokenizer=tokenizer,
        names={"teacher": model_name(teacher), "data": data.name},
        splits=replace(splits, warnings=(*splits.warnings, *warnings)),
        unlabelled=_unlabelled(data, recipe, splits),
    )


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


def build_student(teacher: Reader, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings) -> Reader:
    """The student that the settings describe; without a depth or a checkpoint, half of the teacher's layers."""
    if settings.checkpoint is not None:
        if settings.layers is not None or settings.width is not None:
            raise RecipeError(
                "both a student checkpoint and a number of student layers, or a width, came",
                expected="one of them",
                remedy="drop --student-layers and student.width: a checkpoint has its own",
            )
        check_same_tokens(load_tokenizer(settings.checkpoint), tokenizer)
        model = student_from_checkpoint(settings.checkpoint, teacher.model, dropout=settings.dropout)
    else:
        layers = settings.layers or max(1, teacher.model.config.num_hidden_layers // 2)
        if settings.width is None:
            model = student_from_teacher(
                teacher.model, layers, layer_map=settings.layer_map, dropout=settings.dropout
            )
        else:
            model = narrow_student(teacher.model, layers, settings.width, dropout=settings.dropout)
    set_padding(model, tokenizer)
    share_embeddings(model, teacher.model, settings.embeddings)
    student = Reader("student", "", model)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(model, student.probe)
    return student
