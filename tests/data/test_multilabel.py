"""Several labels a row: each way to write them gives the same rows, and each fault is named with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from gradistill.data import Collator, align_labels, encode, load_splits, load_unlabelled
from gradistill.data.data_choice import DataChoice
from gradistill.data.split_loading import read_splits
from gradistill.data.tasks import Task
from gradistill.errors import DataError, RecipeError
from wordpiece import tokenizer as wordpiece

NAMES = ("billing", "login", "urgent")
SETS: list[list[str]] = [["billing"], [], ["urgent", "billing"], ["login"], ["login", "urgent"], ["billing"]]
FLAGS = np.array([[float(name in row) for name in NAMES] for row in SETS])
TEXTS = [f"ticket number {k} came in on a {day} morning" for k, day in enumerate("abcdef")]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


def rows_of(label: Any) -> list[dict[str, Any]]:
    """Rows with a text and the columns that ``label`` returns for the set of labels of a row."""
    return [{"text": text, **label(names)} for text, names in zip(TEXTS, SETS, strict=True)]


def each(names: list[str]) -> dict[str, Any]:
    return {name: int(name in names) for name in NAMES}


WAYS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "lists in JSON": ("a.jsonl", lambda row: {"labels": row}, {}),
    "lists in Parquet": ("a.parquet", lambda row: {"labels": row}, {}),
    "lists as text": ("a.csv", lambda row: {"labels": str(row)}, {}),
    "tuples as text": ("a.csv", lambda row: {"labels": str(tuple(row))}, {}),
    "a separator": ("a.csv", lambda row: {"labels": ";".join(row)}, {"label_separator": ";"}),
    "a separator and blanks": ("a.csv", lambda row: {"tags": " | ".join(row)},
                               {"label_separator": "|", "label_column": "tags"}),
    "columns": ("a.csv", each, {"label_columns": NAMES}),
    "columns in another order": ("a.jsonl", each, {"label_columns": NAMES[::-1]}),
    "columns of truth values": ("a.parquet", lambda row: {k: bool(v) for k, v in each(row).items()},
                                {"label_columns": NAMES}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_them_gives_the_same_rows(way: str, tmp_path: Path) -> None:
    name, label, options = WAYS[way]
    splits = load_splits(written(tmp_path / name, rows_of(label)), splits=("train",), **options)
    task = splits.task
    assert task.multi_label
    assert sorted(task.labels or ()) == list(NAMES)
    assert task.problem_type == "multi_label_classification"
    assert task.select == "micro_f1"
    order = [(task.labels or ()).index(name) for name in NAMES]
    found = np.array(splits.rows["train"]["label"][:])
    np.testing.assert_array_equal(found[:, order], FLAGS)
    assert splits.rows["train"].features["label"] == List(Value("float32"), length=3)
    assert "3 labels, any number of them a row" in splits.describe()
    assert "billing: 3" in splits.describe()
    assert "1 rows with no label" in splits.describe()


VECTORS = {
    "lists in JSON": ("a.jsonl", lambda flags: [int(f) for f in flags]),
    "decimals in Parquet": ("a.parquet", lambda flags: [float(f) for f in flags]),
    "as text": ("a.csv", lambda flags: str([int(f) for f in flags])),
    "as numpy writes them": ("a.csv", lambda flags: f"[{' '.join(str(int(f)) for f in flags)}]"),
    "without brackets": ("a.csv", lambda flags: " ".join(str(int(f)) for f in flags)),
}


@pytest.mark.parametrize("way", VECTORS)
def test_vectors_of_flags(way: str, tmp_path: Path) -> None:
    name, label = VECTORS[way]
    rows = [{"text": text, "label": label(flags)} for text, flags in zip(TEXTS, FLAGS, strict=True)]
    splits = load_splits(written(tmp_path / name, rows), splits=("train",))
    assert splits.task.labels == ("0", "1", "2")
    np.testing.assert_array_equal(splits.rows["train"]["label"][:], FLAGS)
    named = Task("tickets", ("text",), NAMES, ("exact_match",), "exact_match", multi_label=True)
    splits = load_splits(tmp_path / name, splits=("train",), task=named)
    np.testing.assert_array_equal(splits.rows["train"]["label"][:], FLAGS)


def test_lists_of_numbers_are_ids_unless_they_are_flags(tmp_path: Path) -> None:
    """[0, 2] are two labels; [1, 1, 0] is a flag for each of three."""
    rows = [
        {"text": t, "label": ids} for t, ids in zip(TEXTS, [[0], [2, 0], [1], [], [0, 1], [2]], strict=True)
    ]
    splits = load_splits(written(tmp_path / "a.jsonl", rows), splits=("train",))
    np.testing.assert_array_equal(splits.rows["train"]["label"][:][1], [1, 0, 1])
    two = [{"text": t, "label": f} for t, f in zip(TEXTS, [[0, 1], [1, 0]] * 3, strict=True)]
    splits = load_splits(written(tmp_path / "b.jsonl", two), splits=("train",))
    np.testing.assert_array_equal(splits.rows["train"]["label"][:], [[0, 1], [1, 0]] * 3)


IN_TRAIN: dict[str, tuple[str, list[Any], Any, list[float]]] = {
    "numbers that could be flags": (".jsonl", [[0, 1], [2], [3, 4], [0], [1, 2], [4]], [0, 1], [1, 1, 0, 0, 0]),
    "a vector without brackets": (".csv", ["1 0 1", "0 1 0", "1 1 0", "0 0 0", "0 0 1", "1 0 0"], "1 0 1", [1, 0, 1]),
    "brackets in training alone": (".csv", ["[1, 0, 1]", "[0, 1, 0]"] * 3, "1 0 1", [1, 0, 1]),
    "a word like a vector": (".csv", ["['0 1']", "['ab']", "['0 1', 'ab']"] * 2, "['0 1']", [1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("what", IN_TRAIN)
def test_one_row_of_validation_is_read_as_those_of_training(what: str, tmp_path: Path) -> None:
    ending, labels, alone, flags = IN_TRAIN[what]
    rows = [{"text": t, "label": label} for t, label in zip(TEXTS, labels, strict=True)]
    written(tmp_path / f"train{ending}", rows)
    written(tmp_path / f"validation{ending}", [{"text": "one more", "label": alone}])
    np.testing.assert_array_equal(load_splits(tmp_path).rows["validation"]["label"][:], [flags])


def test_class_ids_that_a_data_set_declares() -> None:
    ids = [[NAMES.index(name) for name in row] for row in SETS]
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=list(NAMES)))})
    splits = load_splits(
        Dataset.from_dict({"text": TEXTS, "labels": ids}, features=features), splits=("train",)
    )
    assert splits.task.labels == NAMES
    np.testing.assert_array_equal(splits.rows["train"]["label"][:], FLAGS)


FAULTS: dict[str, tuple[Any, str]] = {
    "missing": (None, "missing label"),
    "no list": ("billing", "'billing' where a list of labels belongs"),
    "twice": (["urgent", "URGENT"], "the label 'URGENT' occurs twice"),
    "null inside": (["urgent", None], "a missing label in the list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_rows_are_listed_with_row_and_column(fault: str, tmp_path: Path) -> None:
    value, message = FAULTS[fault]
    rows = [*rows_of(lambda row: {"labels": row}), {"text": "a last one", "labels": value}]
    named = Task("tickets", ("text",), NAMES, ("micro_f1",), "micro_f1", multi_label=True)
    with pytest.raises(DataError, match=rf"a.jsonl, row 7, column 'labels': {message}"):
        load_splits(written(tmp_path / "a.jsonl", rows), splits=("train",), task=named)


def test_an_unknown_label_is_a_problem_of_its_row(tmp_path: Path) -> None:
    for name, more in (("train", []), ("validation", [{"text": "new", "labels": ["billing", "other"]}])):
        written(tmp_path / f"{name}.jsonl", [*rows_of(lambda row: {"labels": row}), *more])
    with pytest.raises(
        DataError, match="row 7, column 'labels': unknown label 'other'; known: billing, login"
    ):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("flag", "message"), [("2", "'2' where 0 or 1 belongs"), ("", "a missing flag where 0 or 1")]
)
def test_bad_flags_are_listed_with_their_own_column(flag: str, message: str, tmp_path: Path) -> None:
    rows = [
        {"text": t, **{k: str(v) for k, v in each(row).items()}} for t, row in zip(TEXTS, SETS, strict=True)
    ]
    rows[2]["login"] = flag
    with pytest.raises(DataError, match=rf"row 4, column 'login': {message}"):
        load_splits(written(tmp_path / "a.csv", rows), splits=("train",), label_columns=NAMES)


def test_a_vector_of_another_length_is_a_problem(tmp_path: Path) -> None:
    rows = [{"text": t, "label": [int(f) for f in flags]} for t, flags in zip(TEXTS, FLAGS, strict=True)]
    rows[3]["label"] = [1, 0]
    with pytest.raises(DataError, match="row 4, column 'label': 2 flags where there are 3 labels"):
        load_splits(written(tmp_path / "a.jsonl", rows), splits=("train",))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a mapping": ({"a": 1}, {}, "the label is a mapping"),
    "probabilities": ([0.2, 0.8], {}, "'0.2' in a list of labels"),
    "one label a row": (["a", "b"], {"task": "sst2"}, "several labels, and the task has classes, one a row"),
    "kind": (["a", "b"], {"kind": "classes"}, "several labels, and the task has classes, one a row"),
    "a wrong separator": ("a;b", {"label_separator": "|"}, r"no label has the separator '\|'"),
    "no lists": ("a", {"kind": "multi_label"}, "no row has a list of labels"),
    "missing columns": ("a", {"label_columns": ("x", "y")}, "the column is missing"),
}


def test_a_few_rows_of_another_split_may_have_one_label_each(tmp_path: Path) -> None:
    """The separator is that of the rows in which the labels were found."""
    for split, labels in (("train", ["a;b", "c", "a", "b"]), ("validation", ["c", "a", "", "b"])):
        rows = [{"text": text, "labels": label} for text, label in zip(TEXTS, labels, strict=False)]
        written(tmp_path / f"{split}.csv", rows)
    found = load_splits(tmp_path, label_separator=";").rows["validation"]["label"][:]
    assert [list(map(int, flags)) for flags in found][:3] == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    value, options, message = REFUSED[case]
    rows = [{"sentence": text, "label": value} for text in TEXTS]
    with pytest.raises(DataError, match=message):
        load_splits(written(tmp_path / "a.jsonl", rows), splits=("train",), **options)


@pytest.mark.parametrize(
    "options",
    [{"label_columns": NAMES, "label_separator": ";"}, {"label_columns": NAMES, "label_column": "labels"},
     {"label_columns": ("one",)}, {"label_separator": ";", "kind": "scores"}, {"label_separator": ""},
     {"label_separator": ";", "task": "sst2"}],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        load_splits(
            written(tmp_path / "a.csv", rows_of(lambda r: {"labels": ";".join(r)})),
            splits=("train",),
            **options,
        )


def test_a_share_for_validation_has_rows_of_each_rare_label(tmp_path: Path) -> None:
    sets = [["usual"]] * 80 + [["usual", "rare"]] * 10 + [[]] * 10
    rows = [{"text": f"text number {k}", "labels": names} for k, names in enumerate(sets)]
    splits = load_splits(written(tmp_path / "a.jsonl", rows), validation_share=0.1)
    np.testing.assert_array_equal(np.sum(splits.rows["validation"]["label"][:], axis=0), [1, 9])
    assert "with the shares of each row's rarest label" in splits.describe()


def test_labels_are_aligned_by_name_and_rows_without_labels_stay(tmp_path: Path) -> None:
    splits = load_splits(
        written(tmp_path / "a.jsonl", rows_of(lambda row: {"labels": row})), splits=("train",)
    )
    aligned = align_labels(splits, {0: "Urgent", 1: "BILLING", 2: "login"})
    assert aligned.task.labels == ("urgent", "billing", "login")
    np.testing.assert_array_equal(aligned.rows["train"]["label"][:], FLAGS[:, [2, 0, 1]])
    bare = load_unlabelled([{"text": "one"}, {"text": "two"}], aligned.task)
    assert np.isnan(bare["label"][:]).all()
    assert np.shape(bare["label"][:]) == (2, 3)


def test_a_batch_has_a_float_for_each_label(tmp_path: Path) -> None:
    splits = load_splits(
        written(tmp_path / "a.jsonl", rows_of(lambda row: {"labels": row})), splits=("train",)
    )
    tokenizer = wordpiece()
    rows = encode(splits.rows["train"], tokenizer, splits.task).dataset
    batch = Collator(tokenizer)([rows[k] for k in range(6)])
    assert batch["labels"].dtype == torch.float32
    np.testing.assert_array_equal(batch["labels"], FLAGS)


@pytest.mark.parametrize("odd", ["", "2 0 1"])
def test_one_cell_does_not_change_the_kind(odd: str, tmp_path: Path) -> None:
    """Vectors of flags stay such: the odd cell is a fault of its row, or is left out with it."""
    cells = ["1 0 1", "0 1 1", "0 0 1", "1 1 0"] * 5
    rows = "".join(f"text {k},{cell}\n" for k, cell in enumerate([*cells, odd]))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    choice = DataChoice(str(tmp_path / "rows.csv"), validation_share=0.2)
    with pytest.raises(DataError) as refused:
        read_splits(choice)
    assert [problem.row for problem in refused.value.problems] == [22]
    if not odd:
        found = read_splits(replace(choice, skip_incomplete=True))
        assert (found.task.multi_label, found.task.labels) == (True, ("0", "1", "2"))
