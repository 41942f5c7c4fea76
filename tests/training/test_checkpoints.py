"""A checkpoint is whole or not there, and an older one goes only when a newer one is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradistill.errors import RecipeError
from gradistill.recipe import load_recipe
from gradistill.training import checkpoints
from gradistill.training.arguments import sealing
from gradistill.training.checkpoints import SEAL, Sealing, last_whole, remove_unsealed, seal


def checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    at = folder / f"checkpoint-{step}"
    at.mkdir(parents=True)
    (at / "model.safetensors").write_bytes(bytes([step]) * 100)
    (at / "trainer_state.json").write_text("{}", encoding="utf-8")
    if sealed:
        seal(at)
    return at


def test_the_newest_whole_one_counts_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (9, 10, 2):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 11, sealed=False)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert last_whole(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "damage", ["shorter", "flipped", "gone", "no seal", "seal of zeros", "seal of a list"]
)
def test_a_damaged_one_is_passed_over_and_removed(damage: str, tmp_path: Path) -> None:
    older, newer = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    weights, mark = newer / "model.safetensors", newer / SEAL
    content = bytearray(weights.read_bytes())
    content[50] ^= 4
    {
        "shorter": lambda: weights.write_bytes(bytes(content[:-1])),
        "flipped": lambda: weights.write_bytes(bytes(content)),
        "gone": weights.unlink,
        "no seal": mark.unlink,
        "seal of zeros": lambda: mark.write_bytes(b"\0" * 40),
        "seal of a list": lambda: mark.write_text("[1]", encoding="utf-8"),
    }[damage]()
    assert last_whole(tmp_path) == older
    remove_unsealed(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]


def test_files_in_folders_are_sealed_too(tmp_path: Path) -> None:
    """Such as a tokenizer's additional_chat_templates."""
    at = checkpoint(tmp_path, 1, sealed=False)
    inner = at / "additional_chat_templates" / "tool.jinja"
    inner.parent.mkdir()
    inner.write_text("{{ messages }}", encoding="utf-8")
    seal(at)
    assert last_whole(tmp_path) == at
    inner.write_text("{{ messages[0] }}", encoding="utf-8")
    assert last_whole(tmp_path) is None


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(("limit", "left"), [(1, 1), (3, 3), (None, 6)])
def test_as_many_are_kept_as_wanted(limit: int | None, left: int, kit: Any) -> None:
    trainer = kit.trainer("finetune", max_steps=6, save_strategy="steps", save_steps=1)
    trainer.add_callback(Sealing(kept=limit))
    trainer.train()
    assert kept(kit.folder / "run") == [f"checkpoint-{step}" for step in range(7 - left, 7)]
    assert last_whole(kit.folder / "run") == kit.folder / "run" / "checkpoint-6"


def test_the_best_is_kept_beside_the_last(kit: Any) -> None:
    data = kit.rows(3)
    trainer = kit.trainer(
        "finetune", max_steps=4, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True, learning_rate=30.0,
        options={"eval_dataset": data},
    )  # fmt: skip
    best: list[str] = []
    saving = Sealing(kept=1)
    seen = saving.on_save

    def noted(args: Any, state: Any, control: Any, **rest: Any) -> None:
        seen(args, state, control, **rest)
        best.append(Path(state.best_model_checkpoint).name)
        assert set(kept(kit.folder / "run")) == {best[-1], f"checkpoint-{state.global_step}"}

    saving.on_save = noted
    trainer.add_callback(saving)
    trainer.train()
    assert len(best) == 4
    assert best[-1] != "checkpoint-4", (
        "with such a rate the last is not the best, or this test looks at nothing"
    )


def test_minutes_ask_for_a_checkpoint_within_an_epoch(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(
        range(0, 10_000, 45)
    )  # seconds: it is looked at when made and begun, at each step, after each save
    monkeypatch.setattr(checkpoints, "monotonic", lambda: float(next(clock)))
    trainer = kit.trainer("finetune", max_steps=7, save_strategy="epoch", per_device_train_batch_size=1)
    trainer.add_callback(Sealing(kept=None, minutes=2.0))
    trainer.train()
    assert kept(kit.folder / "run") == ["checkpoint-3", "checkpoint-6", "checkpoint-7"]


@pytest.mark.parametrize("limit", ["0", "-1", "two", "1.5", "true"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    recipe = load_recipe("kd", changes=[f"training.arguments.save_total_limit={limit}"])
    with pytest.raises(RecipeError, match=r"(?s)save_total_limit is .*1 or more"):
        sealing(recipe.training)
