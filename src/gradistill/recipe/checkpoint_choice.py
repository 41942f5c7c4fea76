"""Which checkpoint a run keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradistill.recipe.strict_yaml import load_yaml


def keeps_best(recipe: Mapping[str, Any] | str | None) -> bool:
    """Whether a run with this recipe keeps the checkpoint that is best on the validation rows.

    It does unless it does not evaluate, averages weights, or ``load_best_model_at_end`` is given as false. ``recipe``
    is what ``recipe.yaml`` holds, or its text. False if nothing is known: without a recipe, or one that cannot be read.

    Example: ``keeps_best("training: {average_weights: 0.3}")`` returns False
    """
    if isinstance(recipe, str):
        try:
            recipe = load_yaml(recipe)
        except ValueError:
            return False
    if not isinstance(recipe, Mapping):
        return False
    training = _mapping(recipe, "training")
    arguments = _mapping(training, "arguments")
    evaluates = arguments.get("eval_strategy") not in ("no", False)
    return bool(arguments.get("load_best_model_at_end", evaluates and not training.get("average_weights")))


def _mapping(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return found if isinstance(found := settings.get(key), Mapping) else {}
