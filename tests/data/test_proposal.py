"""Columns that are proposed, and the doubts that come with them; looking at them imports no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from gradistill.data.data_choice import DataChoice
from gradistill.data.proposal import propose
from gradistill.errors import DataError
from small import write_table

WORDS = (
    "the film was {} indeed",
    "I found the plot {} today",
    "what a {} evening it was",
    "they say it is {} now",
)


def text(k: int) -> str:
    return f"{WORDS[k % 4].format(('dull', 'great')[k % 2])} take {k}"


def rows(**columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{name: cell(k) for name, cell in columns.items()} for k in range(40)]


def proposed(tables: list[dict[str, Any]], **given: Any) -> Any:
    return propose(DataChoice(tables, **given))


def test_a_label_without_a_usual_name_is_proposed_with_a_reason() -> None:
    found = proposed(rows(ticket=text, category=lambda k: ("refund", "login")[k % 2]))
    assert (found.choice.label_column, found.choice.columns) == ("category", ("ticket",))
    assert found.choice.validation_share == 0.2
    assert "it has 2 values in 40 rows" in found.reasons["label_column"]
    assert "no validation split" in found.reasons["validation_share"]
    assert len(found.splits.rows["validation"]) == 8


@pytest.mark.parametrize("layout", ["saved", "hub"])
def test_a_folder_with_splits_is_no_folder_of_one_table(layout: str, tmp_path: Path) -> None:
    """It holds a JSON file that describes it."""
    table = datasets.Dataset.from_list(rows(ticket=text, category=lambda k: ("refund", "login")[k % 2]))
    if layout == "saved":
        datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(str(tmp_path / "of"))
    else:
        for split in ("train", "validation"):
            table.to_parquet(tmp_path / "of" / "data" / f"{split}-00000-of-00001.parquet")
        (tmp_path / "of" / "dataset_infos.json").write_text("{}")
    found = propose(DataChoice(str(tmp_path / "of")))
    assert found.choice.source == str(tmp_path / "of")
    assert found.choice.validation_share is None
    assert found.choice.columns == ("ticket",)


def test_what_is_named_is_kept() -> None:
    table = rows(
        a=text, b=lambda k: f"{text(k)} more", topic=lambda k: "xy"[k % 2], area=lambda k: "pqr"[k % 3]
    )
    found = proposed(table, text_columns=("b",), label_column="area", validation_share=0.5)
    assert (found.choice.label_column, found.choice.columns, found.choice.validation_share) == (
        "area",
        ("b",),
        0.5,
    )
    assert "label_column" not in found.reasons


@pytest.mark.parametrize(
    ("columns", "wanted", "doubt"),
    [
        ({"text": text, "label": lambda k: k % 5 + 1}, {"kind": "classes"}, ("kind", "scores where their order")),
        ({"text": text, "score": lambda k: k % 5 + 1}, {"kind": "scores"}, ("kind", "in a column of this name")),
        ({"text": text, "label": lambda k: k % 3}, {"kind": "classes", "label_column": "label"}, None),
        ({"text": text, "label": lambda k: k / 8}, {"kind": "scores"}, None),
        ({"text": text, "labels": lambda k: ["a", "b"][: k % 2 + 1]}, {"kind": "multi_label"}, None),
        ({"text": text, "label": lambda k: ("a", "b", "a|b")[k % 3]}, {"label_separator": "|", "kind": None},
         ("label_separator", "'a|b' looks like several labels")),
        ({"text": text, "rude": lambda k: k % 2, "spam": lambda k: k // 2 % 2, "odd": lambda k: k // 4 % 2},
         {"label_columns": ("rude", "spam", "odd"), "kind": "multi_label"}, ("label_columns", "holds 0 or 1")),
        ({"text": text, "label": lambda k: ["no", "yes"][k % 2], "target": lambda k: k // 4 % 2},
         {"label_column": "label"}, ("label_column", "'target' may be the label too")),
        ({"text": text, "severity": lambda k: f"P{k % 3}", "agent": lambda k: f"A{k % 4}"},
         {"label_column": "severity"}, ("label_column", "it could also be 'agent'")),
        ({"text": text, "liked?": lambda k: ("No", "Yes")[k % 2], "channel": lambda k: ("web", "app")[k // 2 % 2]},
         {"label_column": "liked?"}, ("label_column", "it could also be 'channel'")),
        ({"text": text, "spam": lambda k: k % 3 > 0, "topic": lambda k: ("tea", "tin")[k // 2 % 2]},
         {"label_column": "topic"}, ("label_column", "it could also be 'spam'")),
        ({"text": text, "mood": lambda k: ("negativ", "positiv", "unknown")[k % 3], "has_image": lambda k: "yn"[k % 2]},
         {"label_column": "mood"}, ("label_column", "it could also be 'has_image'")),
        ({"text": text, "in_stock": lambda k: "yn"[k % 2], "queue": lambda k: ("a", "b", "c")[k // 2 % 3]},
         {"label_column": "queue"}, ("label_column", "it could also be 'in_stock'")),
        ({"text": text, "queue": lambda k: "ab"[k % 2], "escalated": lambda k: "yn"[k // 2 % 2] if k != 3 else None},
         {"label_column": "queue"}, ("label_column", "it could also be 'escalated'")),
        ({"text": text, "churn": lambda k: k % 2, "signupRegion": lambda k: ("north", "south")[k // 2 % 2]},
         {"label_column": "churn"}, ("label_column", "it could also be 'signupRegion'")),
        ({"text": text, "mood": lambda k: ("calm", "cross")[k % 2], "split": lambda k: ("train", "test")[k // 2 % 2]},
         {"label_column": "mood"}, ("label_column", "no column is named like a label, and this one")),
        ({"text": text, "queue": lambda k: ("refund", "login")[k % 2], "agent": lambda k: f"A{k // 2 % 4}"},
         {"label_column": "queue"}, ("label_column", "it could also be 'agent'")),
        ({"text": text, "severity": lambda k: f"P{k % 3}", "device": lambda k: ("phone", "desk")[k // 3 % 2]},
         {"label_column": "severity"}, ("label_column", "it could also be 'device'")),
        ({"text": text, "sentiment_label": lambda k: ("glad", "sad")[k % 2], "shared": lambda k: k // 2 % 2 > 0},
         {"label_column": "sentiment_label"}, ("label_column", "it could also be 'shared'")),
        ({"text": text, "toxic": lambda k: k % 2 > 0, "insult": lambda k: k // 2 % 2 > 0,
          "odd": lambda k: k // 4 % 2 > 0},
         {"label_columns": ("toxic", "insult", "odd")}, ("label_columns", "holds 0 or 1")),
        ({"text": text, "verdict": lambda k: ("spam", "ham")[k // 8 % 2], "reply": lambda k: k % 2,
          "edit": lambda k: k // 2 % 2, "ad": lambda k: k // 4 % 2},
         {"label_column": "verdict"}, ("label_column", "it could also be 'reply', 'edit', 'ad'")),
        ({"text": text, "product": lambda k: ("tea", "tin", "toy")[k // 2 % 3], "label": lambda k: "ab"[k % 2]},
         {"text_columns": ("text",)}, ("text_columns", "half of a pair")),
        ({"premise": text, "hypothesis": lambda k: f"well {text(k + 1)}", "label": lambda k: "ab"[k % 2]},
         {"text_columns": ("premise", "hypothesis")}, ("text_columns", "read as a pair")),
        ({"review_id": lambda k: f"r-{k}", "text": text, "label": lambda k: "ab"[k % 2]},
         {"text_columns": ("text",)}, ("left_out", "'review_id' (ids or codes)")),
        ({"body": lambda k: {"text": text(k)}, "meta": lambda k: {"id": k, "label": "ab"[k % 2]}},
         {"text_columns": ("body.text",), "label_column": "meta.label"}, None),
    ],
)  # fmt: skip
def test_kinds_of_tables(columns: Any, wanted: dict[str, Any], doubt: tuple[str, str] | None) -> None:
    found = proposed(rows(**columns))
    assert {name: getattr(found.choice, name) for name in wanted} == wanted
    if doubt:
        assert doubt[1] in found.reasons[doubt[0]]
    else:
        assert not {"kind", "label_column", "text_columns"} & found.reasons.keys()


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"Emotion(s)": lambda k: ("joy", "anger", "joy, anger")[k * 7 % 3] if k else "",
          "Coder": lambda k: "ab"[k // 2 % 2]}, "Emotion(s)"),
        ({"intent": lambda k: f"intent_{k % 13}_x", "team": lambda k: "abc"[k % 13 % 3]}, "intent"),
        ({"Kanal": lambda k: ("Web", "E-Mail", "Post")[k % 3], "Betrag": lambda k: f"{k}.{k % 9 + 1}",
          "Reklamation?": lambda k: ("WAHR", "FALSCH")[k % 2] if k else ""}, "Reklamation?"),
        ({"Reviewer": lambda k: "ab"[k % 2], "Similarity (0-5)": lambda k: f"{k % 5}.{k % 10}"}, "Similarity (0-5)"),
    ],
)  # fmt: skip
def test_the_label_of_a_file_as_people_export_them(columns: Any, label: str, tmp_path: Path) -> None:
    write_table(tmp_path / "rows.csv", rows(comment=text, **columns))
    assert propose(DataChoice(str(tmp_path / "rows.csv"))).choice.label_column == label


def test_a_text_without_spaces_is_longer_than_a_name(tmp_path: Path) -> None:
    table = rows(
        商品=lambda k: ("帽子", "時計", "靴")[k % 3],
        レビュー本文=lambda k: f"配送が早い。{'また購入したい' if k % 2 else 'すぐ壊れました'}。{'あ' * (k % 7)}",
        評価=lambda k: k % 5 + 1,
    )  # fmt: skip
    write_table(tmp_path / "rows.csv", table)
    found = propose(DataChoice(str(tmp_path / "rows.csv"))).choice
    assert (found.columns, found.label_column) == (("レビュー本文",), "評価")


def test_the_only_table_of_a_folder_and_what_cannot_be_proposed(tmp_path: Path) -> None:
    write_table(tmp_path / "only" / "tickets.csv", rows(ticket=text, intent=lambda k: "ab"[k % 2]))
    found = propose(DataChoice(str(tmp_path / "only")))
    assert found.choice.source == str(tmp_path / "only" / "tickets.csv")
    with pytest.raises(DataError, match=r"no column looks like a label\. Its columns: 'one', 'two'"):
        proposed(rows(one=text, two=lambda k: f"also {text(k)}"))
    with pytest.raises(DataError, match="where text belongs"):
        proposed(rows(text=lambda k: text(k) if k else 7, label=lambda k: "ab"[k % 2]))
    guess = r"(?s)where text belongs.*'queue' was taken for the label, which is not certain.*'channel'"
    with pytest.raises(DataError, match=guess):  # and not the channel instead
        proposed(rows(text=lambda k: text(k) if k - 1 else 7, channel=lambda k: ("web", "app")[k % 2],
                      queue=lambda k: "ab"[k % 2] if k else ""))  # fmt: skip
    judged = proposed(rows(text=text, payment_status=lambda k: "ab"[k % 2] if k else "",
                           decision=lambda k: ("approved", "denied")[k // 2 % 2]))  # fmt: skip
    assert judged.choice.label_column == "decision"
    complete = proposed(
        rows(text=text, group=lambda k: "ab"[k % 2] if k else "", part=lambda k: "cd"[k // 2 % 2])
    )
    assert complete.choice.label_column == "part"


def test_looking_at_columns_imports_no_torch() -> None:
    program = (
        "import sys, gradistill.commands.init; "
        "print([m for m in ('torch', 'transformers', 'sklearn.metrics') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("words", "tags", "certain"), [("tokens", "ner_tags", True), ("w", "bio", False)])
def test_words_with_tags_are_proposed_as_such(words: str, tags: str, certain: bool) -> None:
    table = [{words: ["the", "film", str(k)], tags: ["O", "B-x", "I-x"], "id": k} for k in range(20)]
    found = proposed(table)
    assert (found.choice.columns, found.choice.label_column, found.choice.kind) == ((words,), tags, "tokens")
    assert found.tags_words
    assert ("not certain" in found.reasons.get("label_column", "")) is not certain


def test_lists_of_labels_are_no_tags() -> None:
    found = proposed(rows(text=text, labels=lambda k: [["joy"], ["fear", "joy"], ["anger"]][k % 3]))
    assert found.choice.kind == "multi_label"
    assert not found.tags_words


def test_a_column_that_names_splits_divides_the_rows() -> None:
    """Rows that a person set aside went into training."""
    columns = {
        "review": text,
        "split": lambda k: "test" if k > 30 else "train",
        "topic": lambda k: "ab"[k % 2],
    }
    found = proposed(rows(**columns))
    assert (found.choice.label_column, found.choice.columns) == ("topic", ("review",))
    assert found.choice.validation_share is not None
    assert {*found.splits.rows["test"]["review"]} == {text(k) for k in range(31, len(rows(**columns)))}
    assert "split" not in found.reasons.get("text_columns", "") + found.reasons.get("label_column", "")
    whole = proposed(rows(**columns | {"split": lambda k: ("Train", "dev")[k % 4 == 3]}))
    assert whole.choice.validation_share is None
    assert len(whole.splits.rows["validation"]) == len(rows(**columns)) // 4
    named = proposed(rows(**columns), label_column="split")
    assert (named.choice.label_column, named.choice.kind) == ("split", "classes")
    assert proposed(rows(review=text, split=columns["split"])).choice.label_column == "split"


def test_a_column_of_objects_that_names_splits_is_a_doubt() -> None:
    table = [
        {"review": text(k), "topic": "ab"[k % 2], "of": {"split": ("train", "test")[k % 3 == 0]}}
        for k in range(40)
    ]
    found = proposed(table)
    assert found.choice.columns == ("review",)
    assert found.reasons["validation_share"].startswith("not certain: the column 'of.split' marks the splits")
    other = proposed(
        rows(review=text, topic=lambda k: "ab"[k % 2], split=lambda k: ("red", "train", "test")[k % 3])
    )
    assert "marks the splits" not in other.reasons["validation_share"]


@pytest.mark.parametrize("nothing", ["NA", "N/A", "nan", "#N/A"])
def test_a_label_that_other_tools_write_for_none_is_a_doubt(nothing: str) -> None:
    found = proposed(rows(text=text, label=lambda k: nothing if k % 8 == 3 else ("good", "bad")[k % 2]))
    reason = found.reasons["label_column"]
    assert (
        reason
        == f"not certain: '{nothing}' is a label: leave these cells blank where it means that there is none"
    )
    assert any(f"'{nothing}' is read as a label" in warning for warning in found.splits.warnings)


def test_minus_one_next_to_zero_is_a_doubt(tmp_path: Path) -> None:
    """The hub writes it for hidden labels."""
    label = lambda k: -1 if k % 9 == 0 else k % 2  # noqa: E731
    found = proposed(rows(text=text, label=label), kind="classes")
    assert any(warning.startswith("-1 is read as a class") for warning in found.splits.warnings)
    signs = proposed(rows(text=text, label=lambda k: (-1, 1)[k % 2]), kind="classes")
    assert not any("-1" in warning for warning in signs.splits.warnings)


def test_versions_that_come_again_are_classes() -> None:
    versions = ("1.2", "1.3", "1.4", "1.5", "2.0.1")
    found = proposed(rows(text=text, version=lambda k: versions[k % 5]), label_column="version")
    assert (found.choice.kind, found.splits.task.labels) == ("classes", versions)


@pytest.mark.parametrize("odd", ["NaN", "inf", "N/A", "twelve"])
def test_a_column_that_is_nearly_all_numbers_holds_scores(odd: str, tmp_path: Path) -> None:
    """It was taken for text, and the message named another column to take."""
    table = rows(review=text, price=lambda k: odd if k in (3, 20) else f"{k / 7:.2f}")
    file = write_table(tmp_path / "prices.csv", table)
    with pytest.raises(DataError) as caught:
        propose(DataChoice(str(file), label_column="price"))
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [
        (5, "price"),
        (22, "price"),
    ]
    message = str(caught.value)
    assert "number" in message
    assert ("leave it blank: --skip-incomplete" in message) == (odd in ("NaN", "N/A"))
