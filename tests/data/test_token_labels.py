"""Words with a tag each: reading, checking, spans and their metrics, sub-words."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from gradistill.data import (
    Collator,
    DataChoice,
    align_labels,
    compute_metrics,
    encode,
    load_splits,
    read_splits,
)
from gradistill.data.conll import read_conll
from gradistill.data.label_matching import Outputs
from gradistill.data.proposal import propose
from gradistill.data.span_metrics import find_spans, span_counts, token_metrics
from gradistill.errors import DataError, GradistillError
from small import write_table
from wordpiece import tokenizer as wordpiece

ROWS = [
    {"tokens": ["Ada", "Lovelace", "saw", "Rome"], "tags": ["B-person", "I-person", "O", "B-place"]},
    {"tokens": ["it", "rains"], "tags": ["O", "O"]},
]
NAMES = ("O", "B-person", "I-person", "B-place", "I-place")


@pytest.mark.parametrize("names", [("tokens", "tags"), ("words", "ner")])
def test_lists_in_csv_are_words_with_their_tags(names: tuple[str, str], tmp_path: Path) -> None:
    """As pandas writes them. Other lists of a CSV file, such as labels of a row, stay text for who reads them."""
    words, tags = [["It's", "Rome", ","], ["no", '"place"']], [["O", "B-place", "O"], ["O", "O"]]
    table = [
        dict(zip(names, (str([*words[k % 2][:-1], f"{words[k % 2][-1]}{k}"]), str(tags[k % 2])), strict=True))
        for k in range(20)
    ]
    write_table(tmp_path / "train.csv", table)
    found = propose(DataChoice(str(tmp_path / "train.csv")))
    assert (found.choice.kind, found.choice.columns, found.choice.label_column) == (
        "tokens",
        (names[0],),
        names[1],
    )
    how: Any = {"text_columns": names[:1], "label_column": names[1], "kind": "tokens"}
    rows = load_splits(tmp_path / "train.csv", splits=("train",), **how).rows["train"]
    assert rows[names[0]][:2] == [["It's", "Rome", ",0"], ["no", '"place"1']]
    assert rows["label"][:2] == [[0, 1, 0], [0, 0]]
    with pytest.raises(DataError, match="where text belongs"):
        load_splits(tmp_path / "train.csv", splits=("train",), task="sst2", text_columns=names[:1])


def test_words_and_tags_are_read_without_options(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    Dataset.from_list(ROWS).to_parquet(tmp_path / "validation.parquet")
    found = load_splits(tmp_path)
    assert found.task.kind == "tokens"
    assert found.task.labels == NAMES
    assert found.task.select == "span_f1"
    assert found.label_column == "tags"
    assert found.rows["train"]["label"][:] == [[1, 2, 0, 3], [0, 0]] == found.rows["validation"]["label"][:]
    assert found.rows["train"]["tokens"][:] == [row["tokens"] for row in ROWS]
    assert "6 words; spans of person: 1, place: 1" in found.describe()
    assert found.overlap is not None
    assert found.overlap["exact"] == 2


def test_conll_files_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    text = "-DOCSTART- -X- O\n\n" + "\n\n".join(
        "\n".join(f"{word} NN {tag}" for word, tag in zip(row["tokens"], row["tags"], strict=True))
        for row in ROWS
    )
    (tmp_path / "rows.conll").write_text(text)
    (tmp_path / "tabs.conll").write_text(text.replace(" ", "\t") + "\r\n\n\n")
    plain, blanks, tabs = (
        load_splits(tmp_path / name, splits=("train",)).rows["train"].to_dict()
        for name in ("rows.jsonl", "rows.conll", "tabs.conll")
    )
    assert plain == blanks == tabs
    (tmp_path / "rows.conll").write_text(text + "\nalone\n")
    with pytest.raises(DataError, match=r"row 10: a word without a tag"):
        load_splits(tmp_path / "rows.conll", splits=("train",))


def test_a_conll_line_is_split_at_blanks_and_tabs_alone() -> None:
    """Numbers hold no-break spaces (10 000). A word may begin as the mark of a document does."""
    text = "10\u00a0000  B-num\n-DOCSTART-like O\n\u3000x\t NN \tO\n-DOCSTART-\tO\n-DOCSTART-\nEnd\u00a0O"
    found = read_conll("a.conll", text)
    assert found.columns["tokens"][:] == [["10\u00a0000", "-DOCSTART-like", "\u3000x"], ["End\u00a0O"]]
    assert found.columns["tags"][:] == [["B-num", "O", "O"], ["O"]]
    assert list(found.lines) == [1, 6]
    assert [(problem.row, problem.what[:20]) for problem in found.problems] == [(6, "a word without a tag")]


def test_ids_with_names_are_read_and_ids_without_are_refused() -> None:
    tags = List(ClassLabel(names=list(NAMES)))
    rows = Dataset.from_dict(
        {"words": [["Rome", "!"]] * 2, "ner_tags": [[3, 0]] * 2},
        features=Features({"words": List(Value("string")), "ner_tags": tags}),
    )
    found = load_splits(rows, splits=("train",))
    assert found.task.labels == NAMES
    assert found.rows["train"]["label"][0] == [3, 0]
    again = load_splits(rows, splits=("train",), task=found.task)
    assert again.rows["train"].to_dict() == found.rows["train"].to_dict()
    speech = rows.cast_column("ner_tags", List(ClassLabel(names=["NN", "VB", "DT", "IN"])))
    with pytest.raises(DataError, match="declares the tag 'NN'. This is no tag of BIO2"):
        load_splits(speech, splits=("train",))
    with pytest.raises(DataError, match=r"row 1, column 'tags': the tag of word 1 is '3', whose name"):
        load_splits([{"tokens": ["Rome", "!"], "tags": [3, 0]}], splits=("train",))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O", "I-x", "O"], r"row 2.*the tag of word 2 is I-x after O, where BIO2 has B-x.*IOB1"),
        (["B-x", "I-y", "O"], r"row 2.*the tag of word 2 is I-y after B-x"),
        (["O", "S-x", "O"], r"row 2.*word 2 is 'S-x'. This is BIOES"),
        (["O", "x", "O"], r"row 2.*word 2 is 'x'. This is no tag of BIO2"),
        (["O", "O"], r"row 2.*2 tags for 3 words"),
        (None, r"row 2.*the tags are missing"),
    ],
)
def test_what_is_no_bio2_is_refused_with_row_and_word(tags: list[str] | None, message: str) -> None:
    good = {"tokens": ["a", "b", "c"], "tags": ["B-x", "I-x", "B-y"]}
    with pytest.raises(DataError, match=message):
        load_splits([good, {"tokens": ["a", "b", "c"], "tags": tags}], splits=("train",))


@pytest.mark.parametrize(("words", "message"), [
    (["a", " ", "c"], "word 2: the text is empty"), ([], "list of words is empty"), (None, "words are missing"),
    (["a", 3, "c"], "word 2: a number"),
])  # fmt: skip
def test_what_is_no_word_is_refused(words: list[object] | None, message: str) -> None:
    good = {"tokens": ["a", "b", "c"], "tags": ["B-x", "I-x", "B-y"]}
    tags = ["O"] * len(words or ())
    with pytest.raises(DataError, match=message):
        load_splits([good, {"tokens": words, "tags": tags}], splits=("train",))


def test_other_kinds_are_refused_where_words_are_wanted() -> None:
    with pytest.raises(DataError, match="no column of lists of words"):
        load_splits([{"text": "a b", "label": "x"}], splits=("train",), kind="tokens")
    several = load_splits(
        [{"text": f"a text {k}", "labels": ["x", "y"][: k % 3]} for k in range(6)], splits=("train",)
    )
    assert several.task.kind == "multi_label"  # lists of labels of a text are no tags


def test_a_share_is_drawn_for_validation() -> None:
    rows = [{"tokens": ["Rome", str(k)], "tags": ["B-place" if k % 3 else "O", "O"]} for k in range(30)]
    found = load_splits(rows, validation_share=0.2)
    drawn = found.rows["validation"]["label"][:]
    assert len(drawn) == 6
    assert sorted(map(tuple, drawn)) == [(0, 0)] * 2 + [(1, 0)] * 4


def test_tags_are_renumbered_to_a_teachers_outputs() -> None:
    found = load_splits(ROWS, splits=("train",))
    teacher = dict(enumerate(["B-place", "O", "I-person", "I-place", "B-person"]))
    aligned = align_labels(found, teacher)
    assert aligned.task.labels == tuple(teacher.values())
    assert aligned.rows["train"]["label"][:] == [[4, 2, 1, 0], [1, 1]]


def naive_spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """seqeval's rules, as conlleval states them: every interval that begins, goes on and ends as a span does."""
    kinds, prefixes = [tag[2:] for tag in tags] + [""], [tag[0] for tag in tags] + ["O"]

    def begins(k: int) -> bool:
        before = (prefixes[k - 1], kinds[k - 1]) if k else ("O", "")
        return prefixes[k] == "B" or (prefixes[k] == "I" and (before[0] == "O" or before[1] != kinds[k]))

    return {
        (kinds[a], a, b)
        for a in range(len(tags))
        for b in range(a + 1, len(tags) + 1)
        if begins(a)
        and all(prefixes[k] == "I" and kinds[k] == kinds[a] for k in range(a + 1, b))
        and not (prefixes[b] == "I" and kinds[b] == kinds[a])
    }


def test_spans_equal_those_of_a_naive_implementation() -> None:
    tags = ("O", "B-x", "I-x", "B-y", "I-y")
    for row in product(tags, repeat=4):
        found = find_spans(row)
        assert set(found) == naive_spans(list(row))
        assert len(found) == len(set(found))


def test_metrics_equal_counts_by_hand() -> None:
    gold = [np.array([1, 2, 0, 3]), np.array([0, 0, -100]), np.array([3, 4])]
    predicted = [np.array([1, 2, 3, 3]), np.array([0, 2, 1]), np.array([3, 0])]
    # spans of the first row: both have person and the last place, one more is predicted; of the others: one is
    # predicted where there is none (the unlabelled word apart), one ends too early.
    assert span_counts(NAMES, predicted[:1], gold[:1]).tolist() == [[2, 3, 2]]
    found = token_metrics(NAMES, predicted, gold)
    assert found == pytest.approx(
        {"span_f1": 4 / 8, "span_precision": 2 / 5, "span_recall": 2 / 3, "accuracy": 5 / 8}
    )
    nothing = token_metrics(NAMES, [np.zeros(2, int)], [np.zeros(2, int)])
    assert nothing == {"span_f1": 0.0, "span_precision": 0.0, "span_recall": 0.0, "accuracy": 1.0}


def test_a_words_label_stands_at_its_first_token_and_cut_words_are_counted() -> None:
    found = load_splits(ROWS, splits=("train",))
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pieces = ("a", "##da", "love", "##lace", "saw", "rome", "it", "rains")
    tokenizer = wordpiece((*special, *pieces))
    whole = encode(found.rows["train"], tokenizer, found.task, max_length=16)
    assert whole.dataset["word_ids"][0] == [-1, 0, 0, 1, 1, 2, 3, -1]
    assert whole.dataset["labels"][0] == [-100, 1, -100, 2, -100, 0, 3, -100]
    assert (whole.truncated, whole.words_unread) == (0, 0)
    cut = encode(found.rows["train"], tokenizer, found.task, max_length=5)
    assert cut.dataset["labels"][0] == [-100, 1, -100, 2, -100]  # in the middle of a word, whose label stays
    assert (cut.truncated, cut.words_unread, cut.longest) == (1, 2, 8)
    assert "2 words have no token" in str(cut.cut)
    batch = Collator(tokenizer)([whole.dataset[k] for k in range(2)])
    assert batch["labels"].tolist()[1] == [-100, 0, 0, -100, -100, -100, -100, -100]
    assert batch["word_ids"].tolist()[1] == [-1, 0, 1, -1, -1, -1, -1, -1]


def test_a_word_whose_first_token_is_cut_off_is_not_read() -> None:
    """By a tokenizer that cuts on the left: no label stands at a middle piece, and the rest of the word is of none."""
    task = load_splits(ROWS, splits=("train",)).task
    rows = Dataset.from_dict({"tokens": [["adada", "saw", "ada"]], "label": [[1, 0, 3]], "index": [0]})
    tokenizer = wordpiece(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##da", "saw"))
    tokenizer.truncation_side = "left"
    found = {n: encode(rows, tokenizer, task, max_length=n) for n in (8, 7, 6, 5, 4)}
    assert {n: (of.dataset["word_ids"][0], of.words_unread) for n, of in found.items()} == {
        8: ([-1, 0, 0, 0, 1, 2, 2, -1], 0),
        7: ([-1, -1, -1, 1, 2, 2, -1], 1),
        6: ([-1, -1, 1, 2, 2, -1], 1),
        5: ([-1, 1, 2, 2, -1], 1),
        4: ([-1, 2, 2, -1], 2),
    }
    assert found[7].dataset["labels"][0] == [-100, -100, -100, 0, 3, -100, -100]
    assert not any(found[7].dataset["special_tokens_mask"][0][1:-1])


def test_logits_of_rows_give_the_metrics_of_the_task() -> None:
    task = load_splits(ROWS, splits=("train",)).task
    logits = np.eye(5)[[[1, 2, 0, 3], [0, 0, 3, 3]]]
    assert compute_metrics(task, logits, np.array([[1, 2, 0, 3], [0, 0, -100, -100]]))["span_f1"] == 1.0
    assert task.metric("f1") == "span_f1"
    assert task.positive_label is None
    with pytest.raises(GradistillError, match="a tag a word"):
        task.with_positive("B-place")


def test_rows_without_tags_are_not_read_for_a_model_of_another_scheme() -> None:
    choice = DataChoice({"validation": [{"tokens": ["Ada", "slept"]}]}, kind="tokens")
    for names, fault in (
        (("O", "B-x", "I-x"), None),
        (("O", "B-x", "E-x"), "'E-x'"),
        (("O", "PER"), "'PER'"),
    ):
        if fault is None:
            assert read_splits(choice, ("validation",), outputs=Outputs(names, {})).task.labels == names
            continue
        with pytest.raises(DataError, match=f"model predicts the tag {fault}"):
            read_splits(choice, ("validation",), outputs=Outputs(names, {}))
