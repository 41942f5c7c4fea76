"""Parts of the examples by a column, and the worst parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradistill.auditing.even_ranges import even_ranges
from gradistill.auditing.slices import MIN_ROWS, NO_VALUE, OTHER_VALUES, by_values, worst_slices


def sizes(values: list[str | None]) -> dict[str, int]:
    columns = {"tokens": np.arange(len(values))}
    parts = by_values(columns, values)
    assert sorted(np.concatenate([part["tokens"] for part in parts.values()])) == list(range(len(values)))
    return {name: len(part["tokens"]) for name, part in parts.items()}


def test_each_value_is_a_part_and_missing_ones_are_another() -> None:
    values = ["south", "north", " north ", None, "  ", "north", "3"]
    assert list(sizes(values).items()) == [("north", 3), ("south", 1), ("3", 1), (NO_VALUE, 2)]


def test_rare_values_are_put_together() -> None:
    found = sizes([f"v{k}" for k in range(30) for _ in range(2 if k < 20 else 1)])
    assert len(found) == 21
    assert found[OTHER_VALUES] == 10


def test_many_numbers_are_put_into_ranges() -> None:
    found = sizes([*map(str, range(100)), None])
    assert found == {
        "0 to 24.75": 25,
        "24.75 to 49.5": 25,
        "49.5 to 74.25": 25,
        "74.25 to 99": 25,
        NO_VALUE: 1,
    }
    days = sizes([str(20240101 + k) for k in range(100)])
    assert [*days.values()] == [25] * 4, "dates differ in their last digits"
    assert next(iter(days)) == "20240101 to 20240126"
    assert sizes([str(k % 3) for k in range(30)]) == {"0": 10, "1": 10, "2": 10}, "few numbers are values"


def test_the_worst_parts_have_enough_rows() -> None:
    def part(value: float | None, n: int = MIN_ROWS, **name: Any) -> dict[str, Any]:
        figure = {"value": value, "low": 0.1, "high": 0.9, "n": n}
        return {**name, "n": n, "figures": {"label": figure}}

    student = {
        "by_label": [part(0.9, label="a"), part(0.1, MIN_ROWS - 1, label="b"), part(None, label="c")],
        "by_length": [part(0.6, label="4–9 tokens")],
        "by_confidence": [part(0.7, low=0.5, high=0.75)],
        "by_column": [
            {"column": "region", "parts": [part(0.5, label="north"), {"label": "south", "figures": {}}]}
        ],
    }
    found = worst_slices(student)
    assert [(entry["by"], entry["name"], entry["value"]) for entry in found] == [
        ("region", "north", 0.5), ("length", "4–9 tokens", 0.6), ("confidence", "0.5 to 0.75", 0.7),
    ]  # fmt: skip


def test_ids_with_underscores_are_no_numbers() -> None:
    values = [f"{k}_000" for k in range(1, 40)] * 2
    parts = by_values({"label": np.ones(len(values))}, values)
    assert not any("to" in name for name in parts)


def test_a_number_that_most_rows_have_is_a_range_of_its_own() -> None:
    """Three of four quartiles of a count that is mostly 0 are 0: all rows were one part."""
    assert sizes([*["0"] * 160, *map(str, range(1, 41))]) == {"0": 160, "1 to 40": 40}
    around = sizes([*["5"] * 60, *map(str, range(1, 41))])
    assert around == {"1 to 5": 4, "5": 61, "6 to 15.25": 10, "15.25 to 40": 25}
    assert sizes([*map(str, range(40)), *["99"] * 60]) == {"0 to 24.75": 25, "24.75 to 99": 15, "99": 60}


@given(st.lists(st.integers(-5, 40) | st.floats(-1, 1), min_size=1, max_size=60), st.integers(1, 6))
def test_even_ranges_hold_each_number_once(numbers: list[float], count: int) -> None:
    values = np.array(numbers, dtype=float)
    found = even_ranges(values, count)
    assert (np.sum([inside for *_, inside in found], axis=0) == 1).all()
    for low, high, inside in found:
        assert low <= values[inside].min()
        assert values[inside].max() <= high
    assert len(found) <= 2 * count
