"""From a recipe to transformers' TrainingArguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from gradistill.errors import RecipeError, nearest
from gradistill.recipe import TrainingSettings
from gradistill.recipe.secrets import redacted
from gradistill.training.checkpoints import Sealing

CHECKPOINTS = "checkpoints"
"""Folder of a run in which checkpoints stand while it trains."""

_LIMIT = "save_total_limit"


def training_arguments(settings: TrainingSettings, output: Path, *, select: str) -> TrainingArguments:
    """Linear decay, batches of like length, one evaluation and checkpoint an epoch, the best by ``select`` kept.

    ``settings.arguments`` change any of it by its own name. Raises RecipeError for a name that does not exist or a
    value that TrainingArguments refuses.
    """
    fields: dict[str, Any] = {
        "output_dir": str(output / CHECKPOINTS),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": max(64, settings.batch_size),
        "seed": settings.seed,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": select,
        "greater_is_better": True,
        "logging_steps": 50,
        "report_to": "none",
        "label_names": ["labels"],
        "dataloader_pin_memory": torch.accelerator.is_available(),
        "remove_unused_columns": False,
        "use_cpu": not torch.accelerator.is_available(),  # else bf16 is refused there
    }
    _refuse_unknown(settings.arguments)
    own = {k: "no" if v is False and k.endswith("_strategy") else v for k, v in settings.arguments.items()}
    own.pop(_LIMIT, None)  # ``sealing`` removes old checkpoints, once the new one is whole
    try:
        return TrainingArguments(**{**fields, **own})  # YAML reads a bare no as false
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"TrainingArguments refuses training.arguments {redacted(settings.arguments)}: {error}",
            remedy="correct them; see transformers.TrainingArguments",
        ) from error


def sealing(settings: TrainingSettings) -> Sealing:
    """What sees to the checkpoints: one is kept beside the best, if ``save_total_limit`` does not say otherwise.

    Raises RecipeError where that is not a number of checkpoints.
    """
    kept = settings.arguments.get(_LIMIT, 1)
    if kept is not None and (not isinstance(kept, int) or kept < 1):
        raise RecipeError(
            f"training.arguments.{_LIMIT} is {kept!r}", expected="1 or more, or null for all of them",
            remedy="correct it, or leave it out",
        )  # fmt: skip
    return Sealing(kept=kept, minutes=settings.checkpoint_minutes)


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    known = TrainingArguments.__dataclass_fields__.keys() - {"output_dir"}
    for name in arguments:
        if name not in known:
            own = name == "output_dir"
            raise RecipeError(
                f"training.arguments.{name} is not an argument that a recipe can set",
                remedy="name the run's folder beside the recipe (--output)" if own else nearest(name, known),
            )
