"""The order of classes: data follow the model where names agree, and are refused where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from gradistill.data.labels import align_labels
from gradistill.data.loading import Splits
from gradistill.data.tasks import TASKS, Task, compute_metrics
from gradistill.errors import DataError


def splits_of(labels: tuple[str, ...] | None) -> Splits:
    metrics = ("spearman",) if labels is None else ("f1",)
    task = Task("mine", ("text",), labels, metrics, metrics[0])
    ids = [0.5, 2.0] if labels is None else list(range(len(labels)))
    rows = Dataset.from_dict({"text": ["x"] * len(ids), "label": ids, "index": list(range(len(ids)))})
    return Splits(task, False, {"train": rows})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("no", "yes"), {0: "LABEL_0", 1: "LABEL_1"}),
        (("0", "1"), {0: "no", 1: "yes"}),
        (("-1", "1"), {0: "0", 1: "1"}),
        (("no", "yes"), {0: "No", 1: "YES"}),
        (("not_equal", "equal"), {1: "Equal", 0: "not-equal"}),
        (None, {0: "LABEL_0"}),
        (None, {0: "score"}),
    ],
)
def test_what_agrees_is_left_alone(ours: tuple[str, ...] | None, theirs: dict[int, str]) -> None:
    splits = splits_of(ours)
    assert align_labels(splits, theirs) is splits


def test_another_order_renumbers_the_data() -> None:
    splits = align_labels(
        splits_of(("entailment", "neutral", "not_sure")), {0: "Not sure", 1: "ENTAILMENT", 2: "neutral"}
    )
    assert splits.task.labels == ("not_sure", "entailment", "neutral")
    rows = splits.rows["train"]
    assert rows["label"][:] == [1, 2, 0]
    assert rows["index"][:] == [0, 1, 2]
    assert rows.features["label"].dtype == "int64"


def test_the_positive_class_keeps_its_name() -> None:
    before = Splits(TASKS["mrpc"], False, {})
    after = align_labels(before, {0: "equivalent", 1: "not_equivalent"})
    logits, labels = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    assert after.task.labels == ("equivalent", "not_equivalent")
    assert compute_metrics(after.task, logits[:, ::-1], 1 - labels) == compute_metrics(
        before.task, logits, labels
    )


def test_other_names_are_refused_with_both_lists() -> None:
    with pytest.raises(DataError, match=r"student: good, bad\n  data: no, yes(.|\n)*id2label"):
        align_labels(splits_of(("no", "yes")), {0: "good", 1: "bad"}, owner="student")


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            ("no", "yes"),
            {0: "a", 1: "b", 2: "c"},
            r"teacher has 3 outputs \(a, b, c\), the data have 2 labels",
        ),
        (("0", "1"), {0: "LABEL_0"}, r"teacher has 1 outputs \(LABEL_0\), the data have 2 labels \(0, 1\)"),
        (None, {0: "no", 1: "yes"}, r"the data have scores \(one output\)"),
    ],
)
def test_another_count_is_refused(ours: tuple[str, ...] | None, theirs: dict[int, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        align_labels(splits_of(ours), theirs)
