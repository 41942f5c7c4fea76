"""Rows from the hub, with a data set of our own in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from gradistill.data.split_loading import load_splits
from gradistill.data.tasks import TASKS
from gradistill.errors import DataError

Hub = Callable[..., list]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Puts data sets in the hub's place; returns the list of what is then asked for."""

    def serve(answer: DatasetDict | Exception) -> list:
        asked = []

        def load_dataset(*args: object) -> DatasetDict:
            asked.append(args)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def hub_split(names: list[str], labels: list[int | None], **texts: list[str]) -> Dataset:
    features = Features(
        {**{t: Value("string") for t in texts}, "label": ClassLabel(names=names), "idx": Value("int32")}
    )
    return Dataset.from_dict({**texts, "label": labels, "idx": list(range(len(labels)))}, features=features)


def test_glue_on_the_hub_names_its_task(hub: Hub) -> None:
    split = hub_split(["negative", "positive"], [1, 0], sentence=["x", "10"])
    asked = hub(DatasetDict(train=split, validation=split))
    splits = load_splits("glue/sst2")
    assert asked == [("nyu-mll/glue", "sst2")]
    assert splits.task == TASKS["sst2"]
    assert not splits.inferred
    assert splits.rows["validation"]["sentence"][:] == ["x", "10"]
    assert splits.rows["validation"]["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("source", "asked"), [("owner/name", ("owner/name", None)), ("o/n:some", ("o/n", "some"))]
)
def test_a_hub_id_and_its_declared_classes(hub: Hub, source: str, asked: tuple) -> None:
    split = hub_split(["neg", "pos", "unseen"], [1, 0], text=["x", "y"])
    calls = hub(DatasetDict(train=split, validation=split))
    splits = load_splits(source)
    assert calls == [asked]
    assert splits.task.labels == ("neg", "pos", "unseen")
    assert splits.rows["train"]["label"][:] == [1, 0]


def test_a_hub_with_another_order_of_names_is_read_by_name(hub: Hub) -> None:
    split = hub_split(["positive", "negative"], [0, 1], sentence=["good", "bad"])
    hub(DatasetDict(train=split))
    assert load_splits("o/n", task="sst2", splits=("train",)).rows["train"]["label"][:] == [1, 0]


def test_snli_leaves_rows_without_agreement_out(hub: Hub) -> None:
    names = ["entailment", "neutral", "contradiction"]
    split = hub_split(names, [2, -1, 0], premise=["a", "b", "c"], hypothesis=["x", "y", "z"])
    hub(DatasetDict(train=split))
    splits = load_splits("stanfordnlp/snli", splits=("train",))
    assert splits.rows["train"]["premise"][:] == ["a", "c"]
    assert splits.rows["train"]["index"][:] == [0, 1]
    assert splits.skipped == {"train": 1}
    assert "1 unlabelled left out" in splits.describe()


def test_a_path_goes_before_the_hub(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(ConnectionError("not asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue/sst2").mkdir(parents=True)
    (tmp_path / "glue/sst2/train.csv").write_text("sentence,label\nx,1\n")
    assert load_splits("glue/sst2", splits=("train",)).rows["train"].num_rows == 1
    assert asked == []


def test_a_hub_that_cannot_be_reached(hub: Hub) -> None:
    hub(ConnectionError("Couldn't reach 'o/n'\non the Hub"))
    with pytest.raises(
        DataError, match=r"cannot be loaded from the hub\. ConnectionError: Couldn't reach 'o/n' on the Hub\n"
    ):
        load_splits("o/n")


def test_hidden_labels_of_a_hub_split_are_missing(hub: Hub) -> None:
    hub(DatasetDict(test=hub_split(["negative", "positive"], [-1, -1], sentence=["x", "y"])))
    with pytest.raises(
        DataError, match=r"2 problems(.|\n)*glue/sst2 \(test\), row 1, column 'label': missing label"
    ):
        load_splits("glue/sst2", splits=("test",))
    scored = Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [-1.0, -1.0]})
    hub(DatasetDict(test=scored))
    with pytest.raises(DataError, match=r"row 2, column 'label': missing label \(-1"):
        load_splits("glue/stsb", splits=("test",))


def test_a_split_that_the_hub_lacks(hub: Hub) -> None:
    hub(DatasetDict(train=hub_split(["a", "b"], [0, 1], text=["x", "y"])))
    with pytest.raises(DataError, match="no 'validation' split; the data set has train"):
        load_splits("o/n")


def test_glue_has_no_such_task(hub: Hub) -> None:
    hub(DatasetDict())
    with pytest.raises(DataError, match=r"GLUE has no task 'sst'(.|\n)*'glue/sst2'"):
        load_splits("glue/sst")
