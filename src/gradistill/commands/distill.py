"""Distillation: a student is built from a teacher, and trained to share its signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gradistill.commands.prepared_run import TEST, prepared_run
from gradistill.commands.run_folder import check_run
from gradistill.commands.signal_stores import (
    AUTO,
    StoreChoice,
)
from gradistill.data import DataChoice
from gradistill.data.data_source import Source
from gradistill.models.model_source import ModelSource, model_paths
from gradistill.recipe import Recipe
from gradistill.training.arguments import check_training


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

    ``signals``: where teacher signals come from: a store in the cache, in a folder, or the teacher itself.
    ``callbacks`` go to transformers' Trainer. ``teacher`` and ``data`` are given as to ``finetune``.
    """
    choice = DataChoice.of(data)
    reads = (*model_paths(teacher, recipe.student.checkpoint), *choice.paths)
    check_run(Path(output), recipe, overwrite=overwrite, reads=reads)
    check_training(recipe)
    run = prepared_run(teacher, choice, recipe, optional=TEST)
    run = replace(run, signals=signals, callbacks=callbacks)
    return run.train(Path(output), overwrite=overwrite)
