"""One test for each kind of unusable data; the message says file, row, column, and what to do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradistill.data.split_loading import load_splits
from gradistill.errors import DataError

GOOD = "sentence,label\nfine,1\nbad,0\n"


def refusal(source: Path, **options: object) -> DataError:
    options = {"task": "sst2", "splits": ("train",)} | options
    with pytest.raises(DataError) as caught:
        load_splits(source, **options)  # type: ignore[arg-type]
    return caught.value


def of_text(folder: Path, content: str | bytes, ending: str = "csv", **options: object) -> str:
    path = folder / f"train.{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(refusal(path, **options))


def of_table(folder: Path, columns: dict[str, list], **options: object) -> str:
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return str(refusal(folder / "train.parquet", **options))


@pytest.mark.parametrize(
    ("content", "printed"),
    [
        ("sentence,label\nfine,\n", "train.csv, row 2, column 'label': missing label"),
        ("sentence,label\nfine,-1\n", "train.csv, row 2, column 'label': missing label (-1 marks"),
        ("sentence,label\nfine,2\n", "row 2, column 'label': unknown label '2'; known: negative, positive"),
        ("sentence,label\nfine,nan\n", "row 2, column 'label': unknown label 'nan'"),
        ('sentence,label\n"a\nb",1\n,1\n', "train.csv, row 4, column 'sentence': the text is empty"),
        ("sentence,label\n \t,1\n", "row 2, column 'sentence': the text is empty"),
        ("sentence,label\n1,1\n2.5,0\n", "column 'sentence': numbers in every row where text belongs"),
        ("sentence,label\nx,1\na, b,1\n", "row 3: 3 fields where the header has 2; quote a text"),
        ("sentence,label\nx\n", "row 2: 1 fields where the header has 2"),
        ('sentence,label\nx,1\n"y"z,1\n', "row 3: quotation marks do not match (',' expected after '\"')"),
        (
            'sentence,label\nx,1\n\n"y,1\nz,0\n',
            "row 4: quotation marks do not match (unexpected end of data)",
        ),
        ("sentence,sentence,label\nx,y,1\n", "row 1: the header names a column twice: 'sentence'"),
        ("sentence,,,label\nx,,,1\n", "row 1: the header names a column twice: ''"),
        (
            "sentence,label,,\nx,1,,\ny,0,,9\n",
            "row 3: a cell at the right of column 'label', where the header has no",
        ),
        (
            "sentense,label\nx,1\n",
            "column 'sentence': the column is missing; did you mean 'sentense'? Known: label",
        ),
        ("sentence,lable\nx,1\n", "column 'label': the column is missing; did you mean 'lable'?"),
        ("sentence,label\n", "train.csv: there are no rows"),
        ("", "train.csv: the file is empty"),
        ("\n\n", "train.csv: the file is empty"),
    ],
)
def test_csv(tmp_path: Path, content: str, printed: str) -> None:
    message = of_text(tmp_path, content)
    assert printed in message
    assert str(tmp_path) in message
    assert "To do: correct these" in message


@pytest.mark.parametrize(
    ("content", "printed"),
    [
        ('{"sentence": "x", "label": null}', "train.jsonl, row 1, column 'label': missing label"),
        ('{"sentence": "x", "label": 1}\n{"sentence": "x"}', "row 2, column 'label': missing label"),
        ('{"sentence": "x", "label": true}', "row 1, column 'label': unknown label 'True'"),
        ('{"sentence": "x", "label": [1]}', "row 1, column 'label': '[1]' are several labels, and the"),
        ('{"sentence": "x", "label": 0}\n\n{"label": 1}', "row 3, column 'sentence': the text is missing"),
        (
            '{"sentence": "x", "label": 0}\n{"sentence": 7, "label": 0}',
            "row 2, column 'sentence': a number ('7')",
        ),
        ('{"sentence": ["x"], "label": 0}', "row 1, column 'sentence': a value that is not text"),
        ('{"sentence": "x", "label": 0}\n{"sentence"', "row 2: invalid JSON at character 12"),
        (
            '{"sentence": "x", "label": 0}\n["x"]',
            "row 2: a JSON list, not an object; expected one JSON object",
        ),
        ("{}", "row 1: an object without keys"),
        ('{"sentence": "x", "sentence": "y"}', "row 1: a key occurs twice: 'sentence'"),
        ('{"sentence": "\\ud800", "label": 0}', "row 1: half of a surrogate pair"),
        ('{"text": "x", "label": 0}', "column 'sentence': the column is missing; Known: label, text"),
        ("", "train.jsonl: there are no rows"),
    ],
)
def test_jsonl(tmp_path: Path, content: str, printed: str) -> None:
    assert printed in of_text(tmp_path, content, "jsonl")


@pytest.mark.parametrize(
    ("columns", "printed"),
    [
        (
            {"sentence": ["x", None], "label": [0, 1]},
            "train.parquet, row 2, column 'sentence': the text is missing",
        ),
        ({"sentence": ["x", "y"], "label": [0, None]}, "row 2, column 'label': missing label"),
        ({"sentence": ["x", "y"], "label": [0, float("nan")]}, "row 2, column 'label': missing label"),
        ({"sentence": [1, 2], "label": [0, 1]}, "column 'sentence': numbers in every row"),
        (
            {"sentence": [[0.5], [1.5]], "label": [0, 1]},
            "row 1, column 'sentence': a value that is not text ('[0.5]",
        ),
        ({"sentence": ["x"], "lable": [0]}, "column 'label': the column is missing; did you mean 'lable'?"),
        ({"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "there are no rows"),
    ],
)
def test_parquet(tmp_path: Path, columns: dict[str, list], printed: str) -> None:
    assert printed in of_table(tmp_path, columns)


@pytest.mark.parametrize(
    ("label", "printed"),
    [
        ("", "missing label"),
        ("nan", "the score 'nan' is not a finite number"),
        ("-inf", "the score '-inf' is not a finite number"),
        ("1e39", "the score '1e39' is not a finite number"),
        ("high", "'high' where a score (a number) belongs"),
    ],
)
def test_scores(tmp_path: Path, label: str, printed: str) -> None:
    content = f"sentence1,sentence2,label\na,b,3.5\na,b,{label}\n"
    assert f"row 3, column 'label': {printed}" in of_text(tmp_path, content, task="stsb")
    assert f"row 3, column 'label': {printed}" in of_text(tmp_path, content, task=None)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_another_encoding(tmp_path: Path, ending: str) -> None:
    content = b"\xef\xbb\xbfsentence,label\nfine,1\ncaf\xe9,0\n"
    message = of_text(tmp_path, content, ending)
    assert f"row 3: not UTF-8 at byte {content.index(0xE9)} (0xe9); save the file as UTF-8" in message


def test_a_corrupt_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"sentence": ["x"], "label": [1]}), path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[:10] + b"\x00" * 40 + whole[50:], b"not parquet at all"):
        assert "train.parquet" in of_text(tmp_path, content, "parquet")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"train.{ending}").mkdir()
    assert f"train.{ending}: this is a folder, not a file" in str(refusal(tmp_path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_may_not_be_read(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / f"train.{ending}").write_text(GOOD)
    monkeypatch.setattr(Path, "read_bytes", denied)
    monkeypatch.setattr(pq, "ParquetFile", denied)
    assert f"train.{ending}: cannot be read: Permission denied" in str(refusal(tmp_path))


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be opened: [Errno 13] Permission denied" in str(refusal(tmp_path))


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    (tmp_path / "devel.csv").write_text(GOOD)
    message = str(refusal(tmp_path, splits=("train", "validation")))
    assert "no 'validation' split; the folder holds devel.csv, train.csv" in message
    assert (
        "(dev, val and valid are accepted), or take a part of the training rows: --validation-share"
        in message
    )


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "no 'train' split" in str(refusal(tmp_path, task=None))
    assert "the folder holds nothing" in str(refusal(tmp_path))


def test_two_formats_of_one_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    (tmp_path / "train.jsonl").write_text("")
    assert "'train' exists more than once: train.csv, train.jsonl; keep one" in str(refusal(tmp_path))


def test_one_file_for_two_splits(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text(GOOD)
    message = str(refusal(path, splits=("train", "validation")))
    assert "is one file, but the splits train, validation are needed" in message
    assert "--validation-share 0.1" in message
    assert "put train.csv and validation.csv into one folder" in message


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "train.xlsx"
    path.write_text(GOOD)
    assert "of a kind that cannot be read (.xlsx)" in str(refusal(path))


@pytest.mark.parametrize(
    "source",
    ["nowhere", "./a/b", "../a", "a/train.csv", "a/b/c", "/a", "", "a\0b/c", "x" * 5000, "a/rows.xlsx"],
)
def test_a_source_that_does_not_exist(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_splits(source)
    # The empty path is the current folder, in which no split is found.
    assert any(
        printed in str(caught.value)
        for printed in ("There is no file or folder", "cannot be opened", "no 'train'")
    )


def test_all_faults_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    bad = "".join(f"text {i},maybe\n" for i in range(30))
    (tmp_path / "train.csv").write_text(f"sentence,label\n,1\nx,y,1\n{bad}")
    (tmp_path / "validation.jsonl").write_text('{"sentence": "x", "label": 1}\n{"sentence"\n')
    error = refusal(tmp_path, splits=("train", "validation", "test"))
    assert len(error.problems) == 34
    message = str(error)
    assert "has 34 problems:" in message
    assert "validation.jsonl, row 2: invalid JSON" in message
    assert "no 'test' split" in message
    assert "and 14 more" in message


def test_a_label_that_only_validation_has(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,yes\nb,no\n")
    (tmp_path / "validation.csv").write_text("text,label\na,yes\nb,perhaps\n")
    message = str(refusal(tmp_path, task=None, splits=("train", "validation")))
    assert "has 1 problem:" in message
    assert "validation.csv, row 3, column 'label': unknown label 'perhaps'; known: no, yes" in message


def test_a_broken_train_file_makes_no_label_unknown(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('text,label\na,yes\nb,no\n"c"d,perhaps\n')
    (tmp_path / "validation.csv").write_text("text,label\na,perhaps\n,yes\n")
    error = refusal(tmp_path, task=None, splits=("train", "validation"))
    assert [problem.row for problem in error.problems] == [4, 3]


def test_columns_that_differ_between_splits(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,yes\nb,no\n")
    (tmp_path / "validation.csv").write_text("text,extra,label\na,z,yes\n")
    message = str(refusal(tmp_path, task=None, splits=("train", "validation")))
    assert "validation.csv, column 'extra': the column is not in" in message
    (tmp_path / "validation.csv").write_text("txt,label\na,yes\n")
    message = str(refusal(tmp_path, task=None, splits=("train", "validation")))
    assert "validation.csv, column 'text': the column is missing; did you mean 'txt'?" in message
