"""Fine-tuning: a pre-trained model becomes a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import set_seed

from gradistill.commands.data_warnings import log_splits, unknown_token_warnings, warned
from gradistill.commands.model_pair import ModelPair
from gradistill.commands.prepared_run import TEST
from gradistill.commands.recorded_data import with_positive
from gradistill.commands.run_folder import check_run
from gradistill.commands.run_result import RunResult
from gradistill.commands.text_lengths import (
    new_length,
    refuse_idle_overlap,
    refuse_windows,
    task_windows,
)
from gradistill.commands.token_run import task_run_of
from gradistill.data import DataChoice, read_splits
from gradistill.data.data_source import Source
from gradistill.errors import RecipeError
from gradistill.io import path_of
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import Head, load_for_labels, load_tokenizer
from gradistill.models.model_source import ModelSource, model_folder, model_name, model_paths
from gradistill.models.prior_bias import start_at_prior
from gradistill.recipe import Recipe
from gradistill.recipe.schema import check_recipe
from gradistill.training.arguments import check_training


def finetune(
    model: ModelSource,
    data: DataChoice | Source,
    output: str | Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
) -> RunResult:
    """Fine-tune a pre-trained model into a teacher; returns what ``metrics.json`` holds, with the model.

    A ``test`` split with labels is evaluated at the end.

    Parameters:
        ``model``: a folder, a hub id, ``minilm-l6``, or a pair ``(model, tokenizer)``, which is left as it is.
        ``data``: a ``DataChoice``, or what its ``source`` may be: a path, a ``Dataset``, a frame, a list of dicts.
        ``output``: the run folder. An unfinished run of the same recipe and data in it goes on.
        ``recipe``: a recipe from ``load_recipe("finetune")``.
        ``overwrite``: replace an earlier run in that folder.

    Raises GradistillError before any work if the run cannot be trained. It then leaves no folder.

    Example: ``finetune("minilm-l6", {"train": rows, "validation": more}, "runs/teacher", load_recipe("finetune"))``
    """
    check_recipe(recipe)
    folder, choice = path_of(output), DataChoice.of(data)
    _refuse_options(recipe, choice)
    reads = (*model_paths(model), *choice.paths)
    check_run(folder, recipe, overwrite=overwrite, reads=reads)
    check_training(recipe)
    refuse_idle_overlap(recipe.training, model_folder(model))
    tokenizer = load_tokenizer(model)
    splits = with_positive(read_splits(choice, optional=TEST), choice.positive, [model_folder(model)])
    log_splits(splits)
    splits = warned(splits, unknown_token_warnings(splits, tokenizer))
    set_seed(recipe.training.seed)
    head = Head(splits.task.labels, splits.task.multi_label, splits.task.token_labels)
    loaded, _ = load_for_labels(model, head)
    if splits.task.multi_label:
        flags = np.asarray(splits.rows["train"]["label"][:])
        start_at_prior(loaded, flags.mean(axis=0).tolist(), len(flags))
    student = LoadedModel("model", model_folder(model), loaded)
    recipe = recipe.with_length(new_length(recipe.training.max_length, [student]))
    recipe = recipe.with_windows(task_windows(recipe.training, tokenizer, student))
    refuse_windows(recipe.windows, splits.task)
    names = {"student": model_name(model), "data": choice.name}
    run = task_run_of(splits.task)(
        recipe=recipe,
        models=ModelPair(student, None, recipe),
        tokenizer=tokenizer,
        names=names,
        splits=splits,
    )
    return RunResult(run.train(folder, overwrite=overwrite), folder)


def _refuse_options(recipe: Recipe, choice: DataChoice) -> None:
    """Raise RecipeError for settings that apply to distillation only."""
    if recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} needs a teacher",
            expected="finetune",
            remedy="use gradistill distill",
        )
    if idle := list(recipe.student.model_dump(exclude_defaults=True)):
        raise RecipeError(
            f"student.{idle[0]} was given, and fine-tuning trains the model as it is",
            expected="settings of training only",
            remedy=f"leave student.{idle[0]} out, or use gradistill distill",
        )
    for name in ("label_map", "unlabelled"):
        if getattr(choice, name) is not None:
            raise RecipeError(
                f"{name} was given, and fine-tuning has no teacher to apply it to",
                expected="label_column, text_columns, kind, validation_share or positive",
                remedy=f"leave {name} out, or give it to distill",
            )
