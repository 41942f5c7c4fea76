"""Objectives: one file each, found by import. Adding one touches its file and its test, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import getmembers, isabstract, isclass
from pkgutil import iter_modules

from gradistill.models.facts import ModelFacts
from gradistill.objectives.base import Moment, Objective, Pair
from gradistill.objectives.term import Term
from gradistill.rooms import called

__all__ = ["ModelFacts", "Moment", "Objective", "Pair", "Term", "objectives"]

called(__name__, f"{__name__}:objectives")


@cache
def objectives() -> Mapping[str, type[Objective]]:
    """All objectives of this folder by name."""
    found: dict[str, type[Objective]] = {}
    for module in iter_modules(__path__, prefix=f"{__name__}."):
        for _, member in getmembers(import_module(module.name), isclass):
            if issubclass(member, Objective) and not isabstract(member):
                found[member.name] = member
    return dict(sorted(found.items()))
