"""Limits of figures, below which a command ends with exit code 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite

from gradistill.errors import RecipeError, nearest

_LOYALTY = "_loyalty"


def figure_of(limit: str) -> str:
    """The figure that a limit is for: ``label_loyalty`` and ``label`` are one."""
    return limit.removesuffix(_LOYALTY)


def check_limits(
    limits: Mapping[str, float], loyalties: Iterable[str], others: Iterable[str] = (), *, owner: str
) -> None:
    """Raise RecipeError for a limit of what is no figure of the ``owner``, and for one above 1 of the ``loyalties``.

    Example: ``check_limits({"label_loyalty": 0.95}, ["label", "response"], owner="audit")``
    """
    shares = [f"{name}{end}" for name in loyalties for end in (_LOYALTY, "")]
    known = {*shares, *others}
    for name, limit in limits.items():
        if name not in known:
            raise RecipeError(
                f"a limit for {name!r}", expected=f"a figure of the {owner}", remedy=nearest(name, known)
            )
        number = isinstance(limit, int | float) and not isinstance(limit, bool) and isfinite(limit)
        if not number or (name in shares and limit > 1):
            per_cent = f"give {limit / 100:g} for {limit:g} %" if number and 10 <= limit <= 100 else None
            raise RecipeError(
                f"the limit of {name} is {limit!r}",
                expected="a number, 1 at most: the figure is a share or a correlation"
                if name in shares
                else "a number",
                remedy=per_cent or "correct it, or leave it out",
            )
