"""Whether a run keeps its best checkpoint, as read from its recipe, is what its training arguments do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gradistill.recipe import load_recipe
from gradistill.recipe.checkpoint_choice import keeps_best
from gradistill.training.arguments import MetricNames, training_arguments

MEASURED = MetricNames("accuracy", ("accuracy",), classes=True)
NO_EPOCHS = ["training.arguments.eval_strategy=no"]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([], True),
        (NO_EPOCHS, False),
        (["training.average_weights=0.5"], False),
        (["training.arguments.load_best_model_at_end=false"], False),
        ([*NO_EPOCHS, "training.arguments.load_best_model_at_end=false"], False),
    ],
)
def test_a_recipe_shows_whether_the_best_checkpoint_is_kept(
    changes: list[str], kept: bool, tmp_path: Path
) -> None:
    recipe = load_recipe("kd", changes=changes)
    assert training_arguments(recipe.training, tmp_path, MEASURED).load_best_model_at_end is kept
    assert keeps_best(recipe.as_dict()) is kept
    assert keeps_best(yaml.safe_dump(recipe.as_written())) is kept


@pytest.mark.parametrize("recipe", [None, "", "{", "training: 3", "- 1"])
def test_nothing_is_known_without_a_recipe(recipe: str | None) -> None:
    assert keeps_best(recipe) is (recipe == "training: 3")  # a mapping with the defaults
