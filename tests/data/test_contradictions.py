"""Rows of one text with different labels are counted, and named where they are many."""

from __future__ import annotations

import json
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from gradistill.data.contradictions import contradictory_labels
from gradistill.data.data_choice import DataChoice
from gradistill.data.split_loading import read_splits
from gradistill.data.tasks import TASKS

SST2 = TASKS["sst2"]


def found(texts: list[Any], labels: list[Any], task: Any = SST2) -> str | None:
    columns = dict(zip(task.text_columns, zip(*texts, strict=True), strict=True))
    return contradictory_labels(Dataset.from_dict({**columns, "label": labels}), task, "train rows")


@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=12))
def test_it_counts_what_a_loop_over_pairs_counts(rows: list[tuple[str, int]]) -> None:
    """Of so few rows each is more than a hundredth."""
    contradicting = [text for text, label in rows if any(text == t and label != k for t, k in rows)]
    sentence = found([(text,) for text, _ in rows], [label for _, label in rows])
    if not contradicting:
        assert sentence is None
    else:
        assert sentence is not None
        assert sentence.startswith(f"{len(contradicting)} of {len(rows)} train rows contradict another: ")
        assert f"{len({*contradicting})} text" in sentence


def test_a_few_among_many_are_not_named() -> None:
    rows = [(f"row {k}",) for k in range(198)] + [("same",), ("same",)]
    assert found(rows, [0] * 199 + [1]) is None
    assert found(rows[1:], [0] * 198 + [1]) is not None


def test_pairs_are_compared_whole_and_scores_are_not() -> None:
    assert found([("a", "b"), ("a", "c")], [0, 1], TASKS["mrpc"]) is None
    assert found([("a", "b"), ("a", "b")], [0, 1], TASKS["mrpc"]) is not None
    assert found([("a", "b"), ("a", "b")], [0.0, 1.0], TASKS["stsb"]) is None


@pytest.mark.parametrize(
    ("label", "other", "named"),
    [
        ("refund", "login", "'refund' and 'login'"),
        (["a"], ["a", "b"], "'a' and 'a b'"),
        (["a", "b"], [], "'a b' and 'none'"),
    ],
)
def test_the_data_name_an_example(label: Any, other: Any, named: str, tmp_path: Any) -> None:
    rows = [{"text": f"text {k}", "label": [label, other][k % 2]} for k in range(20)]
    rows += [{"text": "twice", "label": label}, {"text": "twice", "label": other}]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    undivided = DataChoice(str(tmp_path / "train.jsonl"), validation_share=0.5)
    (warning,) = (w for w in read_splits(undivided).warnings if "contradict" in w)
    assert warning.startswith("2 of 22 rows contradict")
    warnings = read_splits(DataChoice(str(tmp_path))).warnings
    assert [w.partition(" rows")[0] for w in warnings if "contradict" in w] == [
        "2 of 22 train",
        "2 of 22 validation",
    ]
    assert all(
        f"1 text occurs with different labels, such as 'twice' with {n}" in w
        for w in warnings
        for n in [named]
    )
