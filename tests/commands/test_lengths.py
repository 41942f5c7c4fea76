"""At which length texts are cut: the one that a model was trained with, in every command, and printed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from transformers import TrainerCallback
from typer.testing import CliRunner

from families import build
from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.cli.app import app
from gradistill.commands.audit import audit
from gradistill.commands.audit_model import AuditModel, text_length
from gradistill.commands.distill import distill
from gradistill.commands.explain import explain
from gradistill.commands.finetune import finetune
from gradistill.commands.signal_stores import StoreChoice, describe
from gradistill.commands.store_signals import store_signals
from gradistill.commands.text_lengths import (
    LONGEST_BY_DEFAULT,
    new_length,
    task_length,
    trained_length,
    trained_windows,
)
from gradistill.data import DataChoice
from gradistill.data.windows import Windows
from gradistill.errors import ModelError, RecipeError
from gradistill.models.loaded_model import LoadedModel
from gradistill.recipe import Recipe, load_recipe
from small import BAD, GOOD, WORDS, audit_parts, logged, write_table
from wordpiece import tokenizer

LONG = 48
FEW = audit_parts(faithfulness_rows=2, perturbed_rows=2)


@pytest.fixture(scope="module")
def late(small: Any) -> tuple[str, DataChoice]:
    """A teacher of 48 tokens whose label stands at the end of texts of up to 40, and its data."""
    folder = small.folder / "late"
    rows = [
        {
            "text": " ".join(["the"] * (20 + k % 12) + [(BAD, GOOD)[k % 2][k % 3]] * 8),
            "label": ("no", "yes")[k % 2],
        }
        for k in range(40)
    ]
    for split in ("train", "validation"):
        write_table(folder / "data" / f"{split}.csv", rows)
    changes = [
        f"training.max_length={LONG}",
        "training.epochs=8",
        "training.batch_size=8",
        "training.learning_rate=0.01",
    ]
    choice = DataChoice(str(folder / "data"), label_column="label", text_columns=("text",))
    finetune(str(small.base), choice, folder / "teacher", load_recipe("finetune", changes=changes))
    return str(folder / "teacher"), choice


class Stop(Exception):
    pass


class Stopping(TrainerCallback):
    """Stops a run where its second epoch begins."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch and state.epoch >= 1:
            raise Stop


def test_a_run_records_its_length_and_how_many_texts_are_cut(late: Any, tmp_path: Path) -> None:
    metrics = json.loads((Path(late[0]) / "metrics.json").read_text())
    assert metrics["texts"]["max_length"] == LONG
    assert metrics["texts"]["validation"] == {"cut": 0, "rows": 40, "longest": 41}
    assert trained_length(late[0]) == LONG
    (tmp_path / "recipe.yaml").write_text("training: {max_length: 77}\n")  # of a version without the record
    assert trained_length(tmp_path) == 77
    for other in ("training: [1]", "a: &a [*a]", "text", "training: {max_length: many}"):
        (tmp_path / "recipe.yaml").write_text(other)
        assert trained_length(tmp_path) is None
    assert trained_length("") is trained_length("some/hub-id") is None


def test_a_model_from_the_hub_has_the_windows_of_its_recipe(late: Any, tmp_path: Path) -> None:
    """``push`` sends no metrics.json."""
    shutil.copytree(late[0], tmp_path / "here", ignore=shutil.ignore_patterns("metrics.json"))
    assert trained_windows(tmp_path / "here") is None
    recipe = yaml.safe_load((tmp_path / "here" / "recipe.yaml").read_text())
    recipe["training"] |= {"windows": "mean", "window_overlap": 8}
    (tmp_path / "here" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert trained_windows(tmp_path / "here") == Windows("mean", 8)
    assert trained_length(tmp_path / "here") == LONG


def test_an_audit_takes_the_length_of_the_teacher(late: Any, tmp_path: Path) -> None:
    """At the old default of 128 the model has no positions; cut at 16 every label is lost."""
    teacher, data = late
    found = audit(teacher, [teacher], data, tmp_path / "a", FEW)
    assert (found["settings"]["max_length"], found["texts"]["max_length"]) == (LONG, LONG)
    assert found["texts"]["validation"]["cut"] == 0
    assert found["students"][0]["figures"]["quality"]["teacher_accuracy"]["value"] == 1
    printed: list[str] = []
    with logged(printed):
        cut = audit(teacher, [teacher], data, tmp_path / "b", replace(FEW, max_length=16))
    assert cut["texts"]["validation"] == {"cut": 40, "rows": 40, "longest": 41}
    assert f"max_length 16, as set; the teacher was trained with {LONG}" in printed
    assert "WARNING: validation: 40 of 40 texts are cut at 16 tokens (the longest has 41)" in printed
    assert "validation: 40 of 40 texts are cut at 16 tokens (the longest has 41)" in cut["warnings"]


@pytest.mark.parametrize("held", ["ONNX", "bfloat16"])
def test_a_teacher_without_gradients_has_the_length_too(late: Any, tmp_path: Path, held: str) -> None:
    """Only models with gradients counted: a student of 128 tokens had the teacher read texts of 128."""
    source, _ = late
    pieces, student = tokenizer(WORDS), AuditModel.load(source, "student", "s")
    if held == "ONNX":
        (tmp_path / "export.json").write_text('{"max_length": 20}')
        predictor: Any = OnnxPredictor(cast(Any, None), pieces, ("no", "yes"))
    else:
        (tmp_path / "recipe.yaml").write_text("training: {max_length: 20}\n")
        predictor = ClassifierPredictor(build("bert").to(torch.bfloat16), pieces)
    teacher = AuditModel("teacher", "t", str(tmp_path), ("no", "yes"), predictor)
    assert text_length([teacher, student], None) == 20
    assert text_length([student, teacher], None) == LONG
    if held == "bfloat16":
        with pytest.raises(ModelError, match="max_length is 65, and the teacher .* has 64 positions"):
            text_length([teacher], 65)


@pytest.mark.parametrize("held", ["ONNX", "bfloat16"])
def test_a_model_without_a_table_of_positions_has_no_limit(tmp_path: Path, held: str) -> None:
    """Its configuration has ``max_position_embeddings`` all the same, and longer texts were cut there."""
    model, pieces = (
        build("deberta_v2", position_biased_input=False, max_position_embeddings=64),
        tokenizer(WORDS),
    )
    model.config.save_pretrained(tmp_path)
    onnx = OnnxPredictor(cast(Any, None), pieces, ("no", "yes"))
    predictor: Any = onnx if held == "ONNX" else ClassifierPredictor(model.to(torch.bfloat16), pieces)
    teacher = AuditModel("teacher", "t", str(tmp_path), ("no", "yes"), predictor)
    assert text_length([teacher], 128) == 128
    (tmp_path / "export.json").write_text('{"max_length": 120}')
    assert text_length([teacher], None) == 120


@pytest.mark.slow
def test_a_student_of_another_length_is_named(late: Any, tmp_path: Path) -> None:
    teacher, data = late
    recipe = load_recipe("kd", changes=["training.max_length=30", "training.epochs=1"])
    distill(teacher, data, tmp_path / "s", recipe)
    printed: list[str] = []
    with logged(printed):
        found = audit(teacher, [str(tmp_path / "s")], data, tmp_path / "out", FEW)
    assert found["texts"]["max_length"] == LONG
    expected = f"max_length {LONG}, as the teacher was trained: it is the reference; the student s was trained with 30"
    assert expected in printed


@pytest.mark.slow
def test_distillation_and_stores_take_the_length_of_the_teacher(late: Any, tmp_path: Path) -> None:
    teacher, data = late
    printed: list[str] = []
    with logged(printed):
        metrics = distill(teacher, data, tmp_path / "s", load_recipe("kd", changes=["training.epochs=1"]))
    assert metrics["texts"]["max_length"] == trained_length(tmp_path / "s") == LONG
    assert not [line for line in printed if "cut" in line]
    store = store_signals(teacher, data, tmp_path / "store", load_recipe("kd"))
    assert json.loads((store / "manifest.json").read_text())["made_for"]["max_length"] == LONG
    assert describe(store)["rows"] == 40
    printed.clear()
    own = load_recipe("kd", changes=["training.epochs=1", "training.max_length=20"])
    with logged(printed):
        metrics = distill(teacher, data, tmp_path / "own", own, signals=StoreChoice("online"))
    assert metrics["texts"]["max_length"] == 20
    assert f"max_length 20, as set; the teacher was trained with {LONG}" in printed
    cut = "validation: 40 of 40 texts are cut at 20 tokens (the longest has 41)"
    assert f"{cut}; --windows mean (in a project windows: mean) reads them whole" in printed


def stopped_and_gone_on_with(late: tuple[str, DataChoice], folder: Path, recipe: Recipe) -> None:
    with pytest.raises(Stop):
        distill(*late, folder, recipe, callbacks=[Stopping()])
    printed: list[str] = []
    with logged(printed):
        distill(*late, folder, recipe)
    assert any(line.startswith("going on from") for line in printed)


def test_an_unfinished_run_goes_on_whether_its_length_is_named_or_not(late: Any, tmp_path: Path) -> None:
    stopped_and_gone_on_with(late, tmp_path / "s", load_recipe("kd", changes=["training.epochs=2"]))


@pytest.mark.slow
def test_a_run_within_a_budget_and_in_windows_ends_where_an_uninterrupted_one_does(
    late: Any, tmp_path: Path
) -> None:
    changes = ("epochs=2", "max_length=20", "windows=mean", "window_overlap=4")
    recipe = load_recipe("kd", changes=["student.size=12k", *(f"training.{change}" for change in changes)])
    distill(*late, tmp_path / "whole", recipe)
    stopped_and_gone_on_with(late, tmp_path / "stopped", recipe)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_explain_reads_as_much_as_the_model_was_trained_with(late: Any) -> None:
    text = " ".join(["the"] * 30 + ["great"])
    whole = explain(late[0], [text], steps=2)
    assert (whole.label, whole.cut) == ("yes", None)
    assert explain(late[0], [text], steps=2, max_length=10).cut == (10, 33)
    shown = CliRunner().invoke(
        app, ["explain", "--model", late[0], "--steps", "2", "--max-length", "10", text]
    )
    assert "The text is cut: the model read 10 of its 33 tokens (--max-length)." in shown.output
    with pytest.raises(ModelError, match="max_length is 99, and the model .* has 64 positions"):
        explain(late[0], [text], max_length=99)


def test_without_a_record_the_tokenizer_and_the_positions_decide() -> None:
    pieces, model = tokenizer(WORDS), build("bert", max_position_embeddings=700)
    nobody = [LoadedModel("teacher", "", model)]
    pieces.model_max_length = 300
    assert task_length(None, pieces, nobody) == 300
    pieces.model_max_length = int(1e30)
    assert task_length(None, pieces, nobody) == LONGEST_BY_DEFAULT
    printed: list[str] = []
    with logged(printed):
        assert task_length(None, pieces, [LoadedModel("teacher", "", build("roberta"))]) == 63
    assert printed == [f"max_length 63 instead of {LONGEST_BY_DEFAULT}: the teacher has no more positions"]
    assert task_length(40, pieces, nobody) == 40
    with pytest.raises(
        ModelError, match="(?s)max_length is 64, and the student x has 63 positions.*at most 63"
    ):
        task_length(64, pieces, [*nobody, LoadedModel("student", "x", build("roberta"))])


def test_a_new_model_takes_128_tokens_or_as_many_as_it_has_positions() -> None:
    assert new_length(None, [LoadedModel("model", "", build("llama"))]) == 128
    printed: list[str] = []
    with logged(printed):
        assert new_length(None, [LoadedModel("model", "", build("bert", max_position_embeddings=96))]) == 96
    assert printed == ["max_length 96 instead of 128: the model has no more positions"]


def run(command: str, model: str, data: DataChoice, at: Path, *, length: int | None = None) -> Any:
    """One of the commands with a model that is its teacher, its student or what it starts from."""
    changes = [] if length is None else [f"training.max_length={length}"]
    if command == "finetune":
        return finetune(model, data, at, load_recipe("finetune", changes=changes))
    if command == "distill":
        return distill(model, data, at, load_recipe("kd", changes=changes))
    if command == "signals":
        return store_signals(model, data, at, load_recipe("kd", changes=changes))
    if command == "audit":
        return audit(model, [model], data, at, replace(FEW, max_length=length))
    return explain(model, ["the cinema"], max_length=length)


@pytest.mark.parametrize("command", ["finetune", "distill", "signals", "audit"])
def test_a_length_beyond_the_positions_leaves_no_folder_behind(
    command: str, small: Any, tmp_path: Path
) -> None:
    model = str(small.base if command == "finetune" else small.teachers["two"])
    with pytest.raises(ModelError, match=r"max_length is 65, and the \w+ .* has 64 positions"):
        run(command, model, small.choice("two"), tmp_path / "run", length=65)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["finetune", "distill", "signals", "audit", "explain"])
def test_a_tokenizer_with_more_ids_than_the_matrix_is_refused(command: str, tmp_path: Path) -> None:
    """One that learned a word after the model was made."""
    odd, names = tmp_path / "odd", {0: "negative", 1: "positive"}
    build("bert", labels=2, id2label=names, vocab_size=len(WORDS)).save_pretrained(odd)
    pieces = tokenizer(WORDS)
    pieces.add_tokens(["cinema"])
    pieces.save_pretrained(odd)
    for split in ("train", "validation"):
        rows = [{"text": "the cinema", "label": name} for name in names.values()]
        write_table(tmp_path / "data" / f"{split}.csv", rows)
    data = DataChoice(str(tmp_path / "data"), label_column="label", text_columns=("text",))
    message = rf"token id {len(WORDS)} \('cinema'\), and the \w+'s embedding matrix has {len(WORDS)} rows"
    with pytest.raises(ModelError, match=message):
        run(command, str(odd), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["minilm", "tinybert", "minilm_v2"])
def test_a_store_of_attention_that_cannot_be_seen_is_refused_as_training_is(
    method: str, small: Any, tmp_path: Path
) -> None:
    """DeBERTa-v2's attention cannot be recorded: the store's layout divided by its 0 heads."""
    names = {0: "negative", 1: "positive"}
    build("deberta_v2", labels=2, id2label=names).save_pretrained(tmp_path / "t")
    tokenizer(WORDS).save_pretrained(tmp_path / "t")
    recipe = load_recipe(method)
    for run in (distill, store_signals):
        with pytest.raises(RecipeError, match="cannot be recorded"):
            run(str(tmp_path / "t"), small.choice("two"), tmp_path / "out", recipe)
        assert not (tmp_path / "out").exists()


def test_a_pair_that_means_little_is_named(small: Any, tmp_path: Path) -> None:
    teacher = str(small.teachers["two"])
    deep = build("bert", labels=2, id2label={0: "negative", 1: "positive"}, num_hidden_layers=5)
    deep.save_pretrained(tmp_path / "deep")
    tokenizer(WORDS).save_pretrained(tmp_path / "deep")
    printed: list[str] = []
    with logged(printed):
        found = audit(teacher, [teacher, str(tmp_path / "deep")], small.choice("two"), tmp_path / "out", FEW)
    same = "the student two and the teacher hold the same weights: a model is compared with itself"
    deeper = "the student deep has 5 layers, more than its teacher, which has 3"
    assert found["warnings"][:2] == [same, deeper]
    assert {f"WARNING: {same}", f"WARNING: {deeper}"} <= set(printed)
    assert same in (tmp_path / "out" / "audit.html").read_text()
    assert same in (tmp_path / "out" / "audit.md").read_text()
    printed.clear()
    recipe = load_recipe("kd", changes=["training.epochs=1", f"student.checkpoint={tmp_path / 'deep'}"])
    with logged(printed):
        distill(teacher, small.choice("two"), tmp_path / "run", recipe)
    assert f"WARNING: {deeper.replace('student deep', 'student')}" in printed


def test_more_blocks_than_the_teacher_has_are_named(small: Any, tmp_path: Path) -> None:
    printed: list[str] = []
    with logged(printed):
        small.distilled("kd", "two", tmp_path / "run", "student.layers=4")
    assert "WARNING: the student has 4 layers, more than its teacher, which has 3" in printed
