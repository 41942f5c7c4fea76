"""Words with a tag each through whole jobs: a teacher, students."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.signal_stores import StoreChoice
from gradistill.data import DataChoice
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.loading import load_classifier
from gradistill.recipe import load_recipe
from small import BAD, GOOD

NAMES = ("O", "B-bad", "I-bad", "B-good", "I-good")


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Opinion words are spans, of one word or of two."""
    found = []
    for k in range(first, first + count):
        words, tags = ["the", "film", "was", *["very"] * (k % 3)], ["O"] * (3 + k % 3)
        for kind, opinions, there in (("good", GOOD, k % 2), ("bad", BAD, k // 2 % 2)):
            if there:
                words += [opinions[k % 3], *[opinions[(k + 1) % 3]] * (k % 2)]
                tags += [f"B-{kind}", *[f"I-{kind}"] * (k % 2)]
        found.append({"tokens": [*words, "."], "tags": [*tags, "O"]})
    return found


DATA = {"train": rows(48), "validation": rows(16, 3), "test": rows(8, 7)}


@pytest.fixture(scope="module")
def runs(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    quick = ["training.epochs=10", "training.batch_size=8", "training.learning_rate=0.02"]
    finetune(str(small.base), DATA, folder / "teacher", load_recipe("finetune", changes=quick))
    return folder


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def student(runs: Path, name: str, method: str = "kd", *changes: str, **options: Any) -> dict[str, Any]:
    quick = ("training.epochs=2", "training.batch_size=16", "student.layers=2", *changes)
    data = options.pop("data", DATA)
    return distill(str(runs / "teacher"), data, runs / name, load_recipe(method, changes=quick), **options)


def test_a_teacher_has_metrics_of_spans_and_words(runs: Path) -> None:
    found = record(runs / "teacher")
    assert list(found["eval"]) == ["span_f1", "span_precision", "span_recall", "accuracy"]
    assert found["eval"]["span_f1"] > 0.6
    assert found["test"]["span_f1"] > 0.4
    model, _ = load_classifier(runs / "teacher", tokens=True)
    assert type(model).__name__ == "BertForTokenClassification"
    assert tuple(model.config.id2label.values()) == NAMES
    assert "span\\_f1" in (runs / "teacher" / "README.md").read_text(encoding="utf-8").replace(
        "span_f1", "span\\_f1"
    )


def test_a_student_has_loyalties_of_words_and_spans_with_floors(runs: Path) -> None:
    found = student(runs, "kd")
    loyal = found["loyalty"]
    for name in ("label", "probability", "span"):
        assert loyal[name]["n"] == 16  # rows are resampled, not words
        assert loyal[name]["low"] <= loyal[name]["value"] <= loyal[name]["high"]
        assert loyal[name]["floor"] is not None
    assert loyal["response"] is None
    assert loyal["saliency"] is None
    assert found["test"]["span_f1"] >= 0
    assert "teacher_test" in found
    assert (runs / "kd" / "README.md").is_file()


def test_a_store_and_the_live_teacher_give_the_same_student(runs: Path) -> None:
    student(runs, "online", signals=StoreChoice("online"))
    weights = [load_classifier(runs / name, tokens=True)[0].state_dict() for name in ("kd", "online")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_states_of_every_token_can_be_taught_too(runs: Path) -> None:
    found = student(runs, "hidden", "kd", "objectives.hidden_states={}")
    assert np.isfinite(found["eval"]["accuracy"])


def test_methods_without_meaning_are_refused_by_name(runs: Path) -> None:
    with pytest.raises(RecipeError, match="the objective attribution_map is of .* every word has a label"):
        student(runs, "adkd", "adkd")
    assert not (runs / "adkd").exists()
    with pytest.raises(RecipeError, match="a tag for each word"):
        student(runs, "unlabelled", data=DataChoice(DATA, unlabelled=[{"tokens": ["a"]}]))


def test_models_of_another_kind_are_refused(runs: Path, small: Any) -> None:
    with pytest.raises(
        DataError, match="The data have a tag for each word, and the teacher predicts one label"
    ):
        distill(str(small.teachers["two"]), DATA, runs / "no", load_recipe("kd"))
    with pytest.raises(
        DataError, match="The data have one label for a text, and the teacher predicts a tag for each"
    ):
        distill(str(runs / "teacher"), small.choice("two"), runs / "no", load_recipe("kd"))
    with pytest.raises(ModelError, match="BertForTokenClassification: it labels the tokens of a text"):
        load_classifier(runs / "teacher")
