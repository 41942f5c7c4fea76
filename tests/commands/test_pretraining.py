"""Pre-training: a smaller encoder from texts without labels, which a distillation then starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from gradistill.commands.pretrain import _rows, pretrain
from gradistill.data import load_texts
from gradistill.errors import RecipeError
from gradistill.models.loading import load_tokenizer
from gradistill.recipe import Recipe, load_recipe
from gradistill.training.trainer import DistillationTrainer
from slow import slow
from small import logged


def recipe_of(*changes: str) -> Recipe:
    plain = ("training.epochs=8", "training.batch_size=8", "training.learning_rate=0.003", "student.layers=2",
             "student.dropout=none", "student.layer_map=first")  # fmt: skip
    return load_recipe("pretrain", changes=[*plain, *changes])


def pretrained(small: Any, output: Path, *changes: str, **options: Any) -> dict[str, Any]:
    texts = [small.tables[kind] for kind in ("two", "three")]
    return pretrain(str(small.teachers["two"]), texts, output, recipe_of(*changes), **options)


@pytest.mark.parametrize("width", [slow(None), 8])
def test_an_encoder_comes_nearer_and_is_a_checkpoint(width: int | None, small: Any, tmp_path: Path) -> None:
    output = tmp_path / "small"
    relations = "objectives.self_attention_relations"
    narrow = (f"student.width={width}", f"{relations}.heads=1") if width else ()
    metrics = pretrained(small, output, f"{relations}.weight=100", *narrow)
    for name, before in metrics["held_out"]["before"].items():
        assert metrics["held_out"]["after"][name] < before, name
    assert json.loads((output / "metrics.json").read_text()) == metrics
    assert (metrics["student"]["layers"], metrics["student"]["hidden"]) == (2, width or 16)
    assert {path.name for path in output.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert not (output / "checkpoints").exists()
    encoder, report = AutoModel.from_pretrained(output, output_loading_info=True)
    assert type(encoder).__name__ == "BertModel"
    assert not {*report["missing_keys"], *report["unexpected_keys"]}
    student = small.distilled("adkd", "two", tmp_path / "run", f"student.checkpoint={output}")
    assert student["student"]["layers"] == 2


def test_rows_of_the_texts_are_held_out_by_the_seed(small: Any, tmp_path: Path) -> None:
    printed: list[str] = []
    tokenizer, texts = load_tokenizer(small.base), [small.tables["three"]]
    recipes = [recipe_of(f"training.seed={seed}", "training.max_length=64") for seed in (0, 0, 1)]
    apart = [_rows(load_texts(texts), tokenizer, recipe)[1]["input_ids"][:] for recipe in recipes]
    assert apart[0] == apart[1]
    assert apart[0] != apart[2]
    texts = [small.tables["two"]]
    with logged(printed):
        pretrain(str(small.base), texts, tmp_path / "b", recipe_of("training.epochs=1"))
    assert any("1 are held out" in line for line in printed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("objectives.soft_label.weight=1",), "soft_label compares predictions for a task"),
        (("objectives.hard_label.weight=1",), "hard_label compares predictions for a task"),
        (("objectives.attribution_map.weight=1",), "attribution_map compares predictions"),
    ],
)
def test_objectives_about_a_task_are_refused(
    changes: tuple[str, ...], message: str, small: Any, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        pretrained(small, tmp_path / "run", *changes)
    assert not (tmp_path / "run").exists()


def test_a_width_between_heads_and_one_text_are_refused(small: Any, tmp_path: Path) -> None:
    from gradistill.errors import ModelError

    with pytest.raises(ModelError, match=r"(?s)width is 12.*multiple of 8"):
        pretrained(small, tmp_path / "run", "student.width=12")
    with pytest.raises(RecipeError, match="has 1 text"):
        pretrained(small, tmp_path / "run", "training.max_train_rows=1")


def test_batches_are_padded_to_the_length_that_was_asked_for(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, widths = DistillationTrainer.compute_loss, set()

    def compute_loss(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        widths.add(inputs["input_ids"].shape[1])
        return loss(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", compute_loss)
    pretrained(
        small,
        tmp_path / "out",
        "training.epochs=1",
        "training.max_length=40",
        "compute.pad_to_max_length=true",
    )
    assert widths == {40}


def test_an_overlap_of_windows_that_there_are_not_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="window_overlap is 3, and pre-training has no windows"):
        pretrained(small, tmp_path / "out", "training.window_overlap=3")
