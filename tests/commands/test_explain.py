"""Which words a prediction rests on: complete, of the label that was asked for, with a word about what cannot be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gradistill.commands import explain as room
from gradistill.commands.explain import explain
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer

TEXT = "the film was very great ."


def total(explanation: Any) -> float:
    return sum(word.score for word in explanation.words)


@pytest.mark.parametrize("baseline", ["padding", "mask", "zero"])
def test_scores_and_probabilities_fit_the_model(baseline: Any, small: Any) -> None:
    found = explain(str(small.teachers["two"]), [TEXT], baseline=baseline)
    model, _ = load_classifier(small.teachers["two"])
    with torch.no_grad():
        probabilities = (
            model.eval()(**load_tokenizer(small.teachers["two"])(TEXT, return_tensors="pt"))
            .logits[0]
            .softmax(-1)
        )
    assert list(found.probabilities) == ["negative", "positive"]
    assert list(found.probabilities.values()) == pytest.approx(probabilities.tolist(), abs=1e-6)  # float32
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    assert [word.text for word in found.words] == TEXT.split()
    assert abs(found.residual) <= room.TOLERANCE
    assert f"{baseline} baseline" in found.method


def test_one_text_need_not_be_a_list(small: Any) -> None:
    model = str(small.teachers["two"])
    assert explain(model, TEXT).ranked == explain(model, [TEXT]).ranked


def test_nodes_are_as_many_as_needed_or_as_given(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def nodes(**options: Any) -> int:
        method = explain(str(small.teachers["two"]), [TEXT], **options).method
        return int(re.search(r"(\d+) (?:adaptive|Gauss)", method)[1])

    monkeypatch.setattr(room, "TOLERANCE", 0.1)
    few = nodes()
    monkeypatch.setattr(room, "TOLERANCE", 1e-5)
    assert few < nodes() <= room.MAX_NODES
    monkeypatch.setattr(room, "MAX_NODES", 9)
    assert nodes() == 9
    assert nodes(steps=7) == 7


def test_tokens_of_the_data_are_no_baseline_of_one_text(small: Any) -> None:
    with pytest.raises(RecipeError, match="(?s)'tokens' is no baseline.*Known: mask, padding, zero"):
        explain(str(small.teachers["two"]), [TEXT], baseline="tokens")


def test_two_labels_have_opposite_maps(small: Any) -> None:
    found = {
        name: explain(str(small.teachers["two"]), [TEXT], label=name.upper(), steps=20)
        for name in ("negative", "positive")
    }
    assert {name: e.label for name, e in found.items()} == {"negative": "negative", "positive": "positive"}
    for one, other in zip(found["negative"].words, found["positive"].words, strict=True):
        assert one.score == pytest.approx(
            -other.score, rel=1e-3, abs=1e-6
        )  # log-odds of one are minus the other's


def test_a_pair_has_two_texts(small: Any) -> None:
    found = explain(str(small.teachers["three"]), [TEXT, "a lovely one"], steps=5)
    assert [word.text for word in found.words if word.segment == 1] == ["a", "lovely", "one"]
    assert list(found.probabilities) == ["maybe", "no", "yes"]


def test_a_regression_explains_its_prediction(small: Any) -> None:
    found = explain(str(small.teachers["score"]), [TEXT, "a lovely one"], steps=50)
    assert (found.label, found.target, found.probabilities) == ("prediction", "prediction", None)
    assert isinstance(found.prediction, float)


def test_an_onnx_model_has_no_gradients(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    with pytest.raises(ModelError, match="is an ONNX model, which has no gradients"):
        explain(str(tmp_path), [TEXT])


def test_a_loaded_model_predicts_the_same(small: Any) -> None:
    folder = small.teachers["two"]
    model, _ = load_classifier(folder)
    again = explain((model, load_tokenizer(folder)), [TEXT], steps=5)
    assert replace(again, model=str(folder)) == explain(str(folder), [TEXT], steps=5)


@pytest.mark.parametrize("max_length", [0, 2])
def test_a_length_without_room_for_a_word_is_refused(max_length: int, small: Any) -> None:
    with pytest.raises(RecipeError, match="leaves no room for text"):
        explain(str(small.teachers["two"]), [TEXT], max_length=max_length)


@pytest.mark.parametrize(
    ("texts", "label", "error", "message"),
    [
        ([], None, DataError, r"(?s)There are 0 texts.*one text, or two"),
        (["  "], None, DataError, "the text is empty"),
        (None, None, RecipeError, "texts is None"),
        ([TEXT, None], None, RecipeError, "a text is None"),
        ([[TEXT]], None, RecipeError, "a text is of the type list"),
        ([TEXT, ""], None, DataError, "the text is empty"),
        (["half \ud83d"], None, DataError, "half of a surrogate pair"),
        (["\u200b"], None, DataError, "makes no token of the text '.u200b'"),
        ([TEXT] * 3, None, DataError, "There are 3 texts"),
        ([TEXT], "neutral", RecipeError, r"(?s)no label 'neutral'.*negative, positive"),
    ],
)
def test_what_cannot_be_explained(texts: list[str], label: Any, error: Any, message: str, small: Any) -> None:
    with pytest.raises(error, match=message):
        explain(str(small.teachers["two"]), texts, label=label, steps=2)


@pytest.mark.parametrize(("kind", "given"), [("two", ["one", "other"]), ("three", ["one alone"])])
def test_as_many_texts_as_the_model_was_trained_on(kind: str, given: list[str], small: Any) -> None:
    with pytest.raises(DataError, match=r"was trained on \d a row: text"):
        explain(str(small.teachers[kind]), given)
