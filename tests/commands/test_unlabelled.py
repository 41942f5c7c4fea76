"""More rows without labels: the teacher alone speaks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gradistill.batch import UNLABELLED, Batch
from gradistill.commands.distill import distill
from gradistill.commands.signal_stores import StoreChoice
from gradistill.errors import DataError, RecipeError
from gradistill.objectives import EpochProgress, all_objectives
from gradistill.recipe import load_recipe
from slow import slow
from small import logged, texts, write_table


def with_more(small: Any, kind: str, tmp_path: Path) -> Any:
    rows = [{k: v for k, v in row.items() if k != "label"} for row in texts(kind, 12)]
    return replace(small.choice(kind), unlabelled=str(write_table(tmp_path / "more.csv", rows)))


@pytest.mark.parametrize(
    ("method", "kind", "where"),
    [
        slow("kd", "two", "auto"),
        ("kd", "two", "online"),
        slow("adkd", "three", "auto"),
        ("adkd", "score", "online"),
        ("gkd_cls", "two", "auto"),
    ],
)
def test_a_student_learns_from_them(method: str, kind: str, where: Any, small: Any, tmp_path: Path) -> None:
    printed: list[str] = []
    recipe = load_recipe(method, changes=["training.epochs=1", "training.batch_size=8", "student.layers=2"])
    data = with_more(small, kind, tmp_path)
    output = tmp_path / "run"
    with logged(printed):
        distill(str(small.teachers[kind]), data, output, recipe, signals=StoreChoice(where))
    assert any("unlabelled: 12 rows" in line for line in printed)
    assert (output / "model.safetensors").is_file()


def test_they_change_the_student(small: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    recipe = load_recipe("kd", changes=["training.epochs=1", "training.batch_size=8", "student.layers=2"])
    weights = []
    for name, data in (("with", with_more(small, "two", tmp_path)), ("without", small.choice("two"))):
        distill(str(small.teachers["two"]), data, tmp_path / name, recipe)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("labels", [1, 3])
def test_hard_labels_pass_them_over(labels: int) -> None:
    gold = torch.tensor([1.0, float("nan")]) if labels == 1 else torch.tensor([1, UNLABELLED])
    mask = torch.ones(2, 4, dtype=torch.bool)
    logits = torch.randn(2, labels, requires_grad=True)
    found = all_objectives()["hard_label"]().distance(
        {"logits": logits}, {}, Batch({}, mask, gold), EpochProgress()
    )
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert found[0] > 0
    assert found[1] == 0
    assert gradient[0].any()
    assert not gradient[1].any()


def test_gold_views_take_the_teachers_label_there() -> None:
    from families import build, collated
    from gradistill.attribution.targets import Target
    from gradistill.models.probe import Probe
    from gradistill.signals import AttributionScores, Logits, compute_signals

    model, batch = build("bert"), Batch.of(collated())
    probe = Probe.find(model)
    at = [AttributionScores(Target("label_nll", view)) for view in ("gold", "teacher")]
    own = compute_signals(model, probe, batch, [Logits()], create_graph=False)[Logits()].argmax(-1)
    other = (own + 1) % 3
    unknown = replace(batch, labels=torch.full_like(own, UNLABELLED), teacher_labels=other)
    printed = compute_signals(model, probe, unknown, at, create_graph=False)
    assert torch.equal(printed[at[0]], printed[at[1]])


def test_what_cannot_be_is_refused(small: Any, tmp_path: Path) -> None:
    data = with_more(small, "score", tmp_path)
    gold = load_recipe("adkd", task="stsb", changes=["student.layers=2"])
    with pytest.raises(RecipeError, match="differentiates the distance from the gold score"):
        distill(str(small.teachers["score"]), data, tmp_path / "run", gold)
    with pytest.raises(RecipeError, match="learns from labels alone"):
        distill(str(small.teachers["score"]), data, tmp_path / "run", load_recipe("finetune"))
    wrong = replace(data, unlabelled=str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="no file or folder"):
        distill(str(small.teachers["score"]), wrong, tmp_path / "run", load_recipe("kd"))
