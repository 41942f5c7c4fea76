"""Validation rows out of one file: by seed, with the classes' shares, and no text on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradistill.data import load_splits
from gradistill.data.overlap import overlap
from gradistill.errors import DataError, RecipeError
from small import write_table

HALF = {"label_column": "label", "text_columns": ("text",)}


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"text": f"text {k}", "label": ("rare", "common")[k % 10 > 0]} for k in range(count)]


def sides(source: Any, **how: Any) -> tuple[list[str], list[str]]:
    found = load_splits(source, **{"validation_share": 0.2, **HALF, **how})
    assert list(found.rows) == ["train", "validation"]
    for rows in found.rows.values():
        assert rows["index"][:] == list(range(len(rows)))
    return found.rows["train"]["text"][:], found.rows["validation"]["text"][:]


def test_one_file_is_divided_by_share_seed_and_class(tmp_path: Path) -> None:
    path = write_table(tmp_path / "tickets.csv", rows_of(100))
    train, validation = sides(path)
    assert (len(train), len(validation)) == (80, 20)
    labels = {row["text"]: row["label"] for row in rows_of(100)}
    assert Counter(labels[text] for text in validation) == {"rare": 2, "common": 18}
    assert sorted(train + validation) == sorted(labels)
    assert sides(path) == (train, validation)
    assert sides(rows_of(100)) == (train, validation)
    assert sides(path, validation_seed=1)[1] != validation
    printed = load_splits(path, validation_share=0.2).describe()
    assert "validation: 20 rows; of 100 rows, drawn by seed 0 with the shares of the classes" in printed


@settings(max_examples=80)
@given(
    drawn=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=2, max_size=40),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_no_text_is_on_both_sides_and_no_row_is_lost(
    drawn: list[tuple[str, str]], share: float, seed: int
) -> None:
    assume(len({label for _, label in drawn}) > 1 and len({text for text, _ in drawn}) > 1)
    spelled = [text.upper() if k % 2 else f" {text} " for k, (text, _) in enumerate(drawn)]
    rows = [{"text": text, "label": label} for text, (_, label) in zip(spelled, drawn, strict=True)]
    try:
        train, validation = sides(rows, validation_share=share, validation_seed=seed)
    except DataError as error:  # every class has a single text
        assert "cannot be divided" in str(error)
        groups = [label for _, label in {text: (text, label) for text, label in reversed(drawn)}.values()]
        assert max(Counter(groups).values()) == 1
        return
    assert not {text.strip().lower() for text in train} & {text.strip().lower() for text in validation}
    assert Counter(train + validation) == Counter(spelled)


def test_no_side_has_texts_that_count_as_the_others_in_the_warning_of_overlap() -> None:
    """Texts that differ in punctuation count as equal there."""
    rows = [
        {"text": text, "label": "ab"[k % 2]}
        for k in range(40)
        for text in (f"good film {k}", f"Good, film {k}!")
    ]
    train, validation = sides(rows)
    assert overlap([(text,) for text in validation], [(text,) for text in train])["normalised"] == 0


def test_the_divided_part_alone_can_be_read(tmp_path: Path) -> None:
    """What an audit looks at: the rows that a fine-tuning with the same share held out."""
    path = write_table(tmp_path / "tickets.csv", rows_of(50))
    found = load_splits(path, splits=("validation",), validation_share=0.2)
    assert list(found.rows) == ["validation"]
    assert found.rows["validation"]["text"][:] == sides(path)[1]


def test_scores_and_a_folder_without_validation_are_divided(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", [{"text": f"text {k}", "label": k / 3} for k in range(20)])
    write_table(tmp_path / "test.csv", [{"text": f"other {k}", "label": k / 3} for k in range(4)])
    found = load_splits(tmp_path, splits=("train", "validation", "test"), validation_share=0.25)
    assert {split: len(rows) for split, rows in found.rows.items()} == {
        "train": 15,
        "validation": 5,
        "test": 4,
    }


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="a number above 0 and below 1"):
        load_splits(rows_of(10), validation_share=float(share))


def test_a_share_beside_a_validation_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_table(tmp_path / f"{split}.csv", rows_of(10))
    with pytest.raises(
        RecipeError, match=r"(?s)has a validation split: .*dev\.csv.*leave --validation-share out"
    ):
        load_splits(tmp_path, validation_share=0.2)
    with pytest.raises(RecipeError, match="there is no validation_share"):
        load_splits(tmp_path, validation_seed=3)
    with pytest.raises(RecipeError, match="for the splits test"):
        load_splits(tmp_path, splits=("test",), validation_share=0.2)


def test_rows_that_cannot_be_divided_are_refused() -> None:
    rows = [{"text": "same", "label": label} for label in ("yes", "no") * 4]
    with pytest.raises(DataError, match="8 rows cannot be divided"):
        load_splits(rows, validation_share=0.5)


def marked(names: Sequence[str], column: str = "split") -> list[dict[str, Any]]:
    """Rows of texts whose ``column`` goes through these names."""
    return [
        {"text": f"text {k}", column: names[k % len(names)], "label": "ab"[k // len(names) % 2]}
        for k in range(60)
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "saved", "memory"])
def test_a_column_that_names_splits_divides_one_table(tmp_path: Path, kind: str) -> None:
    rows = marked(("train", "Train ", "val", "test"))
    table, path = datasets.Dataset.from_list(rows), str(tmp_path / f"tickets.{kind}")
    if kind != "memory":
        {"csv": table.to_csv, "parquet": table.to_parquet, "saved": table.save_to_disk}[kind](path)
    source = rows if kind == "memory" else path
    found = load_splits(source, splits=("train", "validation", "test"))
    assert found.task.text_columns == ("text",)
    numbers = {name: [int(text.split()[1]) % 4 for text in own["text"]] for name, own in found.rows.items()}
    assert numbers == {"train": [0, 1] * 15, "validation": [2] * 15, "test": [3] * 15}
    assert found.notes == dict.fromkeys(numbers, "by the column 'split'")
    assert (
        load_splits(source, splits=("validation",)).rows["validation"]["text"]
        == found.rows["validation"]["text"]
    )


def test_what_a_column_of_splits_lacks_is_named(tmp_path: Path) -> None:
    """A share is not drawn from rows that the table has divided already; a row of no split is refused with its line."""
    path = write_table(tmp_path / "tickets.csv", marked(("train", "dev")))
    with pytest.raises(RecipeError, match="has a validation split: by its column 'split'"):
        load_splits(path, validation_share=0.2)
    no_dev = write_table(tmp_path / "other.csv", marked(("training", "test", "training"), column="fold"))
    with pytest.raises(
        DataError, match=r"no 'validation' split; its column 'fold' names train \(40 rows\), test"
    ):
        load_splits(no_dev)
    train, validation = sides(no_dev)
    assert not {text for text in (*train, *validation) if int(text.split()[1]) % 3 == 1}
    with pytest.raises(DataError, match=r"empty in 20 of 60 rows\.[^:]*\n.*row 4, column 'split'"):
        load_splits(write_table(tmp_path / "gaps.csv", marked(("train", "dev", ""))))


def test_a_column_of_other_values_or_another_use_divides_nothing(tmp_path: Path) -> None:
    for rows in (marked(("train", "blue")), marked(("train",))):
        with pytest.raises(DataError, match="one table"):
            load_splits(rows)
    label = load_splits(
        marked(("train", "test")), label_column="split", text_columns="text", validation_share=0.2
    )
    assert label.task.labels == ("test", "train")
    assert sum(map(len, label.rows.values())) == 60


def test_faults_of_a_divided_table_are_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("text,split,label\n" + "a,train,x\nb,dev,y\nc,train,y\n" + "d,train\n")
    with pytest.raises(DataError) as raised:
        load_splits(path)
    assert str(raised.value).count("row 5") == 1
