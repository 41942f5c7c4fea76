"""Data in memory are read as files are, and what is no data gets one message that names its type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from gradistill.data import get_task, load_splits, load_texts, load_unlabelled
from gradistill.errors import DataError, RecipeError
from small import write_table

ROWS = [{"text": f"text {k}", "label": ("no", "yes")[k % 2]} for k in range(6)]
NUMBERS = [{"text": f"text {k}", "label": k % 2} for k in range(6)]
NAMED = Dataset.from_list(NUMBERS).cast_column("label", ClassLabel(names=["no", "yes"]))

WAYS: dict[str, Any] = {
    "list": ROWS,
    "tuple": tuple(ROWS),
    "frame": pd.DataFrame(ROWS),
    "categories": pd.DataFrame(ROWS).astype({"label": "category"}),
    "odd index": pd.DataFrame(ROWS).set_index(pd.Index([9, 9, 3, 2, 1, 0])),
    "Dataset": Dataset.from_list(ROWS),
    "class ids": NAMED,
    "selected": Dataset.from_list([*ROWS, *ROWS]).select(range(6)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whole", ["one", "dict", "DatasetDict"])
def test_objects_give_the_rows_that_a_file_gives(way: str, whole: str, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_table(tmp_path / f"{split}.csv", ROWS)
    expected = load_splits(tmp_path)
    given = WAYS[way]
    if whole == "one":
        found = load_splits(given, splits=("train",)).rows["train"]
        assert found.to_dict() == expected.rows["train"].to_dict()
        return
    if whole == "DatasetDict":
        if not isinstance(given, Dataset):
            return
        given = DatasetDict(train=given, dev=given)
    else:
        given = {"train": given, "dev": given}
    found = load_splits(given)
    assert {k: rows.to_dict() for k, rows in found.rows.items()} == {
        k: rows.to_dict() for k, rows in expected.rows.items()
    }


def test_numbers_of_numpy_are_numbers() -> None:
    rows = [{"text": f"text {k}", "label": np.int64(k)} for k in (10, 9, 10, 2)]
    assert load_splits(rows, splits=("train",)).task.labels == ("2", "9", "10")
    frame = pd.DataFrame({"text": ["a", "b"], "label": np.array([0.5, 2.0], dtype=np.float32)})
    assert load_splits(frame, splits=("train",)).rows["train"]["label"][:] == [0.5, 2.0]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), pd.NA, pd.NaT])
def test_missing_cells_are_missing_however_they_are_marked(missing: Any) -> None:
    frame = pd.DataFrame({"text": ["a", missing], "label": ["yes", "no"]})
    with pytest.raises(DataError, match="the data, row 2, column 'text': the text is missing"):
        load_splits(frame, task="sst2", splits=("train",), text_columns=("text",))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "The data are of the type int"),
        (None, "The data are of the type NoneType"),
        (b"train.csv", "The data are of the type bytes"),
        (ROWS[0], "split 'text' are of the type str"),
        ({"train": 7}, "The split 'train' are of the type int"),
        ({0: ROWS}, "a split called 0, a int"),
        ([], "the data: there are no rows"),
        (["text"], "the data, row 1: a str, not a dict"),
        ([{}], "row 1: a dict without keys"),
        ([{1: "text"}], "row 1: a key 1 of the type int"),
        (
            [{"text": "\ud800", "label": 1}, {"text": "x", "label": 0}],
            "row 1, column 'text': half of a surrogate",
        ),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "a column name occurs twice: 'text'"),
        (pd.DataFrame({"text": []}), "the data: there are no rows"),
        (Dataset.from_list(ROWS).to_iterable_dataset(), "an IterableDataset, which has no number of rows"),
        (DatasetDict(), "there is no 'train' split; the data have no split"),
    ],
    ids=str,
)
def test_what_is_no_data_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_splits(source, splits=("train",))
    assert message in str(caught.value)


def test_one_table_for_two_splits_is_refused_with_both_ways_out() -> None:
    with pytest.raises(
        DataError, match=r"(?s)The DataFrame is one table, but.*validation_share=.*dict of splits"
    ):
        load_splits(pd.DataFrame(ROWS))


@pytest.mark.parametrize("field", [{"kind": "class"}, {"validation_seed": -1}, {"validation_seed": 0.5}])
def test_fields_that_cannot_be_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises((RecipeError, TypeError)):
        load_splits(ROWS, **field)


def test_the_name_of_one_column_is_enough() -> None:
    assert load_splits(ROWS, splits=("train",), text_columns="text").task.text_columns == ("text",)


def test_texts_without_labels_come_from_objects_too() -> None:
    rows = [{"sentence": "one"}, {"sentence": "two"}]
    assert load_unlabelled(rows, get_task("sst2"))["sentence"][:] == ["one", "two"]
    assert load_texts([rows, Dataset.from_list([{"text": "three"}])])["text"][:] == ["one", "two", "three"]
    with pytest.raises(DataError, match="Dataset in memory holds no text"):
        load_texts([Dataset.from_dict({"n": [1, 2]}, features=Features({"n": Value("int64")}))])
