"""Where columns, labels or options leave a doubt, the message asks for what would settle it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradistill.data.split_loading import load_splits
from gradistill.errors import DataError

GOOD = "sentence,label\nfine,1\nbad,0\n"


def refusal(source: Path, **options: object) -> DataError:
    options = {"task": None, "splits": ("train",)} | options
    with pytest.raises(DataError) as caught:
        load_splits(source, **options)  # type: ignore[arg-type]
    return caught.value


def of_text(folder: Path, content: str, **options: object) -> str:
    path = folder / "train.csv"
    path.write_text(content)
    return str(refusal(path, **options))


@pytest.mark.parametrize(
    ("content", "printed"),
    [
        ("text,label,score\na,1,2\nb,0,3\n", "several columns that may be the label: label, score"),
        ("text,stars\na,1\nb,0\n", "no column that is named like a label. Its columns: 'text', 'stars'"),
        ("a,b,c,label\nx,y,z,1\nu,v,w,0\n", "3 columns of text: 'a', 'b', 'c'"),
        ("id,label\n7,1\n8,0\n", "no column of text"),
        ("text,label\na,1\nb,1\n", "only the label '1'"),
        ("text,label\na,\nb,\n", "no label in any row"),
        ("text,label\na,Yes\nb,yes\nc,yes\n", "one label, with its rows: 'yes' (2), 'Yes' (1)"),
        (
            "text,label\na,Yes\nb,yes\nc,NO\nd,no\ne,YES\n",
            "column 'label': one label, with its rows: 'NO' (1), 'no' (1)",
        ),
        (
            "text,label\na,yes\nb,yes\u200b\n",
            r"one label, with its rows: 'yes' (1), 'yes\u200b' (1)",
        ),
        (
            "text,label\n" + "".join(f"a,{i}\n" for i in range(60)),
            "60 different whole numbers. Class ids or scores?",
        ),
        ("text,label\n" + "".join(f"a,word{i}\n" for i in range(60)), "60 different labels in 60 rows"),
    ],
)
def test_doubt_is_a_question(tmp_path: Path, content: str, printed: str) -> None:
    message = of_text(tmp_path, content)
    assert printed in message
    assert "To do: " in message


def test_doubt_is_reported_with_the_faults_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,stars\na,yes\nb,no\n")
    (tmp_path / "validation.csv").write_text("text,stars\na\n")
    error = refusal(tmp_path, splits=("train", "validation"))
    assert "no column that is named like a label" in str(error)
    assert "--label-column" in str(error)
    assert "validation.csv, row 2: 1 fields" in str(error)


def test_a_second_label_is_not_taken_for_a_text(tmp_path: Path) -> None:
    content = "text,label,gold_label\na,1,good\nb,0,bad\n"
    assert "is 'gold_label' a text, or another label?" in of_text(tmp_path, content, label_column="label")


def test_columns_asked_for_that_are_not_there(tmp_path: Path) -> None:
    message = of_text(tmp_path, GOOD, label_column="labels", text_columns=("sentences",))
    assert "column 'labels': the column is missing; did you mean 'label'?" in message
    assert "column 'sentences': the column is missing; did you mean 'sentence'?" in message


def test_text_columns_that_do_not_suit_the_task(tmp_path: Path) -> None:
    message = of_text(tmp_path, GOOD, task="sst2", text_columns=("sentence", "other"))
    assert "2 text columns were named (sentence, other) for task 'sst2'" in message


def test_one_column_as_text_and_label(tmp_path: Path) -> None:
    message = of_text(tmp_path, GOOD, task="sst2", label_column="sentence")
    assert "'sentence' is named both as the label and as a text" in message


def test_no_split_asked_for(tmp_path: Path) -> None:
    assert "No split is named" in str(refusal(tmp_path, splits=()))


def test_a_score_column_with_a_word_in_it_is_no_column_of_words(tmp_path: Path) -> None:
    message = of_text(tmp_path, "text,label\na,0.5\nb,high\nc,none\n")
    assert "row 3, column 'label': 'high' where a score (a number) belongs" in message


def test_a_class_id_column_with_a_word_in_it_is_no_column_of_words(tmp_path: Path) -> None:
    message = of_text(tmp_path, "text,label\na,0\nb,1\nc,l\n")
    assert "row 4, column 'label': unknown label 'l'; known: 0, 1" in message
