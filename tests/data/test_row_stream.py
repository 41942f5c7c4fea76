"""Files in chunks: the same rows, lines and faults as the readers of whole files find."""

from __future__ import annotations

import gzip
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill.data.chunk_texts import check_rows, choose_text_columns, first_rows
from gradistill.data.delimited import read_tsv
from gradistill.data.file_readers import read_file
from gradistill.data.row_output import Columns, writer_of
from gradistill.data.row_stream import RowStream
from gradistill.errors import DataError

FILES = {
    "comma.csv": b'text,label\nfine,1\n"two\nlines, ""quoted""",0\n\nthree,1\n',
    "semicolon.csv": b"text;label\r\nfine, one;1\r\npoor;0\r\nvery;1\r\n",
    "old_mac.csv": b"text,label\rfine,1\rpoor,0\r",
    "marked.csv": b"\xef\xbb\xbftext,label\nn\xc3\xa9,1\n",
    "odd.csv": b"text,label\na,1\nb\nc,2,3\nd,4\n",
    "unmatched.csv": b'text,label\na,1\n"b,2\nc,3\n',
    "header.csv": b"text,label\n",
    "empty.csv": b"",
    "twice.csv": b"text,text\na,b\n",
    "plain.tsv": b'text\tlabel\n"fine" he printed\t1\npoor\t0\n',
    "quoted.tsv": b'text\tlabel\n"fine ""x"""\t1\n"a\tb"\t0\n',
    "rows.jsonl": '{"text": "a\u2028b", "n": 1}\n\n{"text": "c", "m": [1]}\n{"text": 3}\n'.encode(),
    "broken.jsonl": b'{"text": "a"}\n{"text": \n[1]\n{}\n{"a": 1, "a": 2}\n{"text": "z"}\n',
}


def joined(stream: RowStream, rows: int) -> tuple[dict[str, list[Any]], list[int], list[str]]:
    """Columns, lines and problems of all chunks together."""
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    problems: list[str] = []
    for chunk in stream.chunks(rows):
        assert len(chunk) <= rows
        for name in dict.fromkeys([*columns, *chunk.table.columns]):
            cells = chunk.table.columns.get(name, [None] * len(chunk))
            columns.setdefault(name, [None] * len(lines)).extend(cells)
        lines += chunk.table.lines
        problems += map(str, chunk.table.problems)
    return columns, lines, problems


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_chunks_hold_what_the_whole_file_holds(name: str, packed: bool, rows: int, tmp_path: Path) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(FILES[name]) if packed else FILES[name])
    whole = read_file(path)
    columns, lines, problems = joined(RowStream.of(path), rows)
    assert columns == {name: list(cells) for name, cells in whole.columns.items()} or not lines
    assert lines == list(whole.lines)
    assert set(problems) == set(map(str, whole.problems))


def test_parquet_keeps_its_places(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", "b", None], "v": [[1], [2], None]}), path, row_group_size=2)
    columns, lines, problems = joined(RowStream.of(path), 2)
    assert (columns["text"], lines, problems) == (["a", "b", None], [1, 2, 3], [])
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert joined(RowStream.of(path), 2)[2] == [f"{path}: there are no rows"]


@settings(max_examples=60)
@given(st.lists(st.lists(st.text('a"\t ', max_size=5), min_size=2, max_size=2), min_size=1, max_size=6))
def test_tabs_are_read_as_by_the_rule_for_whole_files(tmp_path_factory: Any, cells: list[list[str]]) -> None:
    text = "".join("\t".join(row) + "\n" for row in [["text", "other"], *cells])
    path = tmp_path_factory.mktemp("tabs") / "rows.tsv"
    path.write_text(text, encoding="utf-8", newline="")
    whole = read_tsv(str(path), text)
    columns, lines, problems = joined(RowStream.of(path), 2)
    assert lines == list(whole.lines)
    assert columns == {name: list(found) for name, found in whole.columns.items()} or not lines
    assert set(problems) == set(map(str, whole.problems))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("latin.csv", "text\nok\nné\n".encode("latin-1"), r"latin.csv, row 3: not UTF-8 at byte 9 \(0xe9\)"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "row 2: not UTF-8"),
        ("wide.csv", "text\nok\n".encode("utf-16"), "UTF-16, not UTF-8"),
        ("broken.csv.gz", gzip.compress(b"text\n" + b"a b\n" * 1000, mtime=0)[:-20], "no complete gzip file"),
        ("no.csv.gz", b"text\na\n", "no complete gzip file"),
        ("no.parquet", b"text\na\n", "not a readable Parquet file"),
        ("list.json", b"[]", "save it as .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_place(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        check_rows(RowStream.of(path), ("text",))


def test_a_huge_field_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,n\n" + "word " * 100_000 + ",1\n", encoding="utf-8")
    ((chunk,),) = [list(RowStream.of(path).chunks())]
    assert len(chunk.table.columns["text"][0]) == 500_000


def test_a_packed_file_has_the_dialect_of_the_plain_one(tmp_path: Path) -> None:
    """Its fields may be longer than the packed file."""
    rows = "".join(f'"a ""fine"" film {"x" * 200_000}"\t{k}\n' for k in range(3))
    plain, packed = tmp_path / "rows.tsv", tmp_path / "rows.tsv.gz"
    plain.write_text(f"text\tn\n{rows}")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert RowStream.of(packed).dialect == RowStream.of(plain).dialect


def test_every_cell_that_is_no_text_is_listed_and_a_row_without_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": 7}, {"text": " "}, {"other": 1}, {"text": None}, {"text": ["a"]}, {"text": "a"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        check_rows(RowStream.of(path), ("text",))
    assert [(p.row, p.column) for p in refused.value.problems] == [(k, "text") for k in (1, 5)]


def test_which_columns_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(
        f"{k},text number {'x' * k} here,a comment of {k} words,{'yes' if k % 2 else 'no'}\n"
        for k in range(9)
    )
    path.write_text(f"id,body,remark,category\n{rows}", encoding="utf-8")
    table = first_rows(RowStream.of(path))
    assert choose_text_columns(table, None, None, ("No", "Yes")) == ("body", "remark")
    assert choose_text_columns(table, None, ("remark",), ()) == ("remark",)
    assert choose_text_columns(table, ("body",), ("remark",), ()) == ("body",)
    assert choose_text_columns(table, None, ("sentence",), ("no", "yes")) == ("body",)  # it reads one text
    assert choose_text_columns(table, None, ("sentence", "other"), ("no", "yes")) == ("body", "remark")
    with pytest.raises(DataError, match="did you mean 'body'"):
        choose_text_columns(table, ("bdy",), None, ())


def test_whole_numbers_of_json_keep_all_their_digits_in_parquet(tmp_path: Path) -> None:
    path, output = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    rows = [
        {"id": 2**60 + 1, "x": 1, "big": 10**30},
        {"id": 2**60 + 3, "x": 0.5, "big": 1},
        {"x": 2, "o": {"a": 1}},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    stream, columns = RowStream.of(path), None
    for chunk in stream.chunks(1):
        columns = Columns.joined(columns, chunk)
    assert columns is not None
    writer = writer_of(output, stream, columns, {})
    for chunk in stream.chunks(2):
        writer.write(chunk, {})
    writer.close()
    assert pq.read_table(output).to_pydict() == {
        "id": [2**60 + 1, 2**60 + 3, None], "x": [1.0, 0.5, 2.0], "big": [str(10**30), "1", None],
        "o": [None, None, '{"a": 1}'],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "written"), [(".csv", ["", "-inf", "0.5"]), (".jsonl", [None, None, 0.5])]
)
def test_numbers_that_are_not_finite_are_written_as_the_format_allows(
    ending: str, written: list[Any], tmp_path: Path
) -> None:
    path, output = tmp_path / "rows.parquet", tmp_path / f"out{ending}"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "x": [float("nan"), -math.inf, 0.5]}), path)
    stream = RowStream.of(path)
    chunk = next(iter(stream.chunks(9)))
    writer = writer_of(output, stream, Columns.joined(None, chunk), {})
    writer.write(chunk, {"score": np.ones(3, np.float32)})
    writer.close()

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = output.read_text().splitlines()
    if ending == ".csv":
        assert [line.split(",")[1] for line in lines[1:]] == written
    else:
        assert [json.loads(line, parse_constant=refused)["x"] for line in lines] == written


def test_a_label_with_a_tab_is_refused_where_no_quotes_can_enclose_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tn\n"a" dull film\t1\n"b\t2\n', encoding="utf-8")
    stream = RowStream.of(path)
    assert stream.dialect is not None
    assert not stream.dialect.quotes
    columns = Columns.joined(None, next(iter(stream.chunks(9))))
    with pytest.raises(DataError, match=r"'probability_a\\tb' holds a tab"):
        writer_of(tmp_path / "out.tsv", stream, columns, {"probability_a\tb": np.ones(2, np.float32)})


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_memory_does_not_grow_with_the_file(ending: str, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"rows{rows}{ending}"
        line = '{"text": "%d a film"}\n' if ending == ".jsonl" else "%d a film,1\n"
        path.write_text(
            ("" if ending == ".jsonl" else "text,n\n") + "".join(line % (10**400 + k) for k in range(rows))
        )
        tracemalloc.start()
        try:
            assert sum(len(chunk) for chunk in RowStream.of(path).chunks(50)) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(600)  # what is made once
    assert peak(3_000) < 1.5 * peak(600)  # all rows at once would be five times as much
