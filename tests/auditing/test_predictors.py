"""ONNX models and functions as predictors, and their bad outputs."""

from __future__ import annotations

import json
import shutil
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from families import build
from gradistill.auditing.function_predictor import FunctionPredictor, function_at
from gradistill.auditing.mean_predictor import MeanPredictor
from gradistill.auditing.onnx_predictor import OnnxPredictor, onnx_file
from gradistill.auditing.predictor import ClassifierPredictor, Predictor, checked_logits, label_thresholds
from gradistill.commands.answer_sources import predictions_of
from gradistill.data.changed_copies import Copy
from gradistill.data.probabilities import LEAST
from gradistill.data.tasks import Task
from gradistill.errors import GradistillError, ModelError, RecipeError
from gradistill.models.facts import set_thresholds
from onnx_models import exported
from small import WORDS, logged
from wordpiece import tokenizer

PAIR = ("the film was very fine .", "a great one")
COPIES = [Copy(PAIR), Copy(PAIR, ~np.isin(np.arange(9), [1, 4, 8])), Copy(("dull", "one"))]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A tiny model and its export."""
    names = {0: "no", 1: "maybe", 2: "yes"}
    model = build("bert", labels=3, initializer_range=0.5, id2label=names)
    return model, exported(model, tokenizer(WORDS), tmp_path_factory.mktemp("onnx"))


def test_an_onnx_model_predicts_as_its_original(onnx: tuple[Any, Path]) -> None:
    model, folder = onnx
    found = OnnxPredictor.load(folder)
    assert isinstance(found, Predictor)
    assert (found.labels, found.can_mask, found.has_head) == (("no", "maybe", "yes"), True, False)
    wanted = ClassifierPredictor(model, tokenizer(WORDS)).logits(COPIES)
    assert found.logits(COPIES) == pytest.approx(wanted, abs=1e-4)
    assert np.abs(wanted[0, 0] - wanted[0, 1]).max() > 1e-2, "masks change nothing"
    turned = replace(found, order=(2, 0, 1))
    assert turned.logits(COPIES) == pytest.approx(wanted[:, :, [2, 0, 1]], abs=1e-4)
    with pytest.raises(GradistillError, match="no head to randomise"):
        found.logits(COPIES, heads=(0,))


def test_logits_of_a_pytorch_model_that_are_not_finite_name_the_first_text(onnx: tuple[Any, Path]) -> None:
    """As those of an ONNX model; rows run in another order than they stand in."""
    model = deepcopy(onnx[0])
    model.get_input_embeddings().weight.data[WORDS.index("dull")] = 3e38
    predictor = ClassifierPredictor(model, tokenizer(WORDS))
    for heads in ((), (0, 1)):
        assert np.isfinite(predictor.logits(COPIES[:2], heads=heads)).all()
        with pytest.raises(ModelError, match=r"NaN or infinite values for the text 'dull \| one'"):
            predictor.logits([*COPIES, Copy(("the film was very dull .", "dull"))], heads=heads)


def test_folders_with_an_onnx_model(onnx: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(onnx[1], tmp_path / "a")
    (tmp_path / "a" / "model.onnx").rename(tmp_path / "a" / "other.onnx")
    assert onnx_file(tmp_path / "a") == tmp_path / "a" / "other.onnx"
    shutil.copy(tmp_path / "a" / "other.onnx", tmp_path / "a" / "more.onnx")
    with pytest.raises(ModelError, match=r"several ONNX models: more.onnx, other.onnx"):
        onnx_file(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"")
    assert onnx_file(tmp_path / "a") is None
    assert onnx_file(tmp_path / "nowhere") is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"config.json"):
        OnnxPredictor.load(tmp_path / "b")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(onnx[1] / name, tmp_path / "b" / name)
    with pytest.raises(ModelError, match=r"model.onnx cannot be loaded"):
        OnnxPredictor.load(tmp_path / "b")


def test_without_onnxruntime_the_remedy_is_named(
    onnx: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'gradistill\[onnx\]'"):
        OnnxPredictor.load(onnx[1])


def test_labels_of_an_onnx_model_that_contradict_each_other_are_noted(
    onnx: tuple[Any, Path], tmp_path: Path
) -> None:
    shutil.copytree(onnx[1], tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["label2id"] = {name: 2 - int(place) for place, name in config["id2label"].items()}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    with logged([]) as lines:
        assert OnnxPredictor.load(tmp_path / "a").labels == ("no", "maybe", "yes")
    assert ["label2id of config.json contradicts" in line for line in lines] == [True]


def test_other_labels_than_outputs(onnx: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copytree(onnx[1], tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["id2label"] = {"0": "no", "1": "yes"}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"(?s)shape \(3, 3\).*no, yes"):
        OnnxPredictor.load(tmp_path / "a").logits(COPIES)


def lengths(pairs: list[Any]) -> Any:
    """Probabilities from the lengths of two texts."""
    share = np.array([len(a) / (len(a) + len(b)) for a, b in pairs])
    return np.stack([share, 1 - share], axis=1)


def test_a_function_predicts_logarithms_of_its_probabilities() -> None:
    predictor = FunctionPredictor(lengths)
    assert isinstance(predictor, Predictor)
    whole = [COPIES[0], COPIES[2]]
    (found,) = predictor.logits(whole)
    assert found[0, 0] - found[0, 1] == pytest.approx(np.log(24 / 11))
    assert replace(predictor, order=(1, 0)).logits(whole)[0] == pytest.approx(found[:, ::-1])
    with pytest.raises(GradistillError, match="has no mask token"):
        predictor.logits(COPIES)
    sure = FunctionPredictor(lambda texts: [[1, 0]] * len(texts))
    assert sure.logits([Copy(("a",))])[0, 0].tolist() == [0, np.log(LEAST)]


def test_a_function_gets_texts_some_at_a_time() -> None:
    seen: list[list[Any]] = []

    def score(texts: list[Any]) -> Any:
        seen.append(texts)
        return [len(text) for text in texts]

    done: list[int] = []
    predictor = FunctionPredictor(score, labels=None, on_progress=done.append)
    found = predictor.logits([Copy(("x" * k,)) for k in range(600)])
    assert found[0, :, 0].tolist() == list(range(600))
    assert [len(some) for some in seen] == done == [256, 256, 88]
    assert seen[0][:2] == ["", "x"]


@pytest.mark.parametrize(
    ("returned", "labels", "message"),
    [
        ([[0.5, 0.5]], (), r"shape \(1, 2\) for 2 texts"),
        ([0.5, 0.5], (), r"shape \(2,\) for 2 texts"),
        ([[0.5, 0.5]] * 2, ("a", "b", "c"), r"shape \(2, 2\)(?s:.*)a, b, c"),
        (
            [[0.5, 0.5], [0.9, 0.2]],
            (),
            r"returned 0.9, 0.2 for the text 'dull': they do not sum to 1",
        ),
        ([[-1.0, 2.0], [0.5, 0.5]], (), r"the text 'fine': they are outside 0 to 1"),
        ([[0.5, 0.5], [float("nan"), 1]], (), r"NaN or infinite values for the text 'dull'"),
        ([[0.5, 0.5], [1]], (), "is no array of numbers"),
        ([["a"], ["b"]], (), "is no array of numbers"),
        ([[0.1, 0.2]] * 2, None, r"(?s)shape \(2, 2\).*one column, the score"),
    ],
)
def test_what_is_no_probability(returned: Any, labels: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        FunctionPredictor(lambda _: returned, labels).logits([Copy(("fine",)), Copy(("dull",))])


def test_an_error_of_the_function_is_one_message() -> None:
    with pytest.raises(ModelError, match=r"the function lengths raised ValueError"):
        FunctionPredictor(lengths).logits([Copy(("one text",))])


def test_functions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_service.py").write_text(
        "def predict(texts):\n    return [[0, 1]] * len(texts)\nNUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert function_at("python:my_service:predict")(["a"]) == [[0, 1]]
    assert sys.path == before
    for name, message in (
        ("python:my_service", "names no function"),
        ("python:my_service:other", "has no attribute 'other'"),
        ("python:my_servise:predict", "No module named 'my_servise'"),
        ("python:my_service:NUMBER", "is int"),
    ):
        with pytest.raises(RecipeError, match=message):
            function_at(name)
    del sys.modules["my_service"]


def test_torch_threads_are_used(onnx: tuple[Any, Path]) -> None:
    options = OnnxPredictor.load(onnx[1]).session.get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()


def test_a_mean_has_the_mean_of_its_members_thresholds() -> None:
    model = build("bert", labels=3)
    model.config.problem_type = "multi_label_classification"
    without = ClassifierPredictor(model, tokenizer(WORDS))
    other = build("bert", labels=3)
    other.config.problem_type = "multi_label_classification"
    set_thresholds(other, np.array([0.1, 0.2, 0.3]))
    member = ClassifierPredictor(other, tokenizer(WORDS))
    assert label_thresholds(MeanPredictor((without, without), "multi_label")) is None
    assert label_thresholds(MeanPredictor((member, member), "multi_label")) == pytest.approx([0.1, 0.2, 0.3])
    assert label_thresholds(MeanPredictor((member, without), "multi_label")) == pytest.approx(
        [0.3, 0.35, 0.4]
    )
    task = Task("t", ("text",), ("a", "b", "c"), ("micro_f1",), "micro_f1", multi_label=True)
    rows = Dataset.from_dict({"text": ["the film"], "label": [[1, 0, 0]]})
    for predictor in (member, MeanPredictor((member, member), "multi_label")):
        assert predictions_of(predictor, rows, task).thresholds == pytest.approx([0.1, 0.2, 0.3])


def test_a_masked_copy_that_has_no_logits_is_named_so() -> None:
    copies = [Copy(("a fine film",)), Copy(("a fine film",), np.array([True, False, False]))]
    with pytest.raises(ModelError, match="values for the text 'a fine film' with 2 words masked"):
        checked_logits(np.array([[0.0, 1.0], [np.nan, 1.0]]), ("no", "yes"), "the model", copies)
