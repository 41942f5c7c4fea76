"""Limits of figures, below which a command ends with exit code 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gradistill.errors import RecipeError, nearest

_LOYALTY = "_loyalty"


def figure_of(limit: str) -> str:
    """The figure that a limit is for: ``label_loyalty`` and ``label`` are one."""
    return limit.removesuffix(_LOYALTY)


def check_limits(
    limits: Mapping[str, float], loyalties: Iterable[str], others: Iterable[str] = (), *, owner: str
) -> None:
    """Raise RecipeError for a limit of what is no figure of the ``owner``, and for one that no figure can reach.

    Example: ``check_limits({"label_loyalty": 0.95}, ["label", "response"], owner="audit")``
    """
    known = [*(f"{name}{end}" for name in loyalties for end in (_LOYALTY, "")), *others]
    for name, limit in limits.items():
        if name not in known:
            raise RecipeError(
                f"a limit for {name!r}", expected=f"a figure of the {owner}", remedy=nearest(name, {*known})
            )
        if not limit <= 1.0:
            raise RecipeError(
                f"the limit of {name} is {limit:g}, which no model reaches",
                expected="1 at most: figures are shares and correlations",
                remedy=f"give {limit / 100:g} for {limit:g} %" if 1 < limit <= 100 else "give such a number",
            )
