"""What comes out of files: texts unchanged, columns and labels found or asked for."""

from __future__ import annotations

import csv
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill.data.split_loading import load_splits
from gradistill.data.splits import Splits
from gradistill.data.tasks import Task
from gradistill.errors import DataError

ROWS = [
    ("one fine day", 1),
    ("None", 0),
    ("1987", 1),
    ('she printed "no",\nand left', 0),
    ("NA", 0),
    ("null", 1),
]


def write(path: Path, columns: dict[str, list]) -> None:
    """The same columns in the format that the file's ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return
    rows = list(zip(*columns.values(), strict=True))
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows([tuple(columns), *rows])
        else:
            file.writelines(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)


def load_one(folder: Path, columns: dict[str, list], **options: object) -> Splits:
    write(folder / "train.csv", columns)
    return load_splits(folder / "train.csv", splits=("train",), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("task", [None, "sst2"])
def test_texts_come_back_unchanged(tmp_path: Path, ending: str, task: str | None) -> None:
    texts, labels = [list(column) for column in zip(*ROWS, strict=True)]
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.{ending}", {"sentence": texts, "label": labels})
    splits = load_splits(tmp_path, task=task)
    assert splits.inferred == (task is None)
    for split in ("train", "validation"):
        rows = splits.rows[split]
        assert rows["sentence"][:] == texts
        assert rows["label"][:] == labels
        assert rows["index"][:] == list(range(len(texts)))
        assert rows.features["label"].dtype == "int64"


texts_strategy = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip())
odd = st.sampled_from(
    ["None", "NA", "nan", "1987", "10", '"', '""', "a\r\nb", "\u2028x", "\ufeffx", "#", ",", "\x00y"]
)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@settings(max_examples=60)
@given(texts=st.lists(texts_strategy | odd, min_size=1, max_size=6))
def test_any_text_survives(ending: str, texts: list[str]) -> None:
    texts = ["a text that is no number", *texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"train.{ending}")
        write(path, {"sentence": texts, "label": [0] * len(texts)})
        assert load_splits(path, task="sst2", splits=("train",)).rows["train"]["sentence"][:] == texts


pieces = st.sampled_from(
    [b"sentence,label\n", b'{"sentence": "x", "label": 1}\n', b'"', b",", b"\n", b"\r", b"a,1\n"]
)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("task", [None, "sst2", "stsb"])
@settings(max_examples=60)
@given(data=st.binary(max_size=60) | st.lists(pieces | st.binary(max_size=8), max_size=12).map(b"".join))
def test_any_bytes_load_or_are_refused(ending: str, task: str | None, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"train.{ending}")
        path.write_bytes(data)
        with suppress(DataError):
            load_splits(path, task=task, splits=("train",))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
records = st.dictionaries(st.sampled_from(["sentence", "label", "id", "\udc00"]), values, max_size=3)


@pytest.mark.parametrize("task", [None, "sst2"])
@settings(max_examples=60)
@given(rows=st.lists(records, max_size=5))
def test_any_json_loads_or_is_refused(task: str | None, rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.jsonl")
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        with suppress(DataError):
            load_splits(path, task=task, splits=("train",))


def test_a_byte_order_mark_and_spaces_in_the_header_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes("\ufeffsentence, label\nfine,1\n\nbad,0\n\n".encode())
    assert load_splits(path, task="sst2", splits=("train",)).rows["train"]["label"][:] == [1, 0]


def test_a_field_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "word " * 40_000
    splits = load_one(tmp_path, {"sentence": [long, "b"], "label": [0, 1]})
    assert splits.rows["train"]["sentence"][0] == long
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("label", ["1", "1.0", "positive", "Positive", " POSITIVE "])
def test_a_label_is_an_id_or_a_name(tmp_path: Path, label: str) -> None:
    splits = load_one(tmp_path, {"sentence": ["a"], "label": [label]}, task="sst2")
    assert splits.rows["train"]["label"][:] == [1]


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ([0, 1, 2], ("0", "1", "2"), [0, 1, 2]),
        ([1, -1, 1], ("-1", "1"), [1, 0, 1]),
        (["1.0", "2", "1"], ("1", "2"), [0, 1, 0]),
        (["b", "a", "c"], ("a", "b", "c"), [1, 0, 2]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (["2e3", "1e3", "2e3"], ("1e3", "2e3"), [1, 0, 1]),
        (
            ["9007199254740993", "9007199254740992", "7"],
            ("7", "9007199254740992", "9007199254740993"),
            [2, 1, 0],
        ),
        ([10**20, 10**20 + 1, 10**20], (str(10**20), str(10**20 + 1)), [0, 1, 0]),
    ],
)
def test_classes_are_inferred(tmp_path: Path, labels: list, names: tuple, ids: list[int]) -> None:
    splits = load_one(tmp_path, {"text": ["x", "y", "z"], "label": labels})
    assert splits.task.labels == names
    assert splits.task.metrics == ("accuracy", "f1" if len(names) == 2 else "macro_f1")
    assert splits.rows["train"]["label"][:] == ids


def test_booleans_are_classes(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"text": ["x", "y"], "label": [True, False]})
    splits = load_splits(tmp_path / "a.jsonl", splits=("train",))
    assert splits.task.labels == ("false", "true")
    assert splits.rows["train"]["label"][:] == [1, 0]


def test_codes_with_leading_zeros_stay_as_they_are(tmp_path: Path) -> None:
    """They were read as numbers, so that 01 was called 1, and was one class with 1."""
    (tmp_path / "train.csv").write_text("text,label\na,01\nb,1\nc,10\n")
    assert load_splits(tmp_path, splits=("train",)).task.labels == ("01", "1", "10")


def test_one_and_the_same_score_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,score\na,0.5\nb,0.5\n")
    with pytest.raises(DataError, match=r"every score is 0\.5"):
        load_splits(tmp_path, splits=("train",))


def test_scores_are_inferred(tmp_path: Path) -> None:
    splits = load_one(tmp_path, {"id": [7, 8], "a": ["x", "y"], "b": ["u", "v"], "score": [3.8, 5]})
    assert splits.task.labels is None
    assert splits.task.text_columns == ("a", "b")
    assert splits.label_column == "score"
    assert splits.rows["train"].features["label"].dtype == "float32"
    assert splits.rows["train"]["label"][:] == pytest.approx([3.8, 5.0])


def test_ids_numbers_and_rationales_are_no_texts(tmp_path: Path) -> None:
    columns = {
        "idx": ["a-1", "a-2"], "text": ["x", "y"], "length": [3, 4], "Label": [0, 1], "rationale": ["x", "y"]
    }  # fmt: skip
    splits = load_one(tmp_path, columns)
    assert splits.task.text_columns == ("text",)
    assert set(splits.rows["train"].column_names) == {"text", "label", "index"}


def test_columns_that_are_called_otherwise_are_named(tmp_path: Path) -> None:
    columns = {"review": ["x", "y"], "title": ["u", "v"], "stars": ["negative", "positive"]}
    for task in ("sst2", None):
        splits = load_one(tmp_path, columns, task=task, label_column="stars", text_columns=("review",))
        assert splits.task.text_columns == ("review",)
        assert splits.rows["train"]["label"][:] == [0, 1]


def test_a_task_of_ones_own_works_like_a_name(tmp_path: Path) -> None:
    mine = Task("mine", ("t",), ("ham", "spam"), ("accuracy",), "accuracy")
    splits = load_one(tmp_path, {"t": ["x", "y"], "class": ["Spam", 0]}, task=mine)
    assert (splits.task, splits.inferred, splits.label_column) == (mine, False, "class")
    assert splits.rows["train"]["label"][:] == [1, 0]


def test_numbers_that_are_names_are_not_taken_for_ids(tmp_path: Path) -> None:
    mine = Task("mine", ("t",), ("1", "2"), ("accuracy",), "accuracy")
    splits = load_one(tmp_path, {"t": ["x", "y"], "label": [2, 1]}, task=mine)
    assert splits.rows["train"]["label"][:] == [1, 0]


def test_one_row_that_looks_like_a_number_is_a_text(tmp_path: Path) -> None:
    assert load_one(tmp_path, {"sentence": ["1987"], "label": [1]}, task="sst2").rows["train"].num_rows == 1


def test_mnli_validation_may_be_called_matched(tmp_path: Path) -> None:
    columns = {"premise": ["x"], "hypothesis": ["y"], "label": ["neutral"]}
    for name in ("train", "validation_matched", "validation_mismatched"):
        write(tmp_path / f"{name}.jsonl", columns)
    splits = load_splits(tmp_path, task="mnli", splits=("train", "validation", "validation_mismatched"))
    assert list(splits.rows) == ["train", "validation", "validation_mismatched"]


def test_describe_shows_what_was_found(tmp_path: Path) -> None:
    printed = load_one(tmp_path, {"text": ["x", "y", "z"], "target": ["no", "yes", "no"]}).describe()
    assert "inferred from the data" in printed
    assert "text: text\nlabel: target\n" in printed
    assert "train: 3 rows; no: 2, yes: 1" in printed
    printed = load_one(tmp_path, {"text": ["x", "y"], "label": [0.5, 4]}).describe()
    assert "scores from 0.5 to 4" in printed


@pytest.mark.parametrize(
    ("pair", "rare", "positive"),
    [(("0", "1"), "0", "1"), (("no", "YES"), "no", "YES"), (("False", "True"), "False", "True"),
     (("negative", "positive"), "negative", "positive"), (("falso", "vero"), "falso", "vero"),
     (("ham", "spam"), "spam", "spam"),
     (("ham", "spam"), "ham", "ham")],
)  # fmt: skip
def test_f1_is_of_the_affirmative_class_or_else_the_rarer(
    pair: tuple[str, str], rare: str, positive: str
) -> None:
    labels = [*[name for name in pair if name != rare] * 3, rare]
    table = [{"text": f"text {k} of words", "label": label} for k, label in enumerate(labels)]
    assert load_splits({"train": table}, splits=("train",)).task.positive_label == positive


def test_empty_columns_at_the_right_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text;label;;\na b;x;;\nc d;y;;\n")
    found = load_splits(tmp_path / "train.csv", splits=("train",))
    assert (found.rows["train"]["text"][:], found.left_out) == (["a b", "c d"], {})
