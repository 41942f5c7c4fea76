"""The search space: fields of the recipe, each with its possible values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import yaml

from gradistill.errors import RecipeError
from gradistill.recipe import Recipe
from gradistill.recipe.strict_yaml import YamlError, load_yaml

_RANGE = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^:,]+?)(?P<log>:log)?")
_FACTOR = 10.0


@dataclass(frozen=True)
class SearchField:
    """One field of the space: ``low`` to ``high`` (``whole`` numbers only, on a ``log`` scale), or ``choices``."""

    field: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def value(self, trial: Any) -> Any:
        """The value of this field that an Optuna trial suggests."""
        if self.choices:
            return trial.suggest_categorical(self.field, self.choices)
        if self.whole:
            return trial.suggest_int(self.field, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.field, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether the field may have this value."""
        if self.choices:
            return value in self.choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    @property
    def first(self) -> Any:
        """One possible value, to check the field with."""
        return self.choices[0] if self.choices else int(self.low) if self.whole else self.low

    def __str__(self) -> str:
        if self.choices:
            return f"{self.field}={','.join(map(str, self.choices))}"
        return f"{self.field}={self.low:g}..{self.high:g}{':log' if self.log else ''}"


def parse_search_field(text: str) -> SearchField:
    """Parse ``field=1..4``, ``field=0.1..10:log`` or ``field=this,that``. Raises RecipeError for anything else."""
    field, equals, values = (part.strip() for part in text.partition("="))
    if not (field and equals and values):
        raise _refused(text)
    if bounds := _RANGE.fullmatch(values):
        low, high = _number(bounds["low"], text), _number(bounds["high"], text)
        log, whole = bool(bounds["log"]), isinstance(low, int) and isinstance(high, int)
        if not (isfinite(low) and isfinite(high) and low < high) or (log and low <= 0):
            raise _refused(text)
        return SearchField(field, float(low), float(high), log, whole)
    return SearchField(field, choices=_choices(values, text))


def _choices(values: str, text: str) -> tuple[Any, ...]:
    """Two or more different values, of the types that a search can store."""
    try:
        choices = tuple(load_yaml(part) for part in values.split(","))
    except YamlError as error:
        raise _refused(text) from error
    if not all(isinstance(one, str | bool | int | float | None) for one in choices) or len(set(choices)) < 2:
        raise _refused(text)
    return choices


def default_space(recipe: Recipe) -> tuple[SearchField, ...]:
    """The default search space: the learning rate, and the weight of every objective that needs a teacher. Each ranges
    from a tenth to ten times its value."""
    around = {"training.learning_rate": recipe.training.learning_rate}
    for name, term in recipe.objectives.items():
        if term.objective.needs_teacher and term.weight > 0:
            around[f"objectives.{name}.weight"] = term.weight
    return tuple(
        SearchField(field, value / _FACTOR, value * _FACTOR, log=True) for field, value in around.items()
    )


def values_of(recipe: Recipe, space: Sequence[SearchField]) -> dict[str, Any] | None:
    """The recipe's own values of the fields; None if one of them is not in the space."""
    flat = recipe.as_dict()
    values = {one.field: _at(flat, one.field) for one in space}
    if not all(one.holds(values[one.field]) for one in space):
        return None
    return {one.field: int(values[one.field]) if one.whole else values[one.field] for one in space}


def _at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def changes_of(space: Sequence[SearchField], values: Mapping[str, Any]) -> list[str]:
    """The values of a trial as changes of the recipe."""
    return [f"{one.field}={_yaml_line(values[one.field])}" for one in space]


def _yaml_line(value: Any) -> str:
    return yaml.safe_dump(value, width=float("inf"), allow_unicode=True).splitlines()[0]


def _number(text: str, whole: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise _refused(whole) from None


def _refused(text: str) -> RecipeError:
    return RecipeError(
        f"--search {text!r}",
        expected="field=low..high, field=low..high:log with low above 0, or field=this,that",
        remedy="for example --search objectives.attribution_map.weight=0.1..100:log",
    )
