"""Recipes: objectives, student and training settings, as YAML."""

from gradistill.recipe.recipe_files import shipped_methods
from gradistill.recipe.resolver import load_recipe
from gradistill.recipe.schema import (
    ComputeSettings,
    Recipe,
    StudentSettings,
    TeacherSettings,
    TrainingSettings,
)

__all__ = [
    "ComputeSettings",
    "Recipe",
    "StudentSettings",
    "TeacherSettings",
    "TrainingSettings",
    "load_recipe",
    "shipped_methods",
]
