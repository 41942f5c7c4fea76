"""First lines that are no header: named as such, and never mistaken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradistill.data.data_choice import DataChoice
from gradistill.data.delimited import csv_dialect, first_line_fault, read_csv, read_tsv
from gradistill.data.row_stream import RowStream
from gradistill.data.split_loading import read_splits
from gradistill.errors import DataError

ROWS = [["a fine film it was indeed", "positive", "3"], ["such a dull and poor one", "negative", "1"]] * 4
NO_HEADER = "the first line is a row and no header"
TITLE = "the first line is a title and no header"


def lines(*records: list[str], between: str = ",") -> str:
    return "".join(between.join(record) + "\n" for record in records)


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, between: str) -> None:
    path = tmp_path / ("rows.tsv" if between == "\t" else "rows.csv")
    path.write_text(lines(*ROWS, between=between))
    with pytest.raises(DataError, match=rf"row 1: {NO_HEADER}: 'a fine film it was indeed, positive, 3'"):
        read_splits(DataChoice(str(path), validation_share=0.5))
    (chunk,) = RowStream.of(path).chunks()
    assert [NO_HEADER in problem.what for problem in chunk.table.problems] == [True]


@pytest.mark.parametrize(
    "title", ["Export of 2026-11-01", "Export of 2026-11-01;;", "# export", "Reviews, 2024;;", "Reviews;;"]
)
@pytest.mark.parametrize("count", [1, 8])
def test_a_title_above_the_header_is_one_problem(tmp_path: Path, title: str, count: int) -> None:
    path = tmp_path / "rows.csv"
    rows = [*ROWS[:count], *[["a film without any note", "positive", ""]] * (count > 1)]
    path.write_text(f"{title}\n" + lines(["Text", "Label", "n"], *rows, between=";"))
    (problem,) = read_csv("rows.csv", path.read_text()).problems
    assert TITLE in problem.what
    (chunk,) = RowStream.of(path).chunks()
    assert chunk.table.problems[0].what == problem.what


@pytest.mark.parametrize("between", [",", ";"])
def test_a_title_above_two_columns_is_one_problem(between: str) -> None:
    text = lines(["Reviews of 2024", ""], ["text", "label"], ["fine", "yes"], ["poor", "no"], between=between)
    (problem,) = read_csv("rows.csv", text).problems
    assert TITLE in problem.what


def test_a_delimiter_that_the_first_line_names_is_followed() -> None:
    """Excel writes this line, and its delimiter may be the rarer one."""
    text = "sep=;\r\ntext;label\r\nfine, so fine;yes\r\npoor, so poor;no\r\n"
    table = read_csv("rows.csv", text)
    assert (list(table.columns), list(table.lines), table.problems) == (["text", "label"], [3, 4], ())


def test_a_header_that_stands_again_is_a_problem_of_its_line() -> None:
    table = read_csv("rows.csv", lines(["text", "label"], ["fine", "yes"], ["text", "label"], ["poor", "no"]))
    assert [(problem.row, "joined" in problem.what) for problem in table.problems] == [(3, True)]
    assert not read_csv("rows.csv", lines(["text"], ["fine"], ["text"])).problems


FILMS = [f"a fine film number {k}" for k in range(8)]
HONEST = {
    "plain": lines(["text", "label", "n"], *ROWS),
    "a value's name": lines(["text", "positive", "n"], *ROWS),
    "pandas numbers": lines(["0", "1", "2"], *ROWS),
    "pandas index": lines(["", "text"], *[[str(k), "a fine film"] for k in range(8)]),
    "no name": lines(["text", ""], *[["a fine film", "yes"] for _ in range(8)]),
    "survey": lines(
        ["What did you like about it?", "What could we do better?"],
        *[["the food was so good", "more of the same please"], ["nothing at all", "all of it"]] * 4,
    ),
    "one-hot": lines(["Consumer complaint narrative", "0", "1"], *[[f, str(k % 2), "0"] for k, f in enumerate(FILMS)]),
    "stars": lines(["Full review text", "5"], *[[film, str(k % 5 + 1)] for k, film in enumerate(FILMS * 3)]),
    "question": lines(["How was your stay here with us?", "n/a"], *[[film, "n/a"] for film in FILMS]),
    "semicolons": lines(["text"], *[[f"name: {k}; city: b"] for k in range(8)]),
    "feedback": lines(["customer feedback"], *[[f"fine &amp; good {k}"] for k in range(8)]),
    "few": lines(["yes", "no"], ["yes", "no"]).replace("yes,no\n", "a,b\n", 1),
    "header": "text,label\n",
    "one name": "text\n",
    "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_headers_are_headers(name: str) -> None:
    def opened() -> list[str]:
        return HONEST[name].splitlines(keepends=True)

    assert first_line_fault("rows.csv", opened, csv_dialect(opened)) is None


def test_the_end_of_a_line_is_that_of_the_header(tmp_path: Path) -> None:
    """A line within quotes may end otherwise."""
    path = tmp_path / "rows.csv"
    for text, end in (
        ('text,n\r"good\nfilm",1\r', "\r"),
        ('"te\r\nxt",n\ngood,1\n', "\n"),
        ("text,n", "\n"),
        ("", "\n"),
    ):
        path.write_bytes(text.encode())
        dialect = RowStream.of(path).dialect
        assert dialect is not None
        assert dialect.line_end == end


def test_a_blank_line_of_one_column_is_a_row_to_predict(tmp_path: Path) -> None:
    """Elsewhere, and at the end of the file, it is none."""
    for ending in (".csv", ".tsv"):
        path = tmp_path / f"rows{ending}"
        path.write_text("text\ngood\n\n\nbad\n\n")
        (chunk,) = RowStream.of(path).chunks()
        assert (list(chunk.table.columns["text"]), list(chunk.table.lines)) == (
            ["good", "", "", "bad"],
            [2, 3, 4, 5],
        )
        read = read_csv if ending == ".csv" else read_tsv
        assert list(read("rows", path.read_text()).columns["text"]) == ["good", "bad"]
    path.write_text("text\tn\n\na\t1\n")
    assert [list(chunk.table.lines) for chunk in RowStream.of(path).chunks()] == [[3]]


def test_an_empty_cell_of_one_tsv_column_may_be_quoted() -> None:
    """As pandas writes it."""
    assert list(read_tsv("a.tsv", 'text\ngood\n""\nbad\n').columns["text"]) == ["good", "", "bad"]
    assert list(read_tsv("a.tsv", 'text\n"so" he\nbad\n').columns["text"]) == ['"so" he', "bad"]


def test_cleared_rows_at_the_end_are_none() -> None:
    text = "text,n\nx,1\n,\ny,2\n,\n,\n"
    assert list(read_csv("a.csv", text).lines) == [2, 3, 4]
    assert list(read_tsv("a.tsv", text.replace(",", "\t")).lines) == [2, 3, 4]


def test_a_row_of_empty_cells_is_a_row_in_either_format() -> None:
    for table in (
        read_tsv("a.tsv", "text\tn\nx\t1\n\t\n\ny\t2\n"),
        read_csv("a.csv", "text,n\nx,1\n,\n\ny,2\n"),
    ):
        assert list(table.lines) == [2, 3, 5]
        assert list(table.columns["text"]) == ["x", "", "y"]
