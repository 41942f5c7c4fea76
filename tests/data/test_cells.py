"""Columns in pieces: a sequence like a list, in less memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.data import load_splits
from gradistill.data.cells import Cells, as_cells, joined, packed

CELLS = st.one_of(st.none(), st.text(max_size=5), st.integers(), st.booleans(), st.lists(st.text(max_size=2)))
PARTS = st.lists(st.lists(CELLS, max_size=4), max_size=4)


@given(PARTS, st.data())
def test_cells_are_like_a_list(parts: list[list[Any]], data: st.DataObject) -> None:
    whole = [cell for part in parts for cell in part]
    cells = Cells(map(packed, parts))
    assert len(cells) == len(whole)
    assert list(cells) == [cells[row] for row in range(len(cells))] == whole
    assert cells == whole
    assert [type(cell) for cell in cells] == [type(cell) for cell in whole]
    start, stop = data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
    assert cells[start:stop] == whole[start:stop]
    kept = [row for row in range(len(whole)) if data.draw(st.booleans())]
    assert cells.take(kept) == [whole[row] for row in kept]
    with pytest.raises(IndexError):
        cells[len(whole)]


def test_texts_become_arrow_and_other_cells_stay() -> None:
    assert packed(["a", None]).equals(pa.array(["a", None]))
    assert packed([1, 2.5, "a"]) == [1, 2.5, "a"]
    assert packed(["\ud800"]) == ["\ud800"]


def test_as_a_column_of_arrow_texts_are_not_copied() -> None:
    cells = Cells([packed(["a", "b"]), packed(["c"])])
    column = cells.arrow(pa.string())
    assert column.to_pylist() == ["a", "b", "c"]
    assert column.chunk(0).buffers()[2].address == cells.pieces[0].buffers()[2].address
    assert as_cells([1, 2]).arrow(pa.int64()).to_pylist() == [1, 2]


def test_what_a_part_lacks_is_none_in_its_rows() -> None:
    parts = [{"a": ["x"]}, {"b": [1, 2], "a": ["y", "z"]}, {"b": [3]}]
    assert joined(parts) == {"a": ["x", "y", "z", None], "b": [None, 1, 2, 3]}
    assert joined([]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_a_row_is_hardly_larger_in_memory_than_in_its_file(name: str, tmp_path: Path) -> None:
    line = '{{"text": "row {k} has a text of its own", "label": "{l}"}}' if "json" in name else None
    mark = "\t" if "tsv" in name else ","
    file = tmp_path / name

    def most(rows: int) -> int:
        lines = [] if line else [f"text{mark}label"]
        each = line or "row {k} has a text of its own" + mark + "{l}"
        lines += [each.format(k=k, l="yes" if k % 2 else "no") for k in range(rows)]
        file.write_text("\n".join(lines), encoding="utf-8")
        tracemalloc.start()
        try:
            load_splits(file, splits=("train",))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = most(5_000)
    size = file.stat().st_size / 5_000
    assert (most(15_000) - few) / 10_000 < 5 * size  # a list of its cells: ten times as large
