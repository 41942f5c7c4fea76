"""Slices: parts of the examples by the values of a data column, and the parts with a student's lowest agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from gradistill.auditing.even_ranges import even_ranges
from gradistill.auditing.per_example import Columns, count_rows, select_rows
from gradistill.data.cell_checks import number

MIN_ROWS = 20
"""Fewest examples of a part that can be the worst: below, a 95 % interval is wider than 0.35."""

MOST_VALUES = 20
"""Most values of a text column that become parts of their own; all rarer values together are one part."""

QUARTERS = 4

NO_VALUE, OTHER_VALUES = "(no value)", "(other values)"

RANKED_BY = ("label", "prediction")
"""The figures that rank parts; the first that a part has is used."""

BREAKDOWNS = {"by_label": "the teacher’s label", "by_length": "length", "by_confidence": "confidence"}
"""The breakdowns of a student in ``audit.json`` that every audit has, with their titles."""


def by_values(columns: Columns, values: Sequence[str | None]) -> dict[str, Columns]:
    """The columns split by the value of each example, the most frequent value first.

    Numbers with more than ``MOST_VALUES`` different values are split into four ranges with about equally many examples
    (``even_ranges``), in ascending order. ``None`` and blank texts form a separate part.

    Example: ``by_values(columns, ["north", "south", "north"])["north"]``
    """
    named = [value.strip() if value and value.strip() else None for value in values]
    numbers = [number(value) for value in named if value is not None]
    if len(set(numbers)) > MOST_VALUES and all(n is not None and isfinite(n) for n in numbers):
        named, kept = _ranges(named)
    else:
        counts = Counter(value for value in named if value is not None)
        kept = [value for value, _ in counts.most_common(MOST_VALUES)]
    names = np.array([NO_VALUE if v is None else v if v in kept else OTHER_VALUES for v in named])
    parts = {name: select_rows(columns, names == name) for name in (*kept, OTHER_VALUES, NO_VALUE)}
    return {name: part for name, part in parts.items() if count_rows(part)}


def _ranges(values: Sequence[str | None]) -> tuple[list[str | None], list[str]]:
    """The name of the range of each number, and the names of all ranges."""
    known = {place: float(value) for place, value in enumerate(values) if value is not None}
    places, ranges = list(known), even_ranges(np.array(list(known.values())), QUARTERS)
    names = _range_names([(low, high) for low, high, _ in ranges])
    named: list[str | None] = [None] * len(values)
    for name, (_, _, inside) in zip(names, ranges, strict=True):
        for k in np.flatnonzero(inside):
            named[places[k]] = name
    return named, names


def _range_names(ranges: Sequence[tuple[float, float]]) -> list[str]:
    """``low to high`` of each range, or its one value, in the fewest digits that keep all bounds apart."""
    bounds = {bound for ends in ranges for bound in ends}
    for form in ("g", *(f".{decimals}f" for decimals in range(18))):
        shown = {bound: format(bound, form) for bound in bounds}
        if len({*shown.values()}) == len(bounds) and not any("e+" in text for text in shown.values()):
            break
    return [shown[low] if low == high else f"{shown[low]} to {shown[high]}" for low, high in ranges]


def worst_slices(student: Mapping[str, Any], count: int = 3) -> list[dict[str, Any]]:
    """The parts of a student's breakdowns with the lowest agreement, among parts with ``MIN_ROWS`` examples or more.

    Parameters:
        ``student``: an entry of ``students`` in ``audit.json``, with ``by_label``, ``by_length``, ``by_confidence``
            and ``by_column``.
        ``count``: most parts to return.

    Returns ``{by, name, figure, value, low, high, n}`` for each part, the worst first.

    Example: ``worst_slices({"by_length": [{"label": "4 tokens", "n": 50, "figures": {}}]})``
    """
    named = [(title, part) for key, title in BREAKDOWNS.items() for part in student.get(key) or []]
    named += [(c["column"], part) for c in student.get("by_column") or [] for part in c["parts"]]
    entries = [entry for title, part in named if (entry := ranked(title, part))]
    return sorted(entries, key=lambda entry: entry["value"])[:count]


def ranked(by: str, part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A part of a breakdown with the figure that ranks it; None if it is too small or has no such figure."""
    figures = part.get("figures") or {}
    for name in RANKED_BY:
        figure = figures.get(name) or {}
        if figure.get("value") is not None and (figure.get("n") or 0) >= MIN_ROWS:
            label = part.get("label")
            name_of_part = str(label)
            if label is None:
                (name_of_part,) = _range_names([(part["low"], part["high"])])
            measured = {key: figure.get(key) for key in ("value", "low", "high", "n")}
            return {"by": by, "name": name_of_part, "figure": name, **measured}
    return None
