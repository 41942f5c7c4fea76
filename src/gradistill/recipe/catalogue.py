"""A catalogue of the shipped methods, with the teacher signals that they need and the cost of a step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from gradistill.objectives.base import ANY_PAIR
from gradistill.recipe.recipe_files import shipped_methods
from gradistill.recipe.resolver import load_recipe
from gradistill.signals import SIGNALS


@dataclass(frozen=True)
class Entry:
    """One method. ``signals``: the teacher signals that it needs, from cheap to expensive. ``cost``: the time of a step
    relative to a step of plain cross-entropy, or None if it was not measured."""

    method: str
    title: str
    summary: str
    source: str
    objectives: tuple[str, ...]
    signals: tuple[str, ...]
    cost: float | None


def catalogue() -> list[Entry]:
    """All shipped methods, sorted by name."""
    return [entry_of(name) for name in shipped_methods()]


@cache
def measured_costs() -> dict[str, Any]:
    """The results of ``benchmarks/method_costs.py``: ``costs`` by method, their ``setting`` and ``command``."""
    text = (resources.files("gradistill.recipe") / "costs.json").read_text(encoding="utf-8")
    return json.loads(text)


def entry_of(name: str) -> Entry:
    """The entry of a shipped method. Raises RecipeError for an unknown name, with the nearest one."""
    recipe = load_recipe(name)
    of_teacher = {
        type(signal)
        for term in recipe.objectives.values()
        for signal in term.objective.signals(ANY_PAIR, "teacher").values()
    }
    cost = measured_costs()["costs"].get(name)
    return Entry(
        name,
        recipe.title,
        recipe.summary,
        recipe.source,
        tuple(recipe.objectives),
        tuple(kind.title for kind in SIGNALS if kind in of_teacher),
        cost["median"] if cost else None,
    )
