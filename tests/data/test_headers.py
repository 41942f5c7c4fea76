"""First lines that are no header: named as such, and never mistaken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradistill.data.data_choice import DataChoice
from gradistill.data.delimited import csv_dialect, header_fault, read_csv, read_tsv
from gradistill.data.row_stream import RowStream
from gradistill.data.splits import read_splits
from gradistill.errors import DataError

ROWS = [["a fine film indeed", "positive", "3"], ["a dull and poor one", "negative", "1"]] * 4
NO_HEADER = "the first line is a row and no header"
TITLE = "if it is a title, remove what is above the header"


def lines(*records: list[str], between: str = ",") -> str:
    return "".join(between.join(record) + "\n" for record in records)


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, between: str) -> None:
    path = tmp_path / ("rows.tsv" if between == "\t" else "rows.csv")
    path.write_text(lines(*ROWS, between=between))
    with pytest.raises(DataError, match=rf"row 1: {NO_HEADER}: 'a fine film indeed, positive, 3'"):
        read_splits(DataChoice(str(path), validation_share=0.5))
    (chunk,) = RowStream.of(path).chunks()
    assert [NO_HEADER in problem.what for problem in chunk.table.problems] == [True]


@pytest.mark.parametrize("title", ["Export of 2026-11-01", "Export of 2026-11-01;;"])
def test_a_title_above_the_header_is_one_problem(tmp_path: Path, title: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{title}\n" + lines(["Text", "Label", "n"], *ROWS, between=";"))
    (problem,) = read_csv("rows.csv", path.read_text()).problems
    assert TITLE in problem.what
    assert "all rows have 3 fields" in problem.what
    (chunk,) = RowStream.of(path).chunks()
    assert chunk.table.problems[0].what == problem.what


@pytest.mark.parametrize(
    "text",
    [
        lines(["text", "label", "n"], *ROWS),
        lines(["text", "positive", "n"], *ROWS),  # a column that is called like one of its values
        lines(["0", "1", "2"], *ROWS),  # as pandas numbers columns
        lines(["", "text"], *[[str(k), "a fine film"] for k in range(8)]),  # pandas' index
        lines(["text", ""], *[["a fine film", "yes"] for _ in range(8)]),
        lines(["What did you like about it?", "What could we do better?"],
              *[["the food was so good", "more of the same please"], ["nothing at all it seems", "all of it"]] * 4),
        lines(["text"], *[[f"fine; film {k}"] for k in range(3)]),
        lines(["text"], *[["one; two"], ["a; b; c"], ["none"]] * 4),
        lines(["yes", "no"], ["yes", "no"]),  # too few rows to tell
        "text,label\n",
        "text\n",
        "",
    ],
)  # fmt: skip
def test_headers_are_headers(text: str) -> None:
    def opened() -> list[str]:
        return text.splitlines(keepends=True)

    assert header_fault("rows.csv", opened, csv_dialect(opened)) is None


def test_a_row_of_empty_cells_is_a_row_in_either_format() -> None:
    for table in (
        read_tsv("a.tsv", "text\tn\nx\t1\n\t\n\ny\t2\n"),
        read_csv("a.csv", "text,n\nx,1\n,\n\ny,2\n"),
    ):
        assert list(table.lines) == [2, 3, 5]
        assert list(table.columns["text"]) == ["x", "", "y"]
