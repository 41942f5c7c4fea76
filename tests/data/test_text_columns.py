"""Which columns are taken for texts: never the label under another name, an id, a date, a link, or a constant."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gradistill.data import load_splits, load_texts
from gradistill.data.splits import Splits
from gradistill.errors import DataError
from small import write_table

WORDS = "river stone window garden paper street clock table bridge forest letter engine".split()  # noqa: SIM905
NAMES = ("refund", "login", "delivery", "billing")
ROWS = 60


def sentence(k: int) -> str:
    chance = random.Random(k)
    return " ".join(chance.choices(WORDS, k=7))


def table(**columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{name: value(k) for name, value in columns.items()} for k in range(ROWS)]


def loaded(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Splits:
    return load_splits(write_table(folder / "train.csv", rows), splits=("train",), **options)


def label(k: int) -> int:
    return k % 4


LEAKS: Mapping[str, tuple[Callable[[int], str], str]] = {
    "label_text": (lambda k: NAMES[label(k)], "one value for each label"),
    "explanation": (lambda k: f"the customer writes about {NAMES[label(k)]} and waits", "one value for each label"),
    "subtopic": (lambda k: f"{NAMES[label(k)]} {'ab'[k // 4 % 2]}", "few values, and one label for each"),
    "department": (lambda k: ("money", "access")[label(k) // 2], "it follows from the label"),
    "review_id": (lambda k: f"r-train-{k}", "ids or codes"),
    "uuid": (lambda k: f"{random.Random(k).getrandbits(128):032x}", "ids or codes"),
    "serial": (lambda k: f"ticket {k}", "running numbers"),
    "user": (lambda k: "".join(random.Random(k).choices("abcdefgh", k=9)), "single words"),
    "created": (lambda k: f"2024-03-{k % 28 + 1:02d} 10:{k:02d}:00", "dates"),
    "tweeted": (lambda k: f"Mon Apr {k % 28 + 1:02d} 22:19:{k:02d} PDT 2009", "dates"),
    "link": (lambda k: f"https://example.org/{WORDS[k % 12]}", "links"),
    "mail": (lambda k: f"{WORDS[k % 12]}@example.org", "links"),
    "source": (lambda _: "web form", "the same in every row"),
    "truncated": (lambda k: str(random.Random(k).random() < 0.5), "yes or no"),
    "stars": (lambda k: str(k % 7), "numbers, or no texts"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("first", [True, False])
def test_what_gives_the_label_away_is_no_text(name: str, first: bool, tmp_path: Path) -> None:
    value, reason = LEAKS[name]
    columns = {name: value, "body": sentence} if first else {"body": sentence, name: value}
    splits = loaded(tmp_path, table(**columns, label=label))
    assert splits.task.text_columns == ("body",)
    assert splits.left_out[name] == reason
    assert f"not text: {name} ({reason})" in splits.describe()


def test_fields_of_objects_are_named() -> None:
    rows = [
        {"review": {"body": sentence(k), "title": "t"}, "note": sentence(k), "label": k % 4}
        for k in range(60)
    ]
    left_out = load_splits(rows, splits=("train",)).left_out
    assert left_out == {"review": "objects with the fields 'review.body', 'review.title'"}


def test_labels_by_name_in_a_second_column_are_no_text(tmp_path: Path) -> None:
    """Predictions of another model, say, which are right in nine of ten rows."""
    guess = lambda k: NAMES[label(k + (k % 10 == 0))]  # noqa: E731
    rows = table(text=sentence, predicted=guess, label=lambda k: NAMES[label(k)])
    assert loaded(tmp_path, rows).left_out == {"predicted": "the names of the labels"}


def test_a_column_in_steps_of_the_score_is_no_text(tmp_path: Path) -> None:
    score = lambda k: k / 7 + 0.1  # noqa: E731
    rows = table(
        text=sentence, mood=lambda k: "low" if k < 20 else "middle" if k < 40 else "high", score=score
    )
    assert loaded(tmp_path, rows).left_out == {"mood": "it follows from the score"}


def test_texts_that_determine_the_label_by_being_unique_stay(tmp_path: Path) -> None:
    rows = table(premise=sentence, hypothesis=lambda k: sentence(1000 + k), label=label)
    splits = loaded(tmp_path, rows)
    assert splits.task.text_columns == ("premise", "hypothesis")
    assert not splits.left_out
    assert not splits.warnings


def test_texts_that_come_again_with_their_label_stay(tmp_path: Path) -> None:
    """Commands from templates: fifteen of them, four times each."""
    rows = table(
        text=lambda k: f"turn {WORDS[k % 5]} {'on' if k % 3 else 'off'} please now", label=lambda k: k % 3
    )
    assert loaded(tmp_path, rows).task.text_columns == ("text",)


@pytest.mark.parametrize("names", [(0, 1), ("bad", "good")])
def test_rows_that_come_several_times_keep_their_texts(names: tuple[Any, Any], tmp_path: Path) -> None:
    """Rows of a rare class are often repeated. Whether labels are numbers or words, their texts are no scale."""
    rows = table(
        text=lambda k: sentence(k // 3), note=lambda k: sentence(500 + k), label=lambda k: names[k // 3 % 2]
    )
    found = loaded(tmp_path, rows)
    assert found.task.text_columns == ("text", "note")
    assert not [warning for warning in found.warnings if "give the label away" in warning]


@pytest.mark.parametrize("text", ["这个产品的价格是一百元", "สินค้านี้ราคาหนึ่งร้อยบาท"])
def test_scripts_without_spaces_are_texts(text: str, tmp_path: Path) -> None:
    rows = table(a=sentence, b=lambda k: f"{text}{chr(0x4E00 + k)}{k}", label=label)
    assert loaded(tmp_path, rows).task.text_columns == ("a", "b")


def test_single_words_are_the_texts_where_there_are_no_others(tmp_path: Path) -> None:
    rows = table(surname=LEAKS["user"][0], label=label)
    assert loaded(tmp_path, rows).task.text_columns == ("surname",)


def test_a_category_that_does_not_follow_from_the_label_is_asked_about(tmp_path: Path) -> None:
    rows = table(text=sentence, product=lambda k: ("phone", "laptop")[k // 4 % 2], label=label)
    with pytest.raises(DataError, match="is 'product' .* half of a pair with 'text', or no text") as caught:
        loaded(tmp_path, rows)
    assert "--text-columns text, or --text-columns text,product" in str(caught.value)
    assert loaded(tmp_path, rows, text_columns=("text", "product")).task.text_columns == ("text", "product")


PEOPLE = ("Carol Park", "Éric van Dyke".title(), "J. R. R. Tolkien", "Hamburg, France", "O'Neil")


@pytest.mark.parametrize("called", ["customer", "Kunde"])
def test_names_next_to_a_text_are_asked_about(called: str, tmp_path: Path) -> None:
    names = {called: lambda k: f"{PEOPLE[k % 5]} {'ABCDEFGHIJKLMNOPQ'[k % 17]}" if k % 5 != 2 else PEOPLE[2]}
    rows = table(**names, text=sentence, label=label)
    with pytest.raises(DataError, match=f"is '{called}' .*names have.* half of a pair with 'text'"):
        loaded(tmp_path, rows)
    pair = (called, "text")
    assert loaded(tmp_path / "named", rows, text_columns=pair).task.text_columns == pair
    alone = {"rows": table(**names, label=label)}["rows"]
    assert loaded(tmp_path / "alone", alone).task.text_columns == (called,)


def test_a_text_that_is_called_so_is_no_name(tmp_path: Path) -> None:
    rows = table(title=lambda k: f"{PEOPLE[k % 5]} {'ABCDEFGHIJKLMNOPQ'[k % 17]}", body=sentence, label=label)
    assert loaded(tmp_path, rows).task.text_columns == ("title", "body")


def test_an_index_that_pandas_wrote_is_no_text(tmp_path: Path) -> None:
    rows = table(text=sentence, __index_level_0__=lambda k: f"alice smith {k}", label=label)
    assert loaded(tmp_path, rows).task.text_columns == ("text",)


def test_phrases_that_come_again_and_again_are_a_category(tmp_path: Path) -> None:
    places = ("Home, kitchen and garden tools", "Toys and games for small children")
    rows = table(text=sentence, department=lambda k: places[k // 4 % 2], label=label)
    with pytest.raises(DataError, match="is 'department' .* half of a pair with 'text', or no text"):
        loaded(tmp_path, rows)
    long = (
        "a premise of nine words that many hypotheses are about",
        "another one of them that has many hypotheses",
    )
    claims = table(claim=lambda k: long[k // 4 % 2], evidence=sentence, label=label)
    assert loaded(tmp_path / "long", claims).task.text_columns == ("claim", "evidence")


def test_a_category_beside_a_pair_is_left_out(tmp_path: Path) -> None:
    rows = table(
        premise=sentence, hypothesis=lambda k: sentence(1000 + k),
        genre=lambda k: ("fiction", "travel")[k // 4 % 2], label=label,
    )  # fmt: skip
    splits = loaded(tmp_path, rows)
    assert splits.task.text_columns == ("premise", "hypothesis")
    assert "genre" in splits.left_out


def test_where_nothing_is_left_every_column_is_named_with_its_reason(tmp_path: Path) -> None:
    rows = table(review_id=LEAKS["review_id"][0], label_text=LEAKS["label_text"][0], label=label)
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, rows)
    for part in (
        "no column of text",
        "'review_id': ids or codes",
        "'label_text': one value for",
        "--text-columns",
    ):
        assert part in str(caught.value)


def test_a_leak_that_is_named_is_read_with_a_warning(tmp_path: Path) -> None:
    rows = table(text=sentence, label_text=LEAKS["label_text"][0], label=label)
    splits = loaded(tmp_path, rows, text_columns=("label_text",))
    assert "WARNING: the text column 'label_text' may give the label away" in splits.describe()
    assert not loaded(tmp_path, rows, text_columns=("text",)).warnings


def test_ids_and_dates_are_no_texts_to_pre_train_on(tmp_path: Path) -> None:
    rows = table(review_id=LEAKS["review_id"][0], text=sentence, created=LEAKS["created"][0])
    found = load_texts([write_table(tmp_path / "train.csv", rows)])
    assert set(found["text"]) == {row["text"] for row in rows}


@pytest.mark.parametrize("names", [("(spam)", "(ham)"), ("[spam]", "{ham}"), ("True", "False"), ("1", "0")])
def test_one_label_in_brackets_or_a_flag_is_one_label(names: tuple[str, str], tmp_path: Path) -> None:
    splits = loaded(tmp_path, table(text=sentence, label=lambda k: names[k % 2]))
    assert set(splits.task.labels or ()) == set(names)


def test_labels_joined_by_a_separator_are_hinted_at(tmp_path: Path) -> None:
    mixed = lambda k: ("billing", "urgent", "billing|urgent")[k % 3]  # noqa: E731
    splits = loaded(tmp_path, table(text=sentence, label=mixed))
    assert "WARNING: the label 'billing|urgent' looks like several labels in one" in splits.describe()
    assert "--label-separator '|'" in splits.describe()
    plain = lambda k: ("either|or", "billing", "n/a")[k % 3]  # noqa: E731
    (warning,) = loaded(tmp_path, table(text=sentence, label=plain)).warnings
    assert warning.startswith("'n/a' is read as a label")
