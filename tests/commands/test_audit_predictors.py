"""Audits of ONNX models, functions, and models that read other tokens."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import softmax
from scipy.stats import spearmanr
from typer.testing import CliRunner

from byte_level import byte_level
from families import build
from gradistill.auditing import model_comparison
from gradistill.auditing.function_predictor import FunctionPredictor
from gradistill.auditing.methods import method
from gradistill.auditing.model_comparison import ModelComparison
from gradistill.auditing.predictions import predict_rows
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.cli.app import app
from gradistill.commands.audit import AuditChoice, audit
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.audit_models import AuditModels
from gradistill.commands.text_predictor import load_predictor
from gradistill.data import Collator, DataChoice, encode, load_splits, read_splits
from gradistill.data.changed_copies import Copy
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.errors import DataError, ModelError, RecipeError
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.teacher_loading import TeacherLoading
from onnx_models import exported
from small import SPECIAL, WORDS, audit_parts, logged, write_table
from wordpiece import tokenizer

CHOICE = AuditChoice(
    faithfulness_rows=3,
    perturbed_rows=3,
    response_rows=4,
    shapley_rows=2,
    shapley_pairs=1,
    expected_gradients_rows=2,
    floor_rows=4,
)


def figures(found: dict[str, Any], student: int = 0) -> dict[str, Any]:
    return {name: e for group in found["students"][student]["figures"].values() for name, e in group.items()}


def examples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]


def function_of(source: Path, *, score: bool = False) -> Any:
    """A model as a function of texts, or of pairs."""
    predictor = ClassifierPredictor(load_classifier(str(source))[0], load_tokenizer(str(source)))

    def predict(texts: list[Any]) -> np.ndarray:
        copies = [Copy((text,) if isinstance(text, str) else tuple(text)) for text in texts]
        (logits,) = predictor.logits(copies)
        return logits[:, 0] if score else softmax(logits, axis=-1)

    return predict


@pytest.mark.slow
def test_an_onnx_student_is_as_loyal_as_its_original(small: Any, tmp_path: Path) -> None:
    source = str(small.teachers["three"])
    model, pieces = load_classifier(source)[0], load_tokenizer(source)
    turned = exported(model, pieces, tmp_path / "onnx")
    with logged([]) as lines:
        found = audit(source, [source, str(turned)], small.choice("three"), tmp_path / "out", CHOICE)
    itself, onnx = figures(found), figures(found, 1)
    maps = {
        "saliency",
        "top_k_overlap",
        "cosine",
        "kendall_tau",
        "signed",
        "signed_top",
        "expected_gradients",
    }
    assert itself.keys() - onnx.keys() == maps
    for name in ("label", "probability", "response", "response_masked", "shapley", "student_accuracy"):
        assert onnx[name]["value"] == pytest.approx(itself[name]["value"], abs=1e-3), name
    assert "floor" in itself["response"]
    assert "floor" not in onnx["response"]
    assert onnx["student_comprehensiveness"]["n"] == itself["student_comprehensiveness"]["n"]
    text = "\n".join(lines)
    assert (
        "saliency loyalty, expected gradients, the other figures of maps and their floors of onnx are left out: they"
        in text
    )
    assert "and it is an ONNX model" in text
    assert (
        "faithfulness of all models is measured for the occlusion of words: no gradients of the student onnx"
        in text
    )
    assert found["students"][1]["kind"] == "ONNX model"
    assert len(found["students"][1]["sha256"]) == 64
    for example in examples(tmp_path / "out"):
        words = [example["texts"][w["segment"]][w["start"] : w["end"]] for w in example["words"]]
        assert words == " ".join(example["texts"]).split()
        assert sum(w["teacher"] for w in example["words"]) == pytest.approx(1, abs=1e-3)
        assert {w["students"][1] for w in example["words"]} == {None}
    assert (tmp_path / "out" / "audit.html").stat().st_size > 10_000


@pytest.mark.slow
def test_an_onnx_model_with_its_labels_in_another_order(small: Any, tmp_path: Path) -> None:
    source = str(small.teachers["two"])
    model, pieces = load_classifier(source)[0], load_tokenizer(source)
    with torch.no_grad():
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter.flip(0))
    model.config.id2label = {0: "positive", 1: "negative"}
    model.config.label2id = {"positive": 0, "negative": 1}
    exported(model, pieces, tmp_path / "onnx")
    found = audit(source, [str(tmp_path / "onnx")], small.choice("two"), tmp_path / "out", CHOICE)
    assert figures(found)["probability"]["value"] == pytest.approx(1, abs=1e-3)


def test_an_onnx_teacher(small: Any, tmp_path: Path) -> None:
    source = str(small.teachers["score"])
    turned = exported(load_classifier(source)[0], load_tokenizer(source), tmp_path / "onnx")
    found = audit(str(turned), [source], small.choice("score"), tmp_path / "out", CHOICE)
    every = figures(found)
    assert every["prediction"]["value"] == pytest.approx(1, abs=1e-4)
    assert every["response_masked"]["value"] == pytest.approx(1, abs=1e-3)
    assert "floor" in every["response"], "the student has a head"
    assert "saliency" not in every
    assert any(
        "left out: they need gradients, and the teacher is an ONNX model" in w for w in found["warnings"]
    )
    assert found["attribution"]["randomised"] == {}
    assert found["students"][0]["by_length"][0]["label"].endswith("words")


def test_scores_on_another_scale_are_named(small: Any, tmp_path: Path) -> None:
    """In perfect correlation, and of no use to whoever reads the score."""
    inner = function_of(small.teachers["score"], score=True)

    def same(texts: list[Any]) -> np.ndarray:
        return inner(texts)

    def shifted(texts: list[Any]) -> np.ndarray:
        return 3 * inner(texts) + 40

    def doubled(texts: list[Any]) -> np.ndarray:
        return 2.1 * (inner(texts) - middle) + middle

    def opposite(texts: list[Any]) -> np.ndarray:
        return 2 * middle - inner(texts)

    students = [same, shifted, doubled, opposite]
    data = small.choice("score")
    splits = read_splits(data, ("validation",))
    pairs = [tuple(row[name] for name in splits.task.text_columns) for row in splits.rows["validation"]]
    middle = float(inner(pairs).mean())
    found = audit(str(small.teachers["score"]), students, data, tmp_path / "out", audit_parts())
    assert figures(found, 1)["prediction"]["value"] == pytest.approx(1)
    warned = [w for w in found["warnings"] if "prediction loyalty is a correlation" in w]
    assert [w.split("'")[1] for w in warned] == ["shifted", "doubled"]


def test_a_function_as_student(small: Any, tmp_path: Path) -> None:
    source = small.teachers["two"]
    inner = function_of(source)

    def predict(texts: list[str]) -> np.ndarray:
        return inner(texts)[:, ::-1]

    predict.labels = ("positive", "negative")  # pyright: ignore[reportFunctionMemberAccess]
    found = audit(
        str(source), [predict], small.choice("two"), tmp_path / "out", replace(CHOICE, map_checks=True)
    )
    every = figures(found)
    assert every["label"]["value"] == 1
    assert every["probability"]["value"] == pytest.approx(1, abs=1e-4)
    assert every["response"]["value"] == pytest.approx(1, abs=1e-4)
    assert not any(name.endswith("_masked") for name in every)
    assert every["teacher_max_sensitivity"]["value"] > 0
    assert "student_max_sensitivity" not in every
    assert any(
        "figures on masked words are left out: the student predict has no masks" in w
        for w in found["warnings"]
    )
    assert found["students"][0]["name"] == "predict"


@pytest.mark.slow
def test_a_function_as_teacher_takes_its_labels_from_the_data(small: Any, tmp_path: Path) -> None:
    """Its columns are in the order of the data's classes, which are words in alphabetical order here."""
    source = small.teachers["two"]
    assert load_classifier(str(source))[0].config.id2label == {0: "negative", 1: "positive"}
    found = audit(function_of(source), [str(source)], small.choice("two"), tmp_path / "out", CHOICE)
    assert figures(found)["probability"]["value"] == pytest.approx(1, abs=1e-4)
    assert figures(found)["teacher_accuracy"] == figures(found)["student_accuracy"]
    score = small.teachers["score"]
    found = audit(
        function_of(score, score=True), [str(score)], small.choice("score"), tmp_path / "score", CHOICE
    )
    assert figures(found)["prediction"]["value"] == pytest.approx(1, abs=1e-4)


def test_a_function_of_other_labels_is_refused(small: Any, tmp_path: Path) -> None:
    source = small.teachers["two"]
    with pytest.raises(ModelError, match=r"(?s)shape \(\d+, 3\).*negative, positive"):
        audit(
            str(source),
            [lambda texts: [[0.2, 0.3, 0.5]] * len(texts)],
            small.choice("two"),
            tmp_path / "a",
            CHOICE,
        )

    def predict(texts: list[str]) -> Any:
        return [[0.5, 0.5]] * len(texts)

    predict.labels = ("yes", "no")  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(DataError, match=r"(?s)labels of the teacher and of predict differ.*yes, no"):
        audit(str(source), [predict], small.choice("two"), tmp_path / "a", CHOICE)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_are_put_in_order_once(dtype: Any, small: Any) -> None:
    """Asked for twice they were turned round twice, and those of a model in bfloat16 never."""
    model = AuditModel.load(str(small.teachers["three"]), "teacher", "t", loading=TeacherLoading(dtype))
    assert model.labels is not None
    copies = [Copy(("the film was fine .",))]
    before = model.predictor.logits(copies)[0]
    turned = model.ordered(model.labels[::-1])
    again = turned.ordered(model.labels[::-1])
    np.testing.assert_array_equal(again.predictor.logits(copies)[0], before[:, ::-1])
    assert again.labels == turned.labels == model.labels[::-1]


def test_answers_of_a_function_are_put_in_order_once() -> None:
    def predict(texts: list[str]) -> list[list[float]]:
        return [[0.2, 0.8]] * len(texts)

    predict.labels = ("no", "yes")  # pyright: ignore[reportFunctionMemberAccess]
    model = AuditModel.load(predict, "teacher", "t").ordered(("yes", "no")).ordered(("yes", "no"))
    assert softmax(model.predictor.logits([Copy(("a film",))])[0, 0]) == pytest.approx([0.8, 0.2])


def other_tokens(source: Path, folder: Path) -> Path:
    """The same model with the rows of its embedding, and the words of its tokenizer, in another order."""
    model = load_classifier(str(source))[0]
    words = (*SPECIAL, *WORDS[: len(SPECIAL) - 1 : -1])
    order = [WORDS.index(word) for word in words]
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[: len(order)] = table[order].clone()
    model.save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)
    return folder


def test_maps_of_other_tokens_are_compared_on_words(small: Any, tmp_path: Path) -> None:
    """The same function of texts has the same maps, whatever numbers its tokens have."""
    source = small.teachers["three"]
    student = other_tokens(source, tmp_path / "student")
    with logged([]) as lines:
        found = audit(str(source), [str(student)], small.choice("three"), tmp_path / "out", CHOICE)
    every = figures(found)
    for name in ("label", "probability", "saliency", "cosine", "signed", "signed_top", "response", "shapley"):
        assert every[name]["value"] == pytest.approx(1, abs=1e-4), name
    assert "floor" in every["saliency"]
    assert any("reads other tokens than the teacher, so maps are compared on words" in line for line in lines)
    for example in examples(tmp_path / "out"):
        for word in example["words"]:
            assert word["teacher"] == pytest.approx(word["students"][0], abs=1e-3)


def test_scores_of_words_are_sums_over_their_tokens(small: Any) -> None:
    """A tokenizer that cuts words in two against one that does not, with the sums of signed scores by hand."""
    splits = load_splits(
        small.choice("two").source, splits=("train",), label_column="label", text_columns=("text",)
    )
    rows, task = splits.rows["train"].select(range(4)), splits.task
    cut = tokenizer((*SPECIAL, "fi", "##lm", "the", "w", "##as", "ver", "##y", "."))
    models = [build("bert", labels=2, seed=k, initializer_range=0.5) for k in range(2)]
    predictors = [ClassifierPredictor(models[0], tokenizer(WORDS)), ClassifierPredictor(models[1], cut)]
    comparison = ModelComparison(predictors[0], predictors[1:], task, method("gradient_x_input"))
    (found,) = comparison.agreement(rows)
    assert np.isfinite(found["saliency"]).all()
    whole, halves = (encode(rows, p.tokenizer, task).dataset for p in predictors)
    teacher = predict_rows(models[0], whole, Collator(predictors[0].tokenizer))
    student = predict_rows(models[1], halves, Collator(cut), labels=teacher.labels)
    for row, text in enumerate(rows["text"]):
        sums, tokens = [], list(student.signed[row])
        for word in text.split():
            count = len(cut.tokenize(word))
            sums.append(sum(tokens[:count]))
            tokens = tokens[count:]
        assert not tokens
        rho = spearmanr(np.abs(sums), np.abs(teacher.signed[row]))[0]
        assert found["saliency"][row] == pytest.approx(rho)
        assert found["signed"][row] == pytest.approx(spearmanr(sums, teacher.signed[row])[0])
        assert found["tokens"][row] == len(teacher.maps[row])


def test_characters_that_a_token_holds_together_are_compared_together(small: Any) -> None:
    """Scores of a token went to its first character, of which another model's token knew a part."""
    task = load_splits(
        small.choice("two").source, splits=("train",), label_column="label", text_columns=("text",)
    ).task
    endings, units = ("", "よ", "ね", "か"), (3, 2, 1, 1, 2, 1)
    texts = [f"すごくいい映画です{end}" for end in endings]
    rows = Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1], "index": [0, 1, 2, 3]})
    parts = dict.fromkeys("".join(texts))
    joined, single = (
        tokenizer((*SPECIAL, *more, *parts, *(f"##{part}" for part in parts)), lowercase=False)
        for more in (("すごく", "##いい", "です"), ())
    )
    models = [build("bert", labels=2, seed=k, initializer_range=0.5) for k in range(2)]
    predictors = [ClassifierPredictor(*pair) for pair in zip(models, (joined, single), strict=True)]
    comparison = ModelComparison(predictors[0], predictors[1:], task, method("gradient_x_input"))
    (found,) = comparison.agreement(rows)
    (block,) = comparison.blocks(rows)
    inputs = [encode(rows, p.tokenizer, task).dataset for p in predictors]
    teacher = predict_rows(models[0], inputs[0], Collator(joined))
    student = predict_rows(models[1], inputs[1], Collator(single), labels=teacher.labels)
    for row, (text, end) in enumerate(zip(texts, endings, strict=True)):
        sizes = units if end else units[:-1]
        ends = np.cumsum(sizes)
        assert [len(scores) for scores in (teacher.signed[row], student.signed[row])] == [
            len(sizes),
            len(text),
        ]
        sums = [student.signed[row][end - size : end].sum() for end, size in zip(ends, sizes, strict=True)]
        assert found["signed"][row] == pytest.approx(spearmanr(sums, teacher.signed[row])[0])
        assert found["saliency"][row] == pytest.approx(
            spearmanr(np.abs(sums), np.abs(teacher.signed[row]))[0]
        )
        words = block.examples[row]["words"]
        assert [(word["start"], word["end"]) for word in words] == list(zip(ends - sizes, ends, strict=True))
        shares = teacher.maps[row] / teacher.maps[row].sum()
        assert [word["teacher"] for word in words] == pytest.approx(shares.tolist(), abs=1e-4)
    for own in comparison.word_scores(rows):
        assert own
        assert all(len(scores) == len(text) for scores, text in zip(own, texts, strict=True))
        assert np.isfinite(np.concatenate(own)).all()


def test_expected_gradients_cost_nothing_where_the_teacher_has_no_maps_and_follow_the_seed(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(
        small.choice("two").source, splits=("train",), label_column="label", text_columns=("text",)
    )
    rows = splits.rows["train"].select(range(4))
    models = [build("bert", labels=2, seed=k, initializer_range=0.5) for k in range(2)]
    teacher, student = (ClassifierPredictor(model, tokenizer(WORDS)) for model in models)
    comparison = ModelComparison(teacher, [student], splits.task, method("gradient_norm"), pool=WORDS)
    values = [
        comparison.expected_gradients(rows, seed)[0].columns["expected_gradients"] for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.allclose(values[0], values[2])
    with monkeypatch.context() as patch:
        patch.setattr(model_comparison, "predict_rows", None)
        predictor = FunctionPredictor(lambda texts: np.full((len(texts), 2), 0.5), ("negative", "positive"))
        (found,) = replace(comparison, teacher=predictor).expected_gradients(rows, 0)
    assert (found.columns, found.floors) == ({}, [])


def test_words_that_one_model_does_not_read_are_left_out(small: Any) -> None:
    splits = load_splits(
        small.choice("two").source, splits=("train",), label_column="label", text_columns=("text",)
    )
    rows = splits.rows["train"].select([3])  # eight words
    model = build("bert", labels=2, initializer_range=0.5)
    long, short = (
        ClassifierPredictor(model, tokenizer(WORDS)),
        ClassifierPredictor(model, tokenizer(WORDS), 8),
    )
    (found,) = ModelComparison(long, [short], splits.task, method("gradient_norm")).agreement(rows)
    assert found["tokens"][0] == 8
    assert np.isfinite(found["saliency"][0])
    scores = ModelComparison(long, [short], splits.task, method("gradient_norm")).word_scores(rows)
    assert [np.isnan(own[0]).tolist() for own in scores if own] == [[False] * 8, [False] * 6 + [True] * 2]


def test_functions_are_named_on_the_command_line_only(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "length_service.py").write_text(
        "def predict(texts):\n    return [[0.25, 0.75] if len(t) % 2 else [0.75, 0.25] for t in texts]\n"
    )
    monkeypatch.chdir(tmp_path)
    command = [
        "audit", "--teacher", str(small.teachers["two"]), "--student", "python:length_service:predict", "--data",
        str(small.tables["two"]), "--label-column", "label", "--text-columns", "text", "--response-rows", "3",
        "--shapley-rows", "0", "--expected-gradients-rows", "0",
        "--floor-rows", "0", "--perturbed-rows", "0", "--faithfulness-rows", "0",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["students"][0]["kind"] == "function"
    assert "label" in figures(found)
    del sys.modules["length_service"]
    with pytest.raises(RecipeError, match="pass the function itself"):
        audit(
            str(small.teachers["two"]), ["python:length_service:predict"], small.choice("two"), tmp_path / "b"
        )
    assert "length_service" not in sys.modules


def test_unlabelled_rows_of_a_function(small: Any, tmp_path: Path) -> None:
    """Without labels in the data, a teacher that is a function must name its own."""
    rows = [{"text": "the film was fine ."}, {"text": "the film was dull ."}]
    data = DataChoice(
        str(write_table(tmp_path / "data" / "validation.csv", rows).parent), text_columns=("text",)
    )
    teacher = function_of(small.teachers["two"])
    teacher.labels = ("negative", "positive")
    found = audit(teacher, [str(small.teachers["two"])], data, tmp_path / "out", CHOICE)
    assert figures(found)["label"]["value"] == 1


def test_faithfulness_of_a_function_needs_no_other_part(small: Any, tmp_path: Path) -> None:
    """A function knows no mask: words are replaced by drawn ones, also where only faithfulness draws some."""
    source = small.teachers["two"]
    alone = replace(CHOICE, response_rows=0, shapley_rows=0, expected_gradients_rows=0)
    found = audit(str(source), [function_of(source)], small.choice("two"), tmp_path / "out", alone)
    assert figures(found)["student_comprehensiveness"]["n"]
    assert "response" not in figures(found)


@pytest.mark.slow
def test_a_cascade_that_a_student_cannot_have_is_named(small: Any, tmp_path: Path) -> None:
    source = small.teachers["two"]
    both = [str(source), function_of(source)]
    found = audit(both[0], both, small.choice("two"), tmp_path / "out", replace(CHOICE, cascade=True))
    assert "the cascade of predict is left out: a function has no blocks to randomise" in found["warnings"]
    assert [bool(student["cascade"]) for student in found["students"]] == [True, False]


FEW = audit_parts(response_rows=2)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose outputs are in another order than those of the small teacher of two labels."""
    folder = tmp_path_factory.mktemp("decoder")
    model = build("qwen3", vocab_size=300, pad_token_id=1, bos_token_id=0, eos_token_id=2, num_labels=2)
    model.config.id2label = {0: "positive", 1: "negative"}
    model.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


def test_a_teacher_in_a_prompt(small: Any, decoder: Path, tmp_path: Path) -> None:
    """Against a function that makes the prompt itself."""
    template, ask = "Review: {text}\nGood?", function_of(decoder)

    def filled(texts: list[str]) -> np.ndarray:
        return ask([template.format(text=text) for text in texts])

    filled.labels = ("positive", "negative")  # pyright: ignore[reportFunctionMemberAccess]
    student, data = str(small.teachers["two"]), small.choice("two")
    found = audit(PromptedTeacher(str(decoder), template), [student], data, tmp_path / "out", FEW)
    ours, theirs = figures(found), figures(audit(filled, [student], data, tmp_path / "function", FEW))
    for name in ("label", "probability", "response", "teacher_accuracy"):
        assert ours[name]["value"] == pytest.approx(theirs[name]["value"], abs=1e-6), name
    assert ours["saliency"]["n"] > 0
    assert found["teacher"]["template"] == found["settings"]["prompt of the teacher"] == template
    (row, *_) = examples(tmp_path / "out")
    assert [row["texts"][0][w["start"] : w["end"]] for w in row["words"]] == row["texts"][0].split()
    loaded = AuditModels.load(PromptedTeacher(str(decoder), template), [student], student)
    assert loaded.reference is not None
    assert loaded.reference.template == template  # a second teacher reads as the first does
    predicted = load_predictor(PromptedTeacher(student, "{text} . a film"))(["a very dull one"])
    assert predicted.tolist() == load_predictor(student)(["a very dull one . a film"]).tolist()
    with pytest.raises(RecipeError, match=r"cannot be used: it holds \{words\}"):
        audit(PromptedTeacher(student, "{words}"), [student], data, tmp_path / "no", FEW)


def test_several_teachers_are_one_in_an_audit(small: Any, decoder: Path, tmp_path: Path) -> None:
    """Against a function that returns the mean, its labels in the order of the first."""
    student, data = str(small.teachers["two"]), small.choice("two")
    one, other = function_of(Path(student)), function_of(decoder)

    def mean(texts: list[str]) -> np.ndarray:
        return (np.asarray(one(texts)) + np.asarray(other(texts))[:, ::-1]) / 2

    mean.labels = ("negative", "positive")  # pyright: ignore[reportFunctionMemberAccess]
    found = audit([student, str(decoder)], [student], data, tmp_path / "out", FEW)
    ours, theirs = figures(found), figures(audit(mean, [student], data, tmp_path / "function", FEW))
    for name in ("label", "probability", "response", "teacher_accuracy"):
        assert ours[name]["value"] == pytest.approx(theirs[name]["value"], abs=1e-6), name
    assert "response_masked" in ours  # each hides words behind its own mask token
    assert "saliency" not in ours
    assert [model["name"] for model in found["teacher"]["models"]] == [Path(student).name, decoder.name]
    assert found["teacher"]["kind"] == "mean of several models"
    silent = function_of(Path(student))
    with pytest.raises(RecipeError, match="a function without labels, and the teacher"):
        audit([student, silent], [student], data, tmp_path / "no", FEW)


def test_maps_on_words_are_not_compared_with_a_reference_of_the_teachers_tokens(
    small: Any, tmp_path: Path
) -> None:
    """The mark of such maps came along with expected gradients only."""
    source = small.teachers["two"]
    student = other_tokens(source, tmp_path / "student")
    choice = audit_parts(max_rows=6, floor_rows=4, response_rows=2, reference=str(source))
    found = audit(str(source), [str(student)], small.choice("two"), tmp_path / "out", choice)
    assert "difference" not in figures(found)["saliency"].get("reference", {})
    assert "difference" in figures(found)["label"]["reference"]
