"""The order of classes: data follow the model where names agree, and are refused where they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from gradistill.data.data_choice import DataChoice
from gradistill.data.label_alignment import align_labels
from gradistill.data.label_matching import Outputs, match_names
from gradistill.data.split_loading import read_splits
from gradistill.data.splits import Splits
from gradistill.data.tasks import TASKS, Task, compute_metrics
from gradistill.errors import DataError


def splits_of(labels: tuple[str, ...] | None, *, alphabetical: bool = False) -> Splits:
    metrics = ("spearman",) if labels is None else ("accuracy",)
    task = Task("mine", ("text",), labels, metrics, metrics[0])
    ids = [0.5, 2.0] if labels is None else list(range(len(labels)))
    rows = Dataset.from_dict({"text": ["x"] * len(ids), "label": ids, "index": list(range(len(ids)))})
    return Splits(task, alphabetical, {"train": rows}, alphabetical=alphabetical)


def outputs(*names: str) -> dict[int, str]:
    return dict(enumerate(names))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("0", "1"), outputs("LABEL_0", "LABEL_1")),
        (("no", "yes"), outputs("No", "YES")),
        (("not_equal", "equal"), {1: "Equal", 0: "not-equal"}),
        (("not_entailment", "entailment"), outputs("Not-Entailment!", "entailment")),
        (("1", "2"), outputs("1", "2")),
        (None, outputs("LABEL_0")),
        (None, outputs("score")),
    ],
)
def test_what_agrees_is_left_alone(ours: tuple[str, ...] | None, theirs: dict[int, str]) -> None:
    splits = splits_of(ours)
    assert align_labels(splits, theirs) is splits


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("delivery", "login", "refund"), outputs("LABEL_0", "LABEL_1", "LABEL_2")),
        (("bad", "good"), outputs("0", "1")),
        (("1", "2", "3"), outputs("LABEL_0", "LABEL_1", "LABEL_2")),
        (("-1", "1"), outputs("0", "1")),
        (("delivery", "login"), outputs("login", "shipping")),
    ],
)
def test_names_that_do_not_match_are_refused_with_both_lists(
    ours: tuple[str, ...], theirs: dict[int, str]
) -> None:
    """Alphabetical order is ours: that a teacher was trained in it is a guess."""
    with pytest.raises(DataError) as caught:
        align_labels(splits_of(ours, alphabetical=True), theirs)
    message = str(caught.value)
    for mine, name in zip(ours, theirs.values(), strict=True):
        assert any(repr(mine) in line and repr(name) in line for line in message.splitlines())
    assert f'--label-map "{ours[0]}=…,{ours[1]}=…' in message


def test_a_label_map_settles_which_is_which() -> None:
    splits = splits_of(("delivery", "login", "refund"), alphabetical=True)
    theirs = outputs("LABEL_0", "LABEL_1", "LABEL_2")
    found = align_labels(splits, theirs, label_map={"Refund": "LABEL_0", "login": "2", "delivery": "label_1"})
    assert found.task.labels == ("refund", "delivery", "login")
    assert found.rows["train"]["label"][:] == [1, 2, 0]
    partly = align_labels(
        splits_of(("a", "b", "c"), alphabetical=True), outputs("c", "x", "b"), label_map={"a": "x"}
    )
    assert partly.task.labels == ("c", "a", "b")


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"refunds": "LABEL_0"}, "the data have no label 'refunds'.(.|\n)*did you mean 'refund'"),
        ({"refund": "LABEL_3"}, "no output 'LABEL_3'"),
        ({"refund": "LABEL_0", "login": "LABEL_0"}, "'LABEL_0' is named twice"),
        ({"refund": "LABEL_0"}, 'not certain(.|\n)*"login=…,refund=LABEL_0"'),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused(label_map: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        align_labels(splits_of(("login", "refund")), outputs("LABEL_0", "LABEL_1"), label_map=label_map)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("-1", "0"), ("0", "1")),
        (("-2", "-1", "0"), ("0", "1", "2")),
        (("A-", "B"), ("A+", "B")),
        (("A", "B"), ("A-", "B")),
        (("C#", "Java"), ("C++", "Java")),
        (("a -", "b"), ("a +", "b")),
    ],
)
def test_signs_make_another_name(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    assert match_names(ours, theirs) is match_names(theirs, ours) is None
    assert Outputs(theirs).completed(ours) is None


def test_classes_without_rows_are_named() -> None:
    splits = splits_of(tuple("abcdefghi"))
    rows = splits.rows["train"].select([0, 8])
    printed = replace(splits, rows={"train": rows}).describe()
    assert printed.rstrip().endswith("i: 1; no rows of b, c, d, e, f and 2 classes more")
    assert "no rows of" not in splits.describe()


def test_short_forms_complete_the_classes_of_a_split_that_lacks_some() -> None:
    """An audit of one class alone: the data write pos, the model's outputs are negative and positive."""
    outputs_of = Outputs(("negative", "positive"))
    assert outputs_of.completed(["pos"]) == ("negative", "pos")
    assert outputs_of.completed(["po"]) is None  # too short
    assert Outputs(("positive", "possible", "no")).completed(["pos"]) is None  # the beginning of two


def test_hyphens_within_names_do_not_matter() -> None:
    found = match_names(("not_entailed", "e-mail"), ("E Mail", "Not-Entailed"))
    assert found is not None
    assert found.positions == (1, 0)


def test_short_forms_are_matched_and_noted() -> None:
    found = align_labels(
        splits_of(("negative", "neutral", "positive"), alphabetical=True), outputs("POS", "NEG", "NEU")
    )
    assert found.task.labels == ("positive", "negative", "neutral")
    assert "positive = POS" in found.describe()
    with pytest.raises(DataError, match="not certain"):  # a beginning of both
        align_labels(splits_of(("neural", "neutral"), alphabetical=True), outputs("neu", "neut"))


def test_the_order_of_a_known_task_is_assumed_and_noted() -> None:
    splits = align_labels(Splits(TASKS["sst2"], False, {}), outputs("LABEL_0", "LABEL_1"))
    assert splits.task is TASKS["sst2"]
    assert (
        "the order of the task sst2 is assumed: LABEL_0 = negative, LABEL_1 = positive" in splits.remarks[0]
    )


def test_class_ids_are_the_numbers_of_the_outputs() -> None:
    assert "0 = no, 1 = yes" in align_labels(splits_of(("0", "1")), outputs("no", "yes")).remarks[0]
    turned = align_labels(splits_of(("0", "1")), outputs("LABEL_1", "LABEL_0"))
    assert turned.task.labels == ("1", "0")


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
    with pytest.raises(
        DataError, match=r"output of the student:\n(.|\n)*'good' +'no'\n +'bad' +'yes'(.|\n)*id2label"
    ):
        align_labels(splits_of(("no", "yes")), {0: "good", 1: "bad"}, owner="student")


@pytest.mark.parametrize(
    ("ours", "theirs", "printed"),
    [
        (
            ("no", "yes"),
            {0: "a", 1: "b", 2: "c"},
            r"teacher has 3 outputs \(a, b, c\), the data have 2 labels",
        ),
        (("0", "1"), {0: "LABEL_0"}, r"teacher has one output, a score, the data have 2 labels \(0, 1\)"),
        (None, {0: "no", 1: "yes"}, r"the data have scores \(one output\)"),
    ],
)
def test_another_count_is_refused(ours: tuple[str, ...] | None, theirs: dict[int, str], printed: str) -> None:
    with pytest.raises(DataError, match=printed):
        align_labels(splits_of(ours), theirs)


def read_for(labels: list[object], outputs: Outputs, column: str = "label", **given: Any) -> Splits:
    """Two rows a label, read for a model."""
    texts = [f"the film number {k} was seen" for k in range(2 * len(labels))]
    rows = [{"text": text, column: label} for text, label in zip(texts, labels * 2, strict=True)]
    splits = read_splits(DataChoice({"validation": rows}, **given), ("validation",), outputs=outputs)
    return align_labels(splits, dict(enumerate(outputs.names)), label_map=given.get("label_map"))


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        (["refund", "Login"], ("login", "delivery", "refund"), [2, 0]),
        (["refund"], ("login", "delivery", "refund"), [2]),
        (["not-sure", "no"], ("yes", "no", "Not sure"), [2, 1]),
        (["no", "yes"], ("yes", "no"), [1, 0]),
        ([1, 3], ("1", "2", "3"), [0, 2]),
        ([1, 3], ("score",), [1.0, 3.0]),  # whole numbers, but the model predicts a score
        ([["fear"], ["fear", "joy"]], ("anger", "fear", "joy"), [[0, 1, 0], [0, 1, 1]]),
    ],
)
def test_rows_for_a_model_need_not_have_all_its_classes(
    labels: list[object], names: tuple[str, ...], ids: list[object]
) -> None:
    """As a sample of new rows has them: of 77 classes it may hold 20."""
    splits = read_for(labels, Outputs(names))
    assert splits.rows["validation"]["label"][:] == ids * 2
    assert splits.task.num_labels == len(names)


def test_a_label_map_may_leave_classes_out() -> None:
    names, pairs = ("LABEL_0", "LABEL_1", "LABEL_2"), {"refund": "LABEL_2", "login": "LABEL_0"}
    splits = read_for(["login", "refund"], Outputs(names, pairs), label_map=pairs)
    assert splits.rows["validation"]["label"][:] == [0, 2, 0, 2]
    assert splits.task.labels == ("login", "LABEL_1", "refund")


@pytest.mark.parametrize("labels", [["refund", "other"], [0, 1], ["LABEL_0", "1"]])
def test_labels_that_no_output_is_called_like_are_refused(labels: list[object]) -> None:
    """Two class ids may be those of another task: that they are two of three is a guess."""
    with pytest.raises(DataError, match="3 outputs"):
        read_for(labels, Outputs(("login", "delivery", "refund")))
