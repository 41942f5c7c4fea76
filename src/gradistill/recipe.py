"""Recipes: what to train with, as YAML. The schema of a recipe is the objectives' own fields.

A shipped recipe may build on another (``base``) and hold the authors' settings per task (``tasks``). What is
resolved is flat and complete: every field stands in the ``recipe.yaml`` of a run. Later wins: base, recipe, task,
the user's file, ``--set``. Unknown keys are refused with the nearest name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from gradistill.errors import RecipeError, nearest
from gradistill.models.layers import LayerMap
from gradistill.models.student import Dropout, Embeddings
from gradistill.objectives import Objective, objectives

_META = ("base", "inherit_tasks", "tasks")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudentSettings(_Strict):
    """How the student is made: from the teacher's layers, or from a checkpoint of its own."""

    layers: int | None = Field(
        None, ge=1, description="blocks taken from the teacher (half of them if not said)"
    )
    checkpoint: str | None = Field(None, description="a pre-trained model instead, in a folder or by hub id")
    layer_map: LayerMap = Field("skip", description="which teacher layers: skip, first, last, or a list")
    embeddings: Embeddings = Field(
        "own", description="own, copied from the teacher, or frozen (copied and fixed)"
    )
    dropout: Dropout = Field("keep", description="keep, none, or not_in_embeddings")


class TrainingSettings(_Strict):
    """What goes to ``TrainingArguments``, under the names that the papers use, and how much data."""

    learning_rate: float = Field(5e-5, gt=0, description="peak of the linear schedule")
    epochs: float = Field(4, gt=0, description="passes over the training data")
    batch_size: int = Field(32, ge=1, description="rows a device and step")
    max_length: int = Field(128, ge=4, description="tokens after which a text is truncated")
    seed: int = Field(0, ge=0, description="of initialisation, order, dropout and subset")
    max_train_rows: int | None = Field(
        None, ge=1, description="train on a subset of so many rows, drawn by the seed"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="anything else of transformers.TrainingArguments, by its own name"
    )


class WeightedObjective(_Strict):
    """An objective and its weight in the loss."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    objective: Objective
    weight: float = 1.0


class Recipe(_Strict):
    """A resolved recipe. ``objectives`` are by name, each with its weight and its own fields."""

    method: str
    title: str = ""
    summary: str = ""
    source: str = ""
    task: str | None = None
    student: StudentSettings = StudentSettings()
    training: TrainingSettings = TrainingSettings()
    objectives: dict[str, WeightedObjective]

    @property
    def needs_teacher(self) -> bool:
        return any(entry.objective.needs_teacher for entry in self.objectives.values())

    def as_dict(self) -> dict[str, Any]:
        """The recipe as YAML holds it."""
        flat = self.model_dump(mode="json", exclude={"objectives"})
        flat["objectives"] = {
            name: {"weight": entry.weight, **pydantic.TypeAdapter(type(entry.objective)).dump_python(
                entry.objective, mode="json"
            )}
            for name, entry in self.objectives.items()
        }  # fmt: skip
        return flat

    def as_yaml(self) -> str:
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)


def shipped_methods() -> tuple[str, ...]:
    """The names of the recipes in this package."""
    folder = resources.files("gradistill") / "recipes"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(
    method: str | None = None,
    *,
    task: str | None = None,
    file: str | Path | None = None,
    changes: Iterable[str] = (),
    authors_settings: bool = True,
) -> Recipe:
    """Resolve a recipe for a task. ``changes`` are ``key.key=value`` strings, values in YAML.

    A file is a recipe of its own, or names the shipped ``method`` or ``base`` that it changes. With
    ``authors_settings`` off, the settings of a task are left out. Raises RecipeError.
    """
    own = _read(Path(file)) if file else {}
    method = method or own.get("base") or own.get("method")
    if method is None:
        raise RecipeError("no method was named", expected=_known(), remedy="give --method or --recipe")
    raw = _shipped(method) if method in shipped_methods() or not own.get("objectives") else {}
    raw = _merged(raw, {key: value for key, value in own.items() if key != "base"})
    per_task = raw.get("tasks", {})
    if authors_settings and task in per_task:
        raw = _merged(raw, per_task[task])
        raw = _merged(raw, {key: value for key, value in own.items() if key not in _META})
    for change in changes:
        raw = _merged(raw, _parsed_change(change))
    flat = {key: value for key, value in raw.items() if key not in _META}
    return _validated({"method": method, **flat, "task": task})


def _known() -> str:
    return f"one of {', '.join(shipped_methods())}"


def _shipped(method: str) -> dict[str, Any]:
    if method not in shipped_methods():
        raise RecipeError(f"there is no method {method!r}", remedy=nearest(method, shipped_methods()))
    text = (resources.files("gradistill") / "recipes" / f"{method}.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    if "base" not in raw:
        return raw
    base = _shipped(raw["base"])
    if not raw.get("inherit_tasks", True):
        base.pop("tasks", None)
    return _merged(base, raw)


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {file} cannot be read: {error}", remedy="check the path") from error
    except yaml.YAMLError as error:
        place = " ".join(str(error).split())
        raise RecipeError(
            f"the recipe {file} is not YAML: {place}", remedy="mend it at that place"
        ) from error
    if not isinstance(raw, dict):
        raise RecipeError(
            f"the recipe {file} holds a {type(raw).__name__}",
            expected="keys such as method, objectives, student, training",
            remedy="see gradistill methods",
        )
    return raw


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _parsed_change(change: str) -> dict[str, Any]:
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise RecipeError(
            f"--set {change!r}", expected="key.key=value", remedy="for example --set training.epochs=3"
        )
    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change!r}: the value is not YAML", remedy="quote it") from error
    if isinstance(value, str) and _is_number(value):  # YAML 1.1 takes 5e-5 for a text
        value = float(value)
    for key in reversed(path.strip().split(".")):
        value = {key: value}
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _validated(raw: dict[str, Any]) -> Recipe:
    entries = raw.get("objectives") or {}
    if not isinstance(entries, Mapping) or not entries:
        raise RecipeError(
            "the recipe has no objectives",
            expected=f"at least one of {', '.join(objectives())}",
            remedy="add objectives: {hard_label: {weight: 1}}",
        )
    built = {name: _built(name, fields) for name, fields in entries.items() if fields is not None}
    try:
        return Recipe.model_validate({**raw, "objectives": built})
    except pydantic.ValidationError as error:
        raise _as_recipe_error(error, "", Recipe) from error


def _built(name: str, fields: Any) -> WeightedObjective:
    known = objectives()
    if name not in known:
        raise RecipeError(f"there is no objective {name!r}", remedy=nearest(name, known))
    if not isinstance(fields, Mapping):
        raise RecipeError(
            f"objectives.{name} is {fields!r}",
            expected="its fields, such as {weight: 1}",
            remedy="write them so",
        )
    own = {key: value for key, value in fields.items() if key != "weight"}
    try:
        objective = pydantic.TypeAdapter(known[name]).validate_python(own)
        return WeightedObjective(objective=objective, weight=fields.get("weight", 1.0))
    except pydantic.ValidationError as error:
        raise _as_recipe_error(error, f"objectives.{name}.", known[name]) from error


def _as_recipe_error(error: pydantic.ValidationError, prefix: str, schema: Any) -> RecipeError:
    first = error.errors()[0]
    path = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return RecipeError(
            f"the recipe has an unknown key {path!r}",
            remedy=nearest(str(first["loc"][-1]), _fields(schema, first["loc"])),
        )
    return RecipeError(
        f"the recipe's {path} is {first['input']!r}", expected=first["msg"], remedy=f"change {path}"
    )


def _fields(schema: Any, path: tuple[int | str, ...]) -> list[str]:
    for part in path[:-1]:
        field = getattr(schema, "model_fields", {}).get(part)
        schema = field.annotation if field is not None else schema
    known = getattr(schema, "model_fields", None) or getattr(schema, "__pydantic_fields__", {})
    extra = [] if hasattr(schema, "model_fields") else ["weight"]
    return [*known, *extra]
