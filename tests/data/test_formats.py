"""Formats that people have: each gives the same rows, or one message."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import socket
import tempfile
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill.data import arrow_tables, load_splits
from gradistill.data.data_source import data_name
from gradistill.errors import DataError

ROWS = [
    {"text": "fine, really; a \"gem\"", "label": "yes"},
    {"text": "two\twords", "label": "no"},
    {"text": "né à Paris", "label": "yes"},
]  # fmt: skip
PLAIN = [{"text": "fine", "label": "yes"}, {"text": "poor; or so", "label": "no"}]


def separated(rows: list[dict[str, Any]], delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting)  # pyright: ignore
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return stream.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


WAYS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "comma.csv": lambda rows: separated(rows, ","),
    "semicolon.csv": lambda rows: separated(rows, ";"),
    "tab.csv": lambda rows: separated(rows, "\t"),
    "quoted.csv": lambda rows: separated(rows, ";", csv.QUOTE_ALL),
    "minimal.tsv": lambda rows: separated(rows, "\t"),
    "quoted.tsv": lambda rows: separated(rows, "\t", csv.QUOTE_ALL),
    "list.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "lines.json": as_lines,
    "lines.jsonl": as_lines,
    "marked.csv": lambda rows: b"\xef\xbb\xbf" + separated(rows, ","),
    "marked.json": lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode(),
}


def read(path: Path, **how: Any) -> list[dict[str, Any]]:
    found = load_splits(path, splits=("train",), **how)
    names = found.task.labels
    return [
        {
            **{n: row[n] for n in found.task.text_columns},
            "label": names[row["label"]] if names else row["label"],
        }
        for row in found.rows["train"]
    ]


def refused(path: Any, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_splits(path, **{"splits": ("train",), **how})
    return str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_rows(way: str, packed: bool, tmp_path: Path) -> None:
    content = WAYS[way](ROWS)
    path = tmp_path / (way + ".gz" if packed else way)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read(path) == ROWS


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    str.strip
)
odd = st.sampled_from(['"', '""', ";", ",", "a;b;c", "a,b,c", "\ta", "a\nb", '"quoted"', '"a","b"'])


@settings(max_examples=150)
@given(texts=st.lists(cells | odd, min_size=2, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_the_delimiter_is_found_whatever_the_texts_hold(texts: list[str], delimiter: str) -> None:
    rows = [{"text": f"w {text}", "label": "ab"[k % 2]} for k, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.csv")
        path.write_bytes(separated(rows, delimiter))
        assert read(path) == rows


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ('"text, with a comma";label\nx;yes\ny;no\n', ["text, with a comma", "label"]),
        ("text;with a semicolon,label\nx,yes\ny,no\n", ["text;with a semicolon", "label"]),
        ("id;text,title;label\n1;a, b, c;yes\n2;d;no\n", ["text,title", "label"]),
        ("text,label\na;b;c,yes\nd;e;f,no\n", ["text", "label"]),
    ],
)
def test_a_header_with_the_other_delimiter_does_not_mislead(
    content: str, columns: list[str], tmp_path: Path
) -> None:
    (tmp_path / "train.csv").write_text(content)
    assert list(read(tmp_path / "train.csv", label_column="label")[0]) == columns


def test_decimal_commas_are_numbers_where_semicolons_separate(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text;score\na, b;3,5\nc;-0,25\nd;4\n")
    assert [row["label"] for row in read(tmp_path / "train.csv")] == [3.5, -0.25, 4.0]


def test_decimals_are_numbers_and_a_time_is_no_label(tmp_path: Path) -> None:
    """As databases export them: the name of the type was taken for the label of every row."""
    labels = [Decimal("0"), Decimal("1"), Decimal("1")]
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": labels}), tmp_path / "train.parquet")
    assert [row["label"] for row in read(tmp_path / "train.parquet")] == ["0", "1", "1"]
    times = [datetime(2026, 1, day) for day in (1, 2, 3)]
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": times}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"the label is of the type timestamp\[us\]"):
        read(tmp_path / "train.parquet", label_column="label")


def test_ids_with_commas_between_are_no_decimals_where_a_comma_separates_labels(tmp_path: Path) -> None:
    """In a file of semicolons "0,2" could be a number: here it is two labels."""
    (tmp_path / "train.csv").write_text("text;label\na, b;0,2\nc;1\nd;1,3\n")
    splits = load_splits(tmp_path, splits=("train",), label_column="label", label_separator=",")
    assert splits.task.labels == ("0", "1", "2", "3")
    assert splits.rows["train"]["label"][:] == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 1]]


def test_tabs_without_quoting_keep_quotation_marks(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('text\tlabel\n"Never," she printed.\tno\n"Always."\tyes\n"x\tno\n')
    assert [row["text"] for row in read(tmp_path / "train.tsv")] == [
        '"Never," she printed.',
        '"Always."',
        '"x',
    ]


def test_line_ends_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_bytes(b"text\tlabel\r\na\tyes\r\nb\tno\r\n")
    assert [row["text"] for row in read(tmp_path / "train.tsv")] == ["a", "b"]


NESTED = [
    {"body": {"text": "fine", "size": 1}, "meta": {"label": "yes"}, "a.b": "x"},
    {"body": {"text": "poor", "size": 2}, "meta": {"label": "no"}, "a.b": "y"},
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "Dataset", "list"])
def test_fields_of_objects_are_named_with_dots(ending: str, tmp_path: Path) -> None:
    path: Any = tmp_path / f"train.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(NESTED), path)
    elif ending == "Dataset":
        path = Dataset.from_list(NESTED)
    elif ending == "list":
        path = NESTED
    else:
        path.write_bytes(as_lines(NESTED))
    named = {"text_columns": ("body.text", "a.b"), "label_column": "meta.label"}
    assert read(path, **named) == [
        {"body.text": "fine", "a.b": "x", "label": "yes"}, {"body.text": "poor", "a.b": "y", "label": "no"}
    ]  # fmt: skip
    assert "body.size, body.text" in refused(path, text_columns=("body.txt",), label_column="meta.label")


def test_a_table_without_a_column_of_text_shows_the_fields_that_can_be_named() -> None:
    rows = [{"body": {"text": "fine", "size": 1}, "label": "yes"}]
    assert "named with dots: body.text, body.size" in refused(rows)


def test_a_column_with_a_dot_in_its_name_goes_before_the_field(tmp_path: Path) -> None:
    rows = [{"a": {"b": "inner"}, "a.b": f"outer {k}", "label": "yn"[k]} for k in range(2)]
    (tmp_path / "train.jsonl").write_bytes(as_lines(rows))
    assert read(tmp_path / "train.jsonl", text_columns=("a.b",))[0]["a.b"] == "outer 0"


@pytest.mark.parametrize("alias", ["dev", "val", "valid", "validation"])
@pytest.mark.parametrize("inner", ["", "data"])
def test_validation_by_its_other_names(alias: str, inner: str, tmp_path: Path) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    for split in ("train", alias):
        (folder / f"{split}.csv").write_bytes(separated(PLAIN, ","))
    found = load_splits(tmp_path)
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 2, "validation": 2}
    assert ("from dev.csv" in found.describe()) == (alias == "dev")
    assert len(load_splits(tmp_path, splits=("dev",)).rows["dev"]) == 2


def test_two_splits_that_may_be_validation_are_refused(tmp_path: Path) -> None:
    for split in ("train", "dev", "val"):
        (tmp_path / f"{split}.csv").write_bytes(separated(PLAIN, ","))
    assert "'validation' may be 'dev' or 'val'; keep one" in refused(tmp_path, splits=("train", "validation"))


@pytest.mark.parametrize("first", ["train.csv", "train.csv.gz", "train-00000-of-00001.csv"])
def test_two_files_of_one_split_are_refused_with_both_names(first: str, tmp_path: Path) -> None:
    (tmp_path / first).write_bytes(b"")
    (tmp_path / "train.jsonl").write_bytes(as_lines(PLAIN))
    message = refused(tmp_path)
    assert "more than once" in message
    assert first in message
    assert "train.jsonl" in message


def shards(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        rows = [{"text": f"{word} {k}", "label": label} for word, label in (("a", "yes"), ("b", "no"))]
        pq.write_table(pa.Table.from_pylist(rows), folder / name)


@pytest.mark.parametrize("inner", ["", "data"])
@pytest.mark.parametrize("end", ["-of-00002", "-of-00002-0a1b2c3d", ""])
def test_splits_in_several_files(inner: str, end: str, tmp_path: Path) -> None:
    shards(tmp_path / inner, [f"train-00001{end}.parquet", f"train-00000{end}.parquet"])
    assert [row["text"] for row in read(tmp_path)] == ["a 1", "b 1", "a 0", "b 0"]


def test_a_fault_in_a_part_names_that_part(tmp_path: Path) -> None:
    shards(tmp_path, ["train-00000-of-00002.parquet"])
    pq.write_table(
        pa.Table.from_pylist([{"text": "x", "label": "no"}, {"text": " ", "label": "no"}]),
        tmp_path / "train-00001-of-00002.parquet",
    )
    assert "train-00001-of-00002.parquet, row 2, column 'text': the text is empty" in refused(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], "2 of 3 parts are there"),
        (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], "do not belong together"),
        (["train-00000-of-00001.parquet", "train.parquet"], "more than once"),
    ],
)
def test_parts_that_are_no_whole_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    shards(tmp_path, names)
    assert message in refused(tmp_path)


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    shards(tmp_path, ["train-00000-of-00002.parquet"])
    pq.write_table(pa.table({"text": ["x"], "gold": ["yes"]}), tmp_path / "train-00001-of-00002.parquet")
    assert "train-00001-of-00002.parquet: other columns than" in refused(tmp_path)


SAVED = Dataset.from_dict(
    {"text": ["fine", "poor"], "label": [1, 0]},
    features=Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])}),
)
SAVED_ROWS = [{"text": "fine", "label": "yes"}, {"text": "poor", "label": "no"}]


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    SAVED.save_to_disk(tmp_path / "one")
    DatasetDict(train=SAVED, dev=SAVED).save_to_disk(tmp_path / "many")
    assert read(tmp_path / "one") == SAVED_ROWS
    assert len(load_splits(tmp_path / "many").rows["validation"]) == 2
    message = refused(tmp_path / "one", splits=("train", "validation"))
    assert "is one saved data set" in message
    assert "--validation-share 0.1" in message
    assert "the data set has train, dev" in refused(tmp_path / "many", splits=("test",))


@pytest.mark.parametrize("damage", ["gone", "cut", "elsewhere", "pipe", "text"])
def test_damaged_folders_of_save_to_disk_are_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    SAVED.save_to_disk(folder)
    file, state = next(folder.glob("*.arrow")), folder / "state.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:40])
    elif damage == "text":
        state.write_text("[")
    elif damage == "elsewhere":
        file.rename(tmp_path / "x.arrow")
        state.write_text(state.read_text().replace(file.name, "../x.arrow"))
    else:
        file.unlink()
        if damage == "pipe":
            os.mkfifo(file)
    assert str(folder) in refused(folder)


def test_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path.write_bytes("text,label\nfine,yes\npoor,no\n".encode(encoding))
        assert "train.csv: this is UTF-16, not UTF-8; save the file as UTF-8" in refused(path)


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"text,label\n" * 9, mtime=0)[:-9]])
def test_a_gz_that_is_no_gzip(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.csv.gz").write_bytes(content)
    message = refused(tmp_path / "train.csv.gz")
    assert "no complete gzip file" in message or "the file is empty" in message


def test_files_that_grow_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_tables, "_FREE", 10_000)
    rows = [{"text": "the same words " * 20, "label": k % 2} for k in range(20_000)]
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(separated(rows, ",")))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "validation.parquet")
    for file in tmp_path.iterdir():
        assert "when they are decompressed" in refused(file)


def test_json_that_is_no_list_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    for content, printed in [
        ({"data": PLAIN}, "whose key 'data' holds the rows; save that list alone"),
        ({"text": {"0": "a"}, "label": {"0": 1}}, "to_json(orient='records')"),
        ([*PLAIN, ["x"]], "row 3: a JSON list, not an object"),
        ([], "there are no rows"),
        ("text", "a JSON str, not an object"),
    ]:
        path.write_text(json.dumps(content))
        assert printed in refused(path)
    path.write_text('[{"text": "a", "label": 1},\n {"text": ]')
    assert "row 2: invalid JSON at character 11" in refused(path)
    path.write_text("[" * 100_000)
    assert "train.json" in refused(path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("name", ["train.csv", "train.parquet", "train.csv.gz", "train.txt"])
def test_what_is_no_file_is_refused_at_once(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradistill.data import load_texts

    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = tmp_path / name
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(name)
        elif kind == "device":
            path.symlink_to("/dev/null")
        else:
            path.mkdir()
        if not name.endswith(".txt"):
            assert f"{name}: this is a {kind}" in refused(tmp_path)
        if kind != "folder":
            assert f"this is a {kind}" in refused(path)
            with pytest.raises(DataError, match=f"this is a {kind}"):
                load_texts([path])


def test_numbers_are_of_the_kind_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f"text {k},{k % 5 + 1}\n" for k in range(10)))
    classes, numbers = (load_splits(path, splits=("train",), kind=kind) for kind in ("classes", "scores"))
    assert classes.task.labels == ("1", "2", "3", "4", "5")
    assert numbers.task.labels is None
    assert numbers.rows["train"]["label"][:] == [float(k % 5 + 1) for k in range(10)]
    assert (
        "numbers are read as classes, --kind scores changes that"
        in load_splits(path, splits=("train",)).describe()
    )
    path.write_text("text,label\na,0.5\nb,1.5\nc,0.5\n")
    assert load_splits(path, splits=("train",), kind="classes").task.labels == ("0.5", "1.5")
    assert "--kind classes changes that" in load_splits(path, splits=("train",)).describe()
    path.write_text("text,label\n" + "".join(f"text {k},{k % 60}\n" for k in range(300)))
    assert "--kind classes or --kind scores" in refused(path)
    assert len(load_splits(path, splits=("train",), kind="classes").task.labels or ()) == 60


def test_an_inferred_task_is_called_like_its_data(tmp_path: Path) -> None:
    for name in ("tickets.csv", "tickets/train.csv", "tickets/data/train.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(separated(PLAIN, ","))
        assert load_splits(path, splits=("train",)).task.name == "tickets"
    assert load_splits(tmp_path / "tickets", splits=("train",)).task.name == "tickets"
    assert load_splits(PLAIN, splits=("train",)).task.name == "data"
    assert data_name("owner/name:config") == "name"


def test_a_task_is_not_called_like_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "somebody"
    for path in (home / "data" / "train.csv", tmp_path / "me" / "data" / "train.csv"):
        path.parent.mkdir(parents=True)
        path.touch()
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        assert data_name(path) == data_name(path.parent) == "data"


def test_a_faulty_record_of_a_quoted_file_with_tabs_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text('text\tlabel\n"a\nb"\tyes\n"c\td"\tno\ne\tno\tmore\n')
    message = refused(tmp_path / "train.tsv")
    assert "has 1 problem:" in message
    assert "row 5: 3 fields where the header has 2" in message


def test_values_that_are_nested_deeply_are_refused_not_followed(tmp_path: Path) -> None:
    deep = "[" * 900 + "1" + "]" * 900
    (tmp_path / "train.jsonl").write_text(f'{{"text": "a", "label": {deep}}}\n{{"text": "b", "label": 1}}\n')
    assert "train.jsonl" in refused(tmp_path / "train.jsonl", task="sst2", text_columns=("text",))


@pytest.mark.parametrize(
    ("scores", "doubtful"),
    [
        (["1,200", "950", "2,400"], True),
        (["1,25", "950", "2,400"], False),
        (["0,125", "0,250", "0,375"], False),
    ],
)
def test_commas_that_may_group_thousands_are_a_warning(
    tmp_path: Path, scores: list[str], doubtful: bool
) -> None:
    rows = "".join(f"a film {k};{scores[k % 3]}\n" for k in range(9))
    (tmp_path / "rows.csv").write_text(f"text;score\n{rows}")
    found = load_splits(str(tmp_path / "rows.csv"), kind="scores", validation_share=0.3)
    assert [f"read with a decimal comma, {scores[0]} as" in warning for warning in found.warnings] == [
        True
    ] * doubtful
