"""Rows that lack a text or a label: refused, or left out and counted; all others are read as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.commands.init import init
from gradistill.commands.project_file import read_project
from gradistill.data import DataChoice, Task, get_task, load_splits
from gradistill.data.proposal import propose
from gradistill.data.split_loading import read_splits
from gradistill.data.unlabelled_texts import read_unlabelled
from gradistill.errors import DataError, RecipeError
from small import write_table

FILLED = [{"text": f"a {word} film", "label": word} for word in ("fine", "dull", "fine", "dull", "odd")]
BLANK = st.sampled_from(["", "  ", None, float("nan")])


def rows_of(table: Any, **how: Any) -> list[tuple[Any, Any]]:
    found = load_splits({"train": table}, splits=("train",), skip_incomplete=True, **how)
    names = found.task.labels
    rows = found.rows["train"]
    labels = rows["label"][:]
    assert rows["index"][:] == list(range(len(rows)))
    return [*zip(rows["text"][:], [names[k] for k in labels] if names else labels, strict=True)]


@given(st.lists(st.sampled_from(["keep", "text", "label", "both"]), max_size=12), BLANK)
def test_what_stays_is_what_a_loop_keeps(fates: list[str], blank: Any) -> None:
    table = [*FILLED]
    for place, fate in enumerate(fates):
        row: dict[str, Any] = {"text": f"the {place}th film", "label": ("fine", "dull")[place % 2]}
        lost = {"keep": (), "text": ("text",), "label": ("label",), "both": ("text", "label")}[fate]
        table.insert(place * 2 % len(table), {**row, **dict.fromkeys(lost, blank)})
    kept = [row for row in table if all(isinstance(cell, str) and cell.strip() for cell in row.values())]
    assert rows_of(table) == [(row["text"], row["label"]) for row in kept]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    table = [*FILLED, {"text": "", "label": "odd"}, {"text": "not labelled", "label": ""}, *FILLED]
    for split in ("train", "validation"):
        file, frame = tmp_path / f"{split}.{ending}", pd.DataFrame(table)
        if ending == "parquet":
            frame.to_parquet(file)
        elif ending in ("csv", "tsv"):
            frame.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
        else:
            frame.to_json(file, orient="records", lines=ending == "jsonl")
    with pytest.raises(DataError, match=r"2 problems|4 problems") as refused:
        load_splits(tmp_path)
    assert "--skip-incomplete" in refused.value.remedy
    found = load_splits(tmp_path, skip_incomplete=True)
    assert [row["text"] for row in found.rows["train"]] == [row["text"] for row in [*FILLED, *FILLED]]
    assert found.incomplete == {"train": 2, "validation": 2}
    assert "train: 10 rows, 2 without a text or a label left out; dull: 4" in found.describe()


def test_more_than_a_tenth_is_warned_of() -> None:
    def warnings(lost: int) -> tuple[str, ...]:
        table = [{**row, "text": f"{row['text']} {k}"} for k, row in enumerate(FILLED * 4)]
        table += [{"text": "", "label": "odd"}] * lost
        return load_splits({"train": table}, splits=("train",), skip_incomplete=True).warnings

    assert warnings(2) == ()
    assert warnings(3)[0].startswith("3 of 23 train rows lack a text or a label")


def test_another_fault_keeps_its_line_and_is_refused(tmp_path: Path) -> None:
    file = write_table(tmp_path / "train.csv", [{"text": "", "label": "a"}, {"text": "x y", "label": "a"},
                                                {"text": "z", "label": "b"}, {"text": "w", "label": "c"}])  # fmt: skip
    task = get_task("sst2")
    with pytest.raises(DataError) as refused:
        load_splits(file, splits=("train",), task=task, text_columns=("text",), skip_incomplete=True)
    assert [problem.row for problem in refused.value.problems] == [3, 4, 5]
    assert "--skip-incomplete" not in refused.value.remedy  # it is there already


def test_the_remedy_is_named_only_where_it_helps() -> None:
    with pytest.raises(DataError, match="where text belongs") as refused:
        load_splits({"train": [*FILLED, {"text": 7, "label": "odd"}]}, splits=("train",))
    assert "--skip-incomplete" not in refused.value.remedy


def test_words_with_tags() -> None:
    whole = {"tokens": ["in", "Rome"], "tags": ["O", "B-place"]}
    table = [whole, {"tokens": [], "tags": []}, {"tokens": None, "tags": None}, {**whole, "tags": None}]
    found = load_splits({"train": table}, splits=("train",), skip_incomplete=True)
    assert (found.rows["train"]["tokens"][:], found.incomplete) == ([whole["tokens"]], {"train": 3})


def test_no_label_of_several_is_a_label() -> None:
    table = [{"text": "a b", "label": "x;y"}, {"text": "c d", "label": ""}, {"text": "", "label": "x"}]
    found = load_splits({"train": table}, splits=("train",), skip_incomplete=True, label_separator=";")
    assert found.rows["train"]["label"][:] == [[1.0, 1.0], [0.0, 0.0]]
    lists = [{"text": "a b", "label": ["x", "y"]}, {"text": "c d", "label": []}, {"text": "e", "label": None}]
    found = load_splits({"train": lists}, splits=("train",), skip_incomplete=True)
    assert found.rows["train"]["label"][:] == [[1.0, 1.0], [0.0, 0.0]]


def test_columns_and_marks_that_rows_carry_stay_with_them() -> None:
    table = [{"text": "a b", "label": "x", "who": "1"}, {"text": None, "label": "x", "who": "2"},
             {"text": "c d", "label": "y", "who": "3"}]  # fmt: skip
    found = read_splits(DataChoice({"train": table}, skip_incomplete=True), ("train",), carried=("who",))
    assert found.rows["train"]["column: who"][:] == ["1", "3"]


def test_a_share_is_drawn_from_what_is_left() -> None:
    table = [{**row, "text": f"{row['text']} {k}"} for k, row in enumerate(FILLED * 4)]
    table.append({"text": "", "label": "odd"})
    how: Any = {"validation_share": 0.4, "skip_incomplete": True}
    found = load_splits({"train": table}, **how)
    assert sum(map(len, found.rows.values())) == 20
    alone = load_splits({"train": table}, splits=("validation",), **how)
    assert "of 20 rows, 1 without a text or a label left out, drawn by" in alone.describe()


def test_nothing_left_is_refused() -> None:
    with pytest.raises(DataError, match="no row has all that it needs"):
        load_splits(
            {"train": [{"sentence": "", "label": "positive"}]},
            splits=("train",),
            task="sst2",
            skip_incomplete=True,
        )


def test_unlabelled_texts() -> None:
    table = [{"sentence": "fine"}, {"sentence": " "}, {"sentence": None}, {"sentence": "dull"}]
    task = get_task("sst2")
    with pytest.raises(DataError, match="2 problems"):
        read_unlabelled(table, task)
    found = read_unlabelled(table, task, skip_incomplete=True)
    assert (found.rows["sentence"][:], found.incomplete) == (["fine", "dull"], 2)
    with pytest.raises(DataError, match="no row has a text"):
        read_unlabelled(table[1:3], task, skip_incomplete=True)


def test_init_proposes_it_and_the_project_reads_it(tmp_path: Path) -> None:
    table = [{"text": f"{row['text']} {k}", "label": row["label"]} for k, row in enumerate(FILLED * 8)]
    write_table(tmp_path / "tickets.csv", [*table, {"text": "", "label": "odd"}])
    found = propose(DataChoice(str(tmp_path / "tickets.csv")))
    assert found.choice.skip_incomplete
    assert found.reasons["skip_incomplete"].startswith("1 of 41 rows lack a text or a label")
    file = init(str(tmp_path / "tickets.csv"), tmp_path / "gradistill.yaml")
    assert read_project(file).data.skip_incomplete
    assert not propose(DataChoice(table)).choice.skip_incomplete
    many = propose(DataChoice([*table, *[{"text": "", "label": "odd"}] * 10]))
    assert many.reasons["skip_incomplete"].startswith("not certain: 10 of 50 rows")


def test_it_is_typed_without_a_value() -> None:
    rows = [{"text": "a film"}]
    for objects in (rows, pd.DataFrame(rows)):
        option, shown = DataChoice("folder", unlabelled=objects).options()[2:]
        assert (option, bool(shown)) == ("--unlabelled", True)
    assert DataChoice("folder", skip_incomplete=True).options() == ["--data", "folder", "--skip-incomplete"]
    with pytest.raises(RecipeError, match="skip_incomplete"):
        DataChoice("folder", skip_incomplete="yes")  # type: ignore[arg-type]


def test_labels_that_the_hub_hides_are_left_out_too() -> None:
    table = {"text": ["a fine film", "a dull one", "the rest", "so so"], "label": ["pos", "neg", "-1", "pos"]}
    task = Task("t", ("text",), ("neg", "pos"), ("accuracy",), "accuracy")
    with pytest.raises(DataError, match="kept secret(.|\n)*--skip-incomplete"):
        load_splits({"train": pd.DataFrame(table)}, splits=("train",), task=task)
    found = load_splits({"train": pd.DataFrame(table)}, splits=("train",), task=task, skip_incomplete=True)
    assert (found.rows["train"]["text"][:], found.incomplete) == (
        ["a fine film", "a dull one", "so so"],
        {"train": 1},
    )
    numbered = Task("t", ("text",), ("-1", "1"), ("accuracy",), "accuracy")
    table["label"] = ["1", "-1", "-1", "1"]
    assert load_splits(
        {"train": pd.DataFrame(table)}, splits=("train",), task=numbered, skip_incomplete=True
    ).incomplete == {"train": 0}
