"""Which words a prediction rests on: complete, of the label that was asked for, with a word about what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradistill.errors import DataError, RecipeError
from gradistill.jobs import explain as room
from gradistill.jobs.explain import explain, explain_with
from gradistill.models.loading import load_classifier, load_tokenizer

TEXT = "the film was very great ."


def total(explanation: Any) -> float:
    return sum(word.score for word in explanation.words)


@pytest.mark.parametrize("baseline", ["padding", "zero"])
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


def test_steps_double_until_they_suffice(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    residuals = iter([0.5, -0.01, 0.0005])

    def attributed(model: Any, batch: Any, wordless: Any, label: Any, steps: int) -> Any:
        taken.append(steps)
        tokens = batch.mask.shape[1]
        return torch.zeros(tokens, 16), torch.zeros(2), next(residuals), 0

    monkeypatch.setattr(room, "_attributed", attributed)
    assert "200 Gauss" in explain(str(small.teachers["two"]), [TEXT]).method
    assert taken == [50, 100, 200]
    residuals, taken[:] = iter([0.5]), []
    assert "7 Gauss" in explain(str(small.teachers["two"]), [TEXT], steps=7).method
    assert taken == [7]


def test_two_labels_speak_against_each_other(small: Any) -> None:
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


def test_a_loaded_model_says_the_same(small: Any) -> None:
    folder = small.teachers["two"]
    model, _ = load_classifier(folder)
    again = explain_with(model.eval(), load_tokenizer(folder), [TEXT], name=str(folder), steps=5)
    assert again == explain(str(folder), [TEXT], steps=5)


@pytest.mark.parametrize(
    ("texts", "label", "error", "message"),
    [
        ([], None, DataError, r"(?s)0 texts came.*one text, or two"),
        (["  "], None, DataError, "or an empty one"),
        ([TEXT, ""], None, DataError, "or an empty one"),
        ([TEXT] * 3, None, DataError, "3 texts came"),
        ([TEXT], "neutral", RecipeError, r"(?s)no label 'neutral'.*negative, positive"),
    ],
)
def test_what_cannot_be_explained(texts: list[str], label: Any, error: Any, message: str, small: Any) -> None:
    with pytest.raises(error, match=message):
        explain(str(small.teachers["two"]), texts, label=label, steps=2)
