"""Numbers as text, the same in every report."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

from gradistill.printing import between, places_below


def finite(value: Any) -> float | None:
    """The value as a float; ``None`` if it is no finite number."""
    number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    return float(value) if number else None


def decimal(value: Any, places: int = 3) -> str | None:
    """The value with ``places`` decimals; ``None`` if it is no finite number."""
    number = finite(value)
    return None if number is None else f"{number:z.{places}f}"


def decimal_limit(limit: Any) -> str | None:
    """A limit with all its digits, and at least three decimals."""
    number = finite(limit)
    return None if number is None else max(f"{number:.3f}", f"{number:.12g}", key=len)


def decimal_below(value: Any, limit: Any, places: int = 3) -> str | None:
    """The value with ``places`` decimals, or as many as it needs to appear below its limit: .9996 is not 1.000."""
    number, least = finite(value), finite(limit)
    if number is not None and least is not None:
        places = places_below(number, least, places)
    return decimal(value, places)


def probability(value: Any) -> str | None:
    """A p-value; the smallest are shown as ``< 0.001`` instead of zero."""
    number = finite(value)
    return "< 0.001" if number is not None and number < 0.001 else decimal(number)


def count(value: Any) -> str | None:
    """A count with separated thousands; ``None`` if it is no finite number."""
    number = finite(value)
    return None if number is None else f"{int(number):,}"


def interval(figure: Mapping[str, Any], places: int = 3) -> str | None:
    """A figure's ``low`` and ``high``, ``None`` where one of them is no finite number."""
    low, high = decimal(figure.get("low"), places), decimal(figure.get("high"), places)
    return None if low is None or high is None else between(low, high)
