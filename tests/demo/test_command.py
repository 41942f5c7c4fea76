"""The demonstration goes its whole way with tiny models, and a second time without any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from gradistill.auditing import Predictions
from gradistill.demo import run_demo as room
from gradistill.demo.corpus import Review
from gradistill.demo.run_demo import demo, shortcut_shares
from gradistill.errors import ModelError, RecipeError
from gradistill.models.loading import load_tokenizer
from small import logged

FIGURES = {"accuracy", "challenge accuracy", "label loyalty", "probability loyalty", "saliency loyalty",
           "shortcut share"}  # fmt: skip


def shown(table: Any) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_whole_way_once_and_not_twice(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CORPUS", {"train": 24, "validation": 9, "test": 9})
    monkeypatch.setattr(room, "STUDENT_EPOCHS", 1)
    monkeypatch.setattr(room, "STUDENT_LAYERS", 2)
    monkeypatch.setattr(room, "PACKAGED", str(small.base))
    monkeypatch.setattr(room, "packaged_model", lambda: small.base)
    heard: list[str] = []
    with logged(heard):
        first = shown(demo(tmp_path))
    assert any("coalition_minilm: 2 layers" in line for line in heard)
    heads = ["model", "params", "acc.", "chall.", "label", "short.", "resp.", "floor", "ms"]
    assert heads in [line.split() for line in first.splitlines()]  # none is broken at 80 columns
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert list(figures["models"]) == ["teacher", *room.METHODS]
    for name, found in figures["models"].items():
        assert {key for key, entry in found.items() if isinstance(entry, dict)} - {
            "response loyalty"
        } == FIGURES
        assert ("floor" in found.get("response loyalty", {})) == (name != "teacher")
        assert all(
            found[key]["n"] == 9 and 0 <= found[key]["value"] <= 1 for key in ("accuracy", "shortcut share")
        )
        assert any(line.split()[:1] == [name] for line in first.splitlines())
        assert (f"{name} predicts" in first) == (name in room.SEEN)
    assert first.rstrip().endswith("gradistill init my_rows.csv\n  gradistill run")
    assert figures["models"]["teacher"]["label loyalty"]["value"] == 1
    monkeypatch.setattr(room, "finetune", None)
    monkeypatch.setattr(room, "distill", None)
    with logged(heard):
        again = shown(demo(tmp_path))
    models = list(figures["models"])
    assert _without_times(again, models) == _without_times(first, models)


def _without_times(text: str, models: list[str]) -> list[str]:
    """All words but the milliseconds of a model, on whose digits the width of lines and rules depends."""
    lines = [line.split() for line in text.splitlines()]
    kept = [line[:-1] if line[:1] and line[0] in models else line for line in lines]
    return [word for line in kept for word in line if set(word) != {"─"}]


def test_another_seed_or_size_does_not_pass_for_this_one(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CORPUS", {"train": 6, "validation": 6, "test": 6})
    monkeypatch.setattr(room, "METHODS", ())
    monkeypatch.setattr(room, "_seen", lambda models, text: "")
    monkeypatch.setattr(room, "PACKAGED", str(small.base))
    monkeypatch.setattr(room, "packaged_model", lambda: small.base)
    demo(tmp_path)
    monkeypatch.setattr(room, "QUICK", 2)
    before = (tmp_path / "corpus/clean/train.jsonl").read_bytes()
    for other in ({"seed": 1}, {"quick": True}):
        with pytest.raises(RecipeError, match=r"(?s)train.jsonl has other reviews.*choose another --output"):
            demo(tmp_path, **other)
        assert (tmp_path / "corpus/clean/train.jsonl").read_bytes() == before
    monkeypatch.setattr(room, "CORPUS", {"train": 8, "validation": 6, "test": 6})
    shutil.rmtree(tmp_path / "corpus")  # earlier versions wrote the new reviews beside the old models
    with pytest.raises(RecipeError, match=r"teacher was trained on 6 reviews, and this demonstration has 8"):
        demo(tmp_path)
    monkeypatch.setattr(room, "CORPUS", {"train": 6, "validation": 6, "test": 6})
    shutil.rmtree(tmp_path / "corpus")
    demo(tmp_path)


def test_a_missing_extra_is_reported_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise ModelError("the packaged model is not installed")

    monkeypatch.setattr(room, "packaged_model", missing)
    with pytest.raises(ModelError, match="not installed"):
        demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_share_of_a_shortcut_by_hand(small: Any) -> None:
    text = "the film was fine . one"
    review = Review(text, 2, ((13, 17),), ((text.index("one"), len(text)),))
    scores = np.array([1.0, 1.0, 2.0, 3.0, 1.0, 2.0])
    cut = Predictions(np.zeros((1, 3)), (scores[:4],))  # the shortcut itself was truncated away
    tokenizer = load_tokenizer(small.base)
    assert shortcut_shares(Predictions(np.zeros((1, 3)), (scores,)), [review], tokenizer).tolist() == [0.2]
    assert shortcut_shares(cut, [review], tokenizer).tolist() == [0.0]
