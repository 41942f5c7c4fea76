"""Changed copies of training rows, written and trained on: nothing of other splits, no label, the same every time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gradistill.batch import Batch
from gradistill.bench.plan import Cell
from gradistill.bench.task_setup import by_texts
from gradistill.commands.augment import REPORT, ROWS, augment
from gradistill.commands.distill import distill
from gradistill.commands.prepared_run import prepared_run
from gradistill.commands.pretrain import pretrain
from gradistill.commands.run_folder import finished_run
from gradistill.commands.signal_stores import StoreChoice
from gradistill.commands.store_signals import store_signals
from gradistill.data import Collator, DataChoice, get_task, load_unlabelled
from gradistill.errors import DataError, RecipeError, StoreError
from gradistill.objectives import EpochProgress, HardLabel
from gradistill.recipe import load_recipe
from small import logged, texts, write_table
from typed_command import exit_code

QUICK = ("training.epochs=1", "training.batch_size=8", "student.layers=2")


class PowerCut(Exception):
    """What an interrupted run ends with."""


def weights(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    """By line ends alone: others belong to texts."""
    return [json.loads(line) for line in (folder / ROWS).read_text(encoding="utf-8").split("\n") if line]


def test_a_file_of_copies_is_what_a_run_makes_itself(small: Any, tmp_path: Path) -> None:
    teacher = str(small.teachers["three"])
    printed: list[str] = []
    with logged(printed):
        found = augment(small.choice("three"), tmp_path / "copies", teacher=teacher, times=2)
    rows = lines(tmp_path / "copies")
    assert found == json.loads((tmp_path / "copies" / REPORT).read_text())
    assert found["rows"] == len(rows) == sum(found["changes"].values())
    assert len(rows) + sum(found["left_out"].values()) == 2 * 20
    assert set(rows[0]) == {"text", "other", "row", "copy", "change"}
    assert any("changed copies of 20 rows" in line for line in printed)
    data = replace(small.choice("three"), unlabelled=str(tmp_path / "copies"))
    read = distill(teacher, data, tmp_path / "read", load_recipe("kd", changes=QUICK))
    made = small.distilled("kd", "three", tmp_path / "made", *QUICK, "training.augment=2")
    assert weights(tmp_path / "read") == weights(tmp_path / "made")
    assert read["data"]["augmented"] is None

    assert made["data"]["augmented"] == {
        name: found[name] for name in ("rows", "changes", "words", "left_out")
    }
    rows_trained = made["timing"]["examples_per_s"] * made["timing"]["train_s"]
    assert rows_trained == pytest.approx(20 + found["rows"], rel=0.05)
    written = yaml.safe_load((tmp_path / "made" / "recipe.yaml").read_text())
    assert written["training"]["augment"] == 2
    again = load_recipe(file=tmp_path / "made" / "recipe.yaml")
    assert again.training.augment == 2
    assert finished_run(tmp_path / "made", again)


def test_without_them_recipes_are_those_of_earlier_versions() -> None:
    assert "augment" not in load_recipe("kd", changes=QUICK).as_dict()["training"]


@pytest.mark.parametrize("kind", ["two", "three", "score"])
def test_a_hard_label_learns_nothing_from_them(kind: str, small: Any) -> None:
    recipe = load_recipe("kd", changes=[*QUICK, "training.augment=2"])
    run = prepared_run(str(small.teachers[kind]), small.choice(kind), recipe)
    rows = run.encoded("train").dataset
    assert len(rows) > 20
    batch = Batch.of(Collator(run.tokenizer)([rows[k] for k in range(len(rows))]))
    logits = torch.randn(len(rows), run.task.num_labels, dtype=torch.float64, requires_grad=True)
    if kind == "score":
        batch = replace(batch, labels=batch.labels.double())  # pyright: ignore[reportOptionalMemberAccess]
    values = HardLabel().distance({"logits": logits}, {}, batch, EpochProgress())
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values[:20].all()
    assert gradient[:20].any(dim=-1).all()
    assert not values[20:].any()
    assert not gradient[20:].any()


def test_rows_of_other_splits_give_nothing(small: Any, tmp_path: Path) -> None:
    """Neither texts to be paired, nor near words, nor rows beyond ``max_train_rows``."""
    data = tmp_path / "data"
    write_table(data / "train.csv", [row | {"other": f"t{k}"} for k, row in enumerate(texts("three", 20))])
    for split in ("validation", "test"):
        write_table(data / f"{split}.csv", [row | {"other": "held out"} for row in texts("three", 10)])
    choice = replace(small.choice("three"), source=str(data))
    augment(choice, tmp_path / "copies", teacher=str(small.teachers["three"]), times=20)
    rows = lines(tmp_path / "copies")
    assert any(row["change"] == "re-pair" for row in rows)
    assert not any("held" in row["text"] + row["other"] for row in rows)
    recipe = load_recipe("kd", changes=[*QUICK, "training.augment=20", "training.max_train_rows=5"])
    run = prepared_run(str(small.teachers["three"]), choice, recipe, optional=("test",))
    assert run.copies is not None
    kept = set(run.labelled["other"][:])
    others = {word for texts in run.copies.texts_by_row(run.task) for text in texts for word in text.split()}
    assert {word for word in others if word[:1] == "t" and word[1:].isdigit()} <= kept
    assert set(run.copies.sources) == set(run.labelled["index"][:])
    (data / "validation.csv").unlink()
    augment(choice, tmp_path / "alone", teacher=str(small.teachers["three"]), times=20)
    assert lines(tmp_path / "alone") == rows


def test_an_interrupted_run_with_copies_goes_on(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradistill.training.trainer import DistillationTrainer

    changes = (*QUICK, "training.epochs=2", "training.augment=1")
    small.distilled("kd", "two", tmp_path / "whole", *changes)
    step, done = DistillationTrainer.training_step, list[int]()

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(done) == 7:
            raise PowerCut
        done.append(1)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "training_step", failing)
        with pytest.raises(PowerCut):
            small.distilled("kd", "two", tmp_path / "cut", *changes)
    with pytest.raises(RecipeError, match=r"training.augment: 1 before, 2 now"):
        small.distilled("kd", "two", tmp_path / "cut", *changes, "training.augment=2")
    printed: list[str] = []
    with logged(printed):
        small.distilled("kd", "two", tmp_path / "cut", *changes)
    assert any(line.startswith("going on from") for line in printed)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_store_holds_their_signals_for_every_seed(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    recipe = load_recipe("kd", changes=[*QUICK, "training.augment=2"])
    folder = store_signals(teacher, data, tmp_path / "store", recipe)
    stored = StoreChoice(str(folder))
    changes = (*QUICK, "training.augment=2", "training.seed=1")
    small.distilled("kd", "two", tmp_path / "seed", *changes, signals=stored)
    with pytest.raises(StoreError, match="data: "):
        small.distilled("kd", "two", tmp_path / "run", *QUICK, "training.augment=1", signals=stored)


def test_a_bench_has_a_store_for_each_number_of_copies_and_each_draw_of_rows() -> None:
    def cell(*changes: str) -> Cell:
        return Cell("mine", "kd", 2, 0, load_recipe("kd", changes=["training.max_length=64", *changes]))

    groups = by_texts(
        [cell(), cell("training.augment=2"), cell("training.seed=1"), cell("training.max_length=8"),
         cell("training.max_train_rows=9"), cell("training.max_train_rows=9", "training.seed=1")]
    )  # fmt: skip
    assert {name: len(cells) for name, cells in groups.items()} == {
        "64": 2, "64-augment-2": 1, "8": 1, "64-rows-9-0": 1, "64-rows-9-1": 1
    }  # fmt: skip


def test_what_cannot_be_answered_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learns from labels alone: changed copies have none"):
        load_recipe("finetune", changes=["training.augment=2"])
    recipe = load_recipe("pretrain", changes=["training.augment=2"])
    with pytest.raises(RecipeError, match="pre-training copies no texts"):
        pretrain(str(small.base), [str(small.tables["two"])], tmp_path / "run", recipe)
    gold = load_recipe("adkd", task="stsb", changes=["student.layers=2", "training.augment=1"])
    with pytest.raises(RecipeError, match="gold score, which copies that --augment makes do not have"):
        distill(str(small.teachers["score"]), small.choice("score"), tmp_path / "run", gold)
    assert not (tmp_path / "run").exists()


def test_what_a_file_of_copies_cannot_be_made_of(small: Any, tmp_path: Path) -> None:
    data, output = small.choice("three"), tmp_path / "copies"
    with pytest.raises(RecipeError, match="times is 0"):
        augment(data, output, times=0)
    with pytest.raises(RecipeError, match="unlabelled was given"):
        augment(replace(data, unlabelled="more.csv"), output)
    write_table(tmp_path / "short" / "train.csv", [{"text": "one", "label": k % 2} for k in range(4)])
    with pytest.raises(DataError, match="None of 4 rows"):
        augment(DataChoice(str(tmp_path / "short"), None, "label", ("text",)), output)
    rows = [row | ({"other": ""} if k == 3 else {}) for k, row in enumerate(texts("three", 6))]
    write_table(tmp_path / "missing" / "train.csv", rows)
    with pytest.raises(DataError, match=r"(?s)row 5.*the text is (empty|missing)"):
        augment(replace(data, source=str(tmp_path / "missing")), output)
    assert not output.exists()


def test_the_command(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    output = tmp_path / "copies"
    typed = ("augment", "--data", small.tables["two"], "--label-column", "label", "--text-columns", "text",
             "--times", 2, "--output", output)  # fmt: skip
    assert exit_code(monkeypatch, typed) == 0
    printed = capsys.readouterr().out
    assert "no word is replaced" in printed
    assert f"rows without labels written to {output / ROWS}" in printed.replace("\n", "")
    before = lines(output)
    assert {row["change"] for row in before} == {"words"}
    assert exit_code(monkeypatch, typed) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (
        exit_code(monkeypatch, (*typed, "--overwrite", "--seed", 1, "--teacher", small.teachers["two"])) == 0
    )
    assert lines(output) != before
    common = ("--data", small.tables["two"], "--label-column", "label", "--text-columns", "text",
              "--teacher", small.teachers["two"], "--epochs", 1, "--student-layers", 2)  # fmt: skip
    assert exit_code(monkeypatch, ("distill", *common, "--augment", 2, "--output", tmp_path / "run")) == 0
    assert "augmented: " in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    finetuned = ("distill", *common, "--augment", 2, "--method", "finetune", "--output", tmp_path / "run")
    assert exit_code(monkeypatch, finetuned) == 2
    assert "learns from labels alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["a\u2028b \x85 c d", "日本 語 の 文", 'quote " and \\ back slash', "\ttab  two\rlines\nof"]
)
def test_any_text_is_written_as_it_is_read(text: str, tmp_path: Path) -> None:
    rows = [{"sentence": text, "label": "positive"}, {"sentence": f"{text} more", "label": "negative"}]
    found = augment(DataChoice({"train": rows}, "sst2"), tmp_path / "copies", times=3)
    read = load_unlabelled(str(tmp_path / "copies"), get_task("sst2"))
    assert len(read) == found["rows"]
    assert read["sentence"][:] == [row["sentence"] for row in lines(tmp_path / "copies")]
