"""Texts in windows, against loops by hand: which pieces, what follows for the text, in training, audit and predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit, softmax

from byte_level import byte_level
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.windowed_predictor import WindowedPredictor
from gradistill.commands.audit import audit
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.predict import predict
from gradistill.commands.text_lengths import trained_windows
from gradistill.commands.text_predictor import load_predictor
from gradistill.data import DataChoice
from gradistill.data.changed_copies import Copy
from gradistill.data.windows import Windows, pooled, spans_of_windows
from gradistill.errors import RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.recipe import load_recipe
from small import BAD, GOOD, WORDS, audit_parts, logged, write_table
from wordpiece import tokenizer

LENGTH, OVERLAP = 10, 3


def by_hand(words: list[str], room: int, overlap: int) -> list[str]:
    """Windows of words of which each is one token."""
    found, start = [], 0
    while True:
        found.append(" ".join(words[start : start + room]))
        if start + room >= len(words):
            return found
        start += room - overlap


@pytest.mark.parametrize("count", [1, 7, 8, 9, 13, 14, 29])
def test_windows_of_words_are_those_of_a_loop(count: int) -> None:
    words = [WORDS[5 + k % 12] for k in range(count)]
    text = " ".join(words)
    (spans,) = spans_of_windows([text], tokenizer(WORDS), LENGTH, OVERLAP)
    assert [text[start:end] for start, end in spans] == by_hand(words, LENGTH - 2, OVERLAP)


def test_every_word_is_read_whole_and_no_window_is_longer_than_the_length() -> None:
    reader = byte_level(["a fine film, and unbelievably dull words"] * 3)
    text = "  a fine unbelievably dull film,\n and words " * 6 + "x" * 60 + " a fine film "
    (spans,) = spans_of_windows([text], reader, 24, 6)
    pieces = [text[start:end] for start, end in spans]
    assert len(pieces) > 3
    assert all(len(ids) <= 24 for ids in reader(pieces)["input_ids"])
    covered = np.zeros(len(text), bool)
    for start, end in spans:
        covered[start:end] = True
    assert "".join(np.array(list(text))[~covered]).strip() == "", "only white space is in no window"
    whole = [piece for piece in pieces if "x" not in piece]
    assert set(" ".join(whole).split()) == set(text.replace("x", "").split()), "no word is divided that fits"


def test_a_long_word_repeats_no_window_and_blanks_are_none() -> None:
    """The words before a link were read dozens of times, and so decided about a mean."""
    reader = byte_level(["a fine film, and unbelievably dull words"] * 3)
    for text in (
        "a fine film and dull words " * 6 + "x/" * 60 + " a fine film " * 6,
        "a fine film " * 4 + " " * 60 + "y" * 60 + "\n" * 50 + "dull words " * 3,
        " " * 40 + "x" * 70,
    ):
        (spans,) = spans_of_windows([text], reader, 24, 6)
        ends = [end for _, end in spans]
        assert ends == sorted({*ends}), "each window reads on"
        assert all(text[start:end].strip() for start, end in spans)
        covered = {place for start, end in spans for place in range(start, end)}
        assert not "".join(sign for place, sign in enumerate(text) if place not in covered).strip()
    (blank,) = spans_of_windows(["\n" * 90], reader, 24, 6)
    assert len(blank) == 1


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling(pool: Any) -> None:
    windows, logits = Windows(pool, 3), np.random.default_rng(0).normal(size=(2, 5, 3))
    over = np.mean if pool == "mean" else np.max
    found = pooled(logits, [1, 3, 1], windows)
    assert found[:, [0, 2]].tobytes() == logits[:, [0, 4]].tobytes(), "a text of one window stays as it is"
    wanted = over(softmax(logits[:, 1:4], axis=-1), axis=1)
    assert softmax(found[:, 1], axis=-1) == pytest.approx(wanted / wanted.sum(-1, keepdims=True))
    several = pooled(logits, [1, 3, 1], windows, multi_label=True)[:, 1]
    assert several == pytest.approx(logit(over(expit(logits[:, 1:4]), axis=1)))
    assert pooled(logits[..., :1], [5], windows)[:, 0] == pytest.approx(over(logits[..., :1], axis=1))


@pytest.fixture(scope="module")
def long(small: Any) -> dict[str, Any]:
    """A teacher with windows of ten tokens, data whose label stands anywhere in up to 30 words, and its student."""
    folder = small.folder / "windows"
    rows = [
        {
            "text": " ".join(
                ["the"] * (k % 13) + [(BAD, GOOD)[k % 2][k % 3]] * 3 + ["was", "very"] * (k % 7)
            ),
            "label": ("no", "yes")[k % 2],
        }
        for k in range(24)
    ]
    for split in ("train", "validation"):
        write_table(folder / "data" / f"{split}.csv", rows)
    choice = DataChoice(str(folder / "data"), label_column="label", text_columns=("text",))
    shared = ["training.epochs=1", "training.batch_size=8", "training.learning_rate=0.01"]
    own = [f"training.max_length={LENGTH}", "training.windows=mean", f"training.window_overlap={OVERLAP}"]
    printed: list[str] = []
    with logged(printed):
        teacher = finetune(
            str(small.base), choice, folder / "teacher", load_recipe("finetune", changes=[*shared, *own])
        )
        student = distill(
            str(folder / "teacher"), choice, folder / "student",
            load_recipe("coalition", changes=[*shared, "student.layers=1"]),
        )  # fmt: skip
    return {
        "folder": folder,
        "choice": choice,
        "rows": rows,
        "printed": printed,
        "teacher": teacher,
        "student": student,
    }


def loop(folder: Path, texts: list[str], *, masked: str = "") -> np.ndarray:
    """The mean probabilities of the windows of each text, one forward pass a window."""
    model, reader = load_classifier(folder)[0].eval(), load_tokenizer(folder)
    found = []
    for text in texts:
        each = []
        for window in by_hand(text.split(), LENGTH - 2, OVERLAP):
            shown = window.replace(masked, "[MASK]") if masked else window
            with torch.no_grad():
                each.append(model(**reader(shown, return_tensors="pt")).logits[0].softmax(-1).numpy())
        found.append(np.mean(each, axis=0))
    return np.array(found)


def test_predictions_are_the_means_of_a_loop(long: Any, tmp_path: Path) -> None:
    folder, texts = long["folder"] / "student", [row["text"] for row in long["rows"]]
    assert trained_windows(folder) == trained_windows(long["folder"] / "teacher") == Windows("mean", OVERLAP)
    predictor = load_predictor(folder)
    assert predictor(texts) == pytest.approx(loop(folder, texts), abs=1e-6)
    found = predict(folder, long["folder"] / "data" / "validation.csv", tmp_path / "out.csv")
    several = sum(len(text.split()) > LENGTH - 2 for text in texts)
    assert (found["cut"], found["windowed"]) == (0, several)
    assert "True" not in (tmp_path / "out.csv").read_text()
    fitting = [text for text in texts if len(text.split()) <= LENGTH - 2]
    cutting = ClassifierPredictor(load_classifier(folder)[0], load_tokenizer(folder), LENGTH)
    whole = WindowedPredictor(cutting, Windows("mean", OVERLAP))
    both = [one.logits([Copy((text,)) for text in fitting]) for one in (cutting, whole)]
    assert both[0].tobytes() == both[1].tobytes(), "what fits is predicted as before"


def test_masked_copies_have_the_windows_of_their_text(long: Any) -> None:
    folder, text = long["folder"] / "student", long["rows"][11]["text"]
    cutting = ClassifierPredictor(load_classifier(folder)[0], load_tokenizer(folder), LENGTH)
    kept = np.array([word != "the" for word in text.split()])
    assert (~kept).sum() > LENGTH
    found = WindowedPredictor(cutting, Windows("mean", OVERLAP)).logits([Copy((text,), kept)])
    assert softmax(found[0], axis=-1) == pytest.approx(loop(folder, [text], masked="the"), abs=1e-6)


def test_runs_evaluate_texts_and_train_on_windows(long: Any) -> None:
    texts = [row["text"] for row in long["rows"]]
    several = sum(len(text.split()) > LENGTH - 2 for text in texts)
    windows = sum(len(by_hand(text.split(), LENGTH - 2, OVERLAP)) for text in texts)
    longest = 2 + max(len(text.split()) for text in texts)
    line = f"validation: {several} of 24 texts have more than one window of {LENGTH} tokens (the longest has {longest})"
    assert f"{line}; {windows} windows, overlap {OVERLAP}, mean" in long["printed"]
    assert any(line.startswith("saliency loyalty is left out") for line in long["printed"])
    for role in ("teacher", "student"):
        metrics, folder = long[role], long["folder"] / role
        predicted = loop(folder, texts).argmax(-1)
        accuracy = np.mean(predicted == [row["label"] == "yes" for row in long["rows"]])
        assert metrics["eval"]["accuracy"] == pytest.approx(accuracy)
        assert metrics["texts"]["windows"] == "mean"
        assert metrics["texts"]["validation"] == {
            "cut": 0,
            "rows": 24,
            "longest": longest,
            "windowed": several,
        }
    assert long["student"]["loyalty"]["saliency"] is None
    taught, own = (loop(long["folder"] / role, texts).argmax(-1) for role in ("teacher", "student"))
    assert long["student"]["loyalty"]["label"]["value"] == pytest.approx(np.mean(taught == own))
    written = load_recipe(file=long["folder"] / "student" / "recipe.yaml")
    assert written.windows == Windows("mean", OVERLAP)


@pytest.mark.slow
def test_an_audit_reads_windows_and_leaves_maps_out(long: Any, tmp_path: Path) -> None:
    few = audit_parts(faithfulness_rows=1, response_rows=3, floor_rows=4, cascade=True)
    folder = long["folder"]
    found = audit(str(folder / "teacher"), [str(folder / "student")], long["choice"], tmp_path / "a", few)
    assert found["metrics"]["teacher"]["accuracy"] == long["teacher"]["eval"]["accuracy"]
    assert "saliency" not in found["students"][0]["figures"]["loyalty"]
    assert any("texts of several windows have no map" in line for line in found["warnings"])
    assert found["texts"]["window_overlap"] == OVERLAP
    rows = [{"text": "the film was fine", "label": "yes"}, {"text": "a dull film it was", "label": "no"}] * 3
    small_rows = DataChoice({"validation": rows}, label_column="label", text_columns=("text",))
    short = audit(str(folder / "teacher"), [str(folder / "student")], small_rows, tmp_path / "b", few)
    assert "saliency" in short["students"][0]["figures"]["loyalty"], "where every text fits all is measured"
    json.dumps(short)
    bare = shutil.copytree(
        folder / "teacher", tmp_path / "hub", ignore=shutil.ignore_patterns("metrics.json")
    )
    again = audit(str(bare), [str(folder / "student")], long["choice"], tmp_path / "c", few)
    assert again["texts"]["window_overlap"] == OVERLAP, "a teacher without a record settles nothing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.window_overlap=4"], "long texts are cut"),
        (
            ["training.windows=mean", "training.window_overlap=8", "training.max_length=10"],
            "room for 8 tokens",
        ),
    ],
)
def test_settings_that_do_nothing_are_refused(
    changes: list[str], message: str, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        finetune(
            str(small.base), small.choice("two"), tmp_path / "x", load_recipe("finetune", changes=changes)
        )


def test_pairs_have_no_windows(small: Any, tmp_path: Path) -> None:
    recipe = load_recipe("finetune", changes=["training.windows=max"])
    with pytest.raises(RecipeError, match="none for pairs of texts"):
        finetune(str(small.base), small.choice("three"), tmp_path / "x", recipe)
