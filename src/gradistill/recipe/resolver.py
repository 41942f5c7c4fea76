"""Resolves a method, a task, a file and changes to one flat recipe.

A shipped recipe may build on another (``base``) and hold the authors' settings for tasks (``tasks``). A resolved recipe
is flat and complete: the ``recipe.yaml`` of a run has every field. Later sources win: base, recipe, task, the user's
file, ``--set``. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradistill.errors import RecipeError
from gradistill.recipe.recipe_files import merged, parsed_change, read_recipe, shipped, shipped_methods
from gradistill.recipe.schema import Recipe, validated

_META = ("base", "inherit_tasks", "tasks")


def load_recipe(
    method: str | None = None,
    *,
    task: str | None = None,
    file: str | Path | None = None,
    changes: Iterable[str] = (),
    authors_settings: bool = True,
) -> Recipe:
    """Resolve a recipe: a method, its objectives and their weights, the student, and the training settings.

    Parameters:
        ``method``: a shipped method (``gradistill methods``); by default the ``file`` names one.
        ``task``: a task for which the recipe may have the settings of the method's paper.
        ``file``: a recipe in YAML, either complete or with the shipped ``method`` or ``base`` that it changes.
        ``changes``: strings ``key.key=value``, with values in YAML.
        ``authors_settings``: whether the settings of the task are applied.

    Raises RecipeError for unknown names, with the nearest known one.

    Example: ``load_recipe("adkd", task="mrpc", changes=["student.layers=3"])``
    """
    if isinstance(changes, str | Mapping):
        raise RecipeError(
            f"changes is a {type(changes).__name__}", expected="a list of key.key=value",
            remedy='for example changes=["training.epochs=3"]',
        )  # fmt: skip
    own = read_recipe(Path(file)) if file else {}
    task = task or own.get("task")
    method = _method(method, own, file)
    raw = _below(method, own)
    raw = merged(raw, {key: value for key, value in own.items() if key != "base"})
    if authors_settings:
        raw = merged(raw, _settings_of(task, raw.get("tasks") or {}))
        raw = merged(raw, {key: value for key, value in own.items() if key not in _META})
    for change in changes:
        raw = merged(raw, _allowed(parsed_change(change), change))
    flat = {key: value for key, value in raw.items() if key not in _META}
    return validated({"method": method, **flat, "task": task})


def _method(wanted: str | None, own: Mapping[str, Any], file: str | Path | None) -> str:
    written = own.get("base") or own.get("method")
    if wanted and written and wanted not in (own.get("base"), own.get("method")):
        raise RecipeError(
            f"The method is {wanted!r}, and the recipe {file} is for {written!r}.",
            expected="one method",
            remedy=f"leave --method out, or write base: {wanted} into the file",
        )
    method = written or wanted
    if method is None:
        raise RecipeError(
            "no method was named",
            expected=f"one of {', '.join(shipped_methods())}",
            remedy="give --method or --recipe",
        )
    return method


def _below(method: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The shipped recipe that the user's recipe changes: its base or method. Empty if the user's recipe is complete."""
    if method not in shipped_methods() and "base" not in own and own.get("objectives"):
        return {}
    below = shipped(method)
    if not own.get("inherit_tasks", True):
        below.pop("tasks", None)
    return below


def _settings_of(task: str | None, tasks: Any) -> Mapping[str, Any]:
    settings = (tasks.get(task) or {}) if isinstance(tasks, Mapping) else tasks
    if not isinstance(settings, Mapping):
        raise RecipeError(
            f"the recipe's tasks hold {settings!r}",
            expected="settings by task, such as {sst2: {training: {epochs: 3}}}",
            remedy="write tasks in this form, or leave them out",
        )
    return settings


def _allowed(change: dict[str, Any], text: str) -> dict[str, Any]:
    if fixed := [key for key in change if key in (*_META, "method", "task")]:
        raise RecipeError(
            f"--set {text!r}: {fixed[0]} is fixed before the recipe is resolved",
            expected="a field of the resolved recipe, such as training.epochs",
            remedy="use --method, --task, or a --recipe file with base: and tasks:",
        )
    return change
