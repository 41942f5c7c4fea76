"""Reads recipes and their changes: shipped YAML files, a user's YAML files, and ``key.key=value``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gradistill.data.file_readers import not_a_file
from gradistill.errors import RecipeError, nearest
from gradistill.io import system_reason
from gradistill.recipe.secrets import without_secrets
from gradistill.recipe.strict_yaml import YamlError, load_yaml, read_yaml


def shipped_methods() -> tuple[str, ...]:
    """The names of the recipes in this package."""
    folder = resources.files("gradistill.recipe") / "shipped"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def shipped(method: str) -> dict[str, Any]:
    if method not in shipped_methods():
        raise RecipeError(f"there is no method {method!r}", remedy=nearest(method, shipped_methods()))
    raw = deepcopy(_as_written(method))
    if "base" not in raw:
        return raw
    base = shipped(raw["base"])
    if not raw.get("inherit_tasks", True):
        base.pop("tasks", None)
    return merged(base, raw)


@cache
def _as_written(method: str) -> dict[str, Any]:
    text = (resources.files("gradistill.recipe") / "shipped" / f"{method}.yaml").read_text(encoding="utf-8")
    return load_yaml(text)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def read_recipe(file: Path) -> dict[str, Any]:
    raw = read_keys(file, "recipe", "keys such as method, objectives, student, training")
    _check_texts(raw)
    return raw


def read_keys(file: Path, kind: str, expected: str) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises RecipeError; ``kind`` names the file in the message."""
    try:
        if fault := not_a_file(file):
            raise RecipeError(f"the {kind} {file}: {fault}", remedy="pass the path of a file")
        raw = read_yaml(file)
    except YamlError as error:
        raise RecipeError(
            f"the {kind} {file} is not valid YAML: {error}",
            expected=expected,
            remedy="correct the file at that place",
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"the {kind} {file} cannot be read: {system_reason(error)}", remedy="check the path"
        ) from error
    if not isinstance(raw, dict):
        raise RecipeError(
            f"the {kind} {file} holds a {type(raw).__name__}",
            expected=expected,
            remedy=f"see the {kind}s of the documentation",
        )
    return raw


def _check_texts(raw: dict[Any, Any]) -> None:
    """Raise RecipeError for keys that are not texts, and for names (method, base, task) that are not texts."""
    wrong = [key for key in ("method", "base", "task") if not isinstance(raw.get(key), str | None)]
    if wrong:
        raise RecipeError(
            f"the recipe's {wrong[0]} is {raw[wrong[0]]!r}", expected="a name", remedy="quote it"
        )
    inside, seen = [raw], set()
    while inside:
        mapping = inside.pop()
        if id(mapping) in seen:  # in YAML a mapping can contain itself
            continue
        seen.add(id(mapping))
        if odd := [key for key in mapping if not isinstance(key, str)]:
            raise RecipeError(f"the recipe has a key {odd[0]!r}", expected="a name", remedy="quote it")
        inside += [value for value in mapping.values() if isinstance(value, dict)]


def parsed_change(change: str) -> dict[str, Any]:
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise RecipeError(
            f"--set {without_secrets(change)!r}",
            expected="key.key=value",
            remedy="for example --set training.epochs=3",
        )
    try:
        value: Any = load_yaml(text)
    except YamlError as error:
        raise RecipeError(
            f"--set {without_secrets(change)!r}: the value is not valid YAML: {error}", remedy="quote it"
        ) from error
    quoted = text.lstrip().startswith(('"', "'"))
    if isinstance(value, str) and not quoted and _is_number(value):  # YAML 1.1 reads 5e-5 as a text
        value = float(value)
    nested: Any = value
    for key in reversed(path.strip().split(".")):
        nested = {key: nested}
    return nested


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
