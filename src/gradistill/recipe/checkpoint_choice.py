"""Which checkpoint a run keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradistill.recipe.schema import recipe_part
from gradistill.recipe.strict_yaml import load_yaml


def evaluates(arguments: Mapping[str, Any]) -> bool:
    """Whether training evaluates, by the given ``training.arguments``.

    Example: ``evaluates({"eval_strategy": "no"})`` returns False
    """
    return arguments.get("eval_strategy") not in ("no", False)


def loads_best(arguments: Mapping[str, Any], *, averages_weights: bool) -> bool:
    """Whether training ends with the checkpoint that is best on the validation rows.

    It does unless it does not evaluate, averages weights, or ``load_best_model_at_end`` is given as false.

    Example: ``loads_best({}, averages_weights=True)`` returns False
    """
    return bool(arguments.get("load_best_model_at_end", evaluates(arguments) and not averages_weights))


def keeps_best(recipe: Mapping[str, Any] | str | None) -> bool:
    """Whether a run with this recipe keeps its best checkpoint (``loads_best``).

    ``recipe`` is what ``recipe.yaml`` holds, or its text. False if nothing is known: without a recipe, or one that
    cannot be read.

    Example: ``keeps_best("training: {average_weights: 0.3}")`` returns False
    """
    if isinstance(recipe, str):
        try:
            recipe = load_yaml(recipe)
        except ValueError:
            return False
    if not isinstance(recipe, Mapping):
        return False
    training = recipe_part(recipe, "training")
    return loads_best(
        recipe_part(training, "arguments"), averages_weights=bool(training.get("average_weights"))
    )
