"""Texts without labels: rows of a task, and anything to pre-train on; what cannot be used is named with its place."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.batch import UNLABELLED
from gradistill.data import get_task, load_texts, load_unlabelled
from gradistill.data.overlap import normalised, overlap
from gradistill.data.unlabelled_texts import read_unlabelled
from gradistill.errors import DataError


def table(file: Path, rows: list[dict[str, object]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_a_file_without_rows_has_one_problem(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("sentence\n")
    with pytest.raises(DataError, match="1 problem:") as refused:
        read_unlabelled(tmp_path / "more.csv", get_task("sst2"), skip_incomplete=True)
    assert [problem.what for problem in refused.value.problems] == ["there are no rows"]


def test_rows_of_a_task_come_without_labels(tmp_path: Path) -> None:
    file = table(
        tmp_path / "more.csv",
        [{"sentence": "a fine film", "label": "what"}, {"sentence": "dull", "label": ""}],
    )
    rows = load_unlabelled(file, get_task("sst2"), first_index=7)
    assert rows.to_dict() == {
        "sentence": ["a fine film", "dull"], "label": [UNLABELLED] * 2, "index": [7, 8]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "column", "words_changed"),
    [(["words", "swap"], "sentence", True), (["swap", "re-pair"], "sentence", False),
     (["swap", "swap"], "change", True), (["words", "words"], "copy", True)],
)  # fmt: skip
def test_copies_are_known_by_the_columns_beside_their_texts(
    changes: list[str], column: str, words_changed: bool
) -> None:
    """Where a text has the name of one of them, by the others."""
    task = replace(get_task("sst2"), text_columns=(column,))
    found = [{"row": k, "copy": 1, "change": change} | {column: "a text"} for k, change in enumerate(changes)]
    assert read_unlabelled(found, task).words_changed is words_changed
    for name in {"row", "copy", "change"} - {column}:
        without = [{key: value for key, value in row.items() if key != name} for row in found]
        assert not read_unlabelled(without, task).words_changed


def test_a_folder_with_that_split_and_a_regression(tmp_path: Path) -> None:
    table(tmp_path / "unlabelled.csv", [{"sentence1": "a", "sentence2": "b"}])
    rows = load_unlabelled(tmp_path, get_task("stsb"))
    assert math.isnan(rows["label"][0])
    assert rows.features["label"].dtype == "float32"


def test_every_fault_is_named_with_its_place(tmp_path: Path) -> None:
    file = table(tmp_path / "more.csv", [{"sentence1": "a", "other": "b"}, {"sentence1": " ", "other": "b"}])
    with pytest.raises(DataError) as caught:
        load_unlabelled(file, get_task("mrpc"))
    text = str(caught.value)
    assert "2 problems" in text
    assert "sentence2" in text
    assert "row 3" in text


def test_texts_of_many_sources_once_each(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\ufeffone\n\n two \none\n", encoding="utf-8")
    folder = tmp_path / "task"
    table(folder / "train.csv", [{"sentence1": "two", "sentence2": "three", "label": "1", "idx": "9"}])
    typed = tmp_path / "more.jsonl"
    typed.write_text(json.dumps({"text": "four", "score": 2.5, "number": 3}) + "\n", encoding="utf-8")
    rows = load_texts([lines, folder, typed])
    assert rows["text"][:] == ["one", "two", "three", "four"]
    assert set(rows["label"]) == {UNLABELLED}
    assert load_texts([folder], text_columns=("sentence2",))["text"][:] == ["three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("texts.txt", b"good\n\xff\n", r"(?s)row 2.*not UTF-8"),
        ("texts.txt", b"\n \n", "holds no text"),
        ("texts.csv", b"label\n1\n2\n", "holds no text"),
        ("texts.pdf", b"", "of a kind that cannot be read"),
        ("texts.jsonl", b"{\n", "row 1"),
    ],
)
def test_sources_without_texts_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_texts([file])


def test_a_missing_source_or_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        load_texts([tmp_path / "nothing.txt"])
    file = table(tmp_path / "a.csv", [{"body": "text", "label": "1"}])
    with pytest.raises(DataError, match="body"):
        load_texts([file], text_columns=("boddy",))
    with pytest.raises(DataError, match="No source"):
        load_texts([])


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))), max_size=8))
def test_lines_come_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    file = tmp_path_factory.mktemp("lines") / "t.txt"
    file.write_text("\n".join(["first", *texts]), encoding="utf-8")
    expected = dict.fromkeys(text.strip() for text in ["first", *texts])
    assert load_texts([file])["text"][:] == [text for text in expected if text]


def test_marks_are_parts_of_letters() -> None:
    """Vowels of Hindi and Thai are marks: without them other words would be the same."""
    words = ["पानी", "पान", "पीना", "ดี", "ดู"]
    assert len({normalised(word) for word in words}) == len(words)
    assert normalised("पानी, पान!") == normalised(" पानी  पान")
    assert normalised("É  très_bien!") == normalised("é très bien") == "é très bien"
    assert normalised("!?") == "!?"
    signs = ["❤️", "☹️", "✈️"]
    assert len({normalised(sign) for sign in signs}) == len(signs)
    assert normalised("great ❤️") == normalised("great") == "great"
    assert normalised("1️⃣ first") == normalised("1 first")
    assert overlap([("ดี",)], [("ดู",)])["normalised"] == 0


def test_lines_of_a_file_end_at_their_ends_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one \u2028 line\r\nan\x0cother\n".encode())
    assert load_texts([tmp_path / "a.txt"])["text"][:] == ["one \u2028 line", "an\x0cother"]
