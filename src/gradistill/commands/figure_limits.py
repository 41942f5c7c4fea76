"""Limits of figures, below which a command ends with exit code 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gradistill.errors import RecipeError, is_number, nearest

_LOYALTY = "_loyalty"


def figure_of(limit: str) -> str:
    """The figure of a limit: ``label_loyalty`` and ``label`` name the same figure."""
    return limit.removesuffix(_LOYALTY)


def check_limits(
    limits: Mapping[str, float], loyalties: Iterable[str], others: Iterable[str] = (), *, owner: str
) -> None:
    """Raise RecipeError for a limit of an unknown figure, and for a limit above 1 of one of the ``loyalties``.

    Example: ``check_limits({"label_loyalty": 0.95}, ["label", "response"], owner="audit")``
    """
    shares = [f"{name}{end}" for name in loyalties for end in (_LOYALTY, "")]
    known = {*shares, *others}
    for name, limit in limits.items():
        if name not in known:
            raise RecipeError(
                f"a limit for {name!r}", expected=f"a figure of the {owner}", remedy=nearest(name, known)
            )
        share, number = name in shares, is_number(limit)
        if not number or (share and limit > 1):
            per_cent = number and 10 <= limit <= 100
            raise RecipeError(
                f"the limit of {name} is {limit!r}",
                expected="a number" + ", 1 at most: the figure is a share or a correlation" * share,
                remedy=f"give {limit / 100:g} for {limit:g} %" if per_cent else "correct it, or leave it out",
            )
