"""Learned projections: trained with the student, kept in checkpoints, never saved with the student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from families import build
from gradistill.objectives import Term, objectives

NARROW = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 16}


def hidden(**fields: Any) -> list[Term]:
    return [Term(objectives()["hidden_states"](**fields))]


def narrow_pair(kit: Any) -> tuple[Any, Any]:
    student = build("bert", seed=1, num_hidden_layers=2, hidden_dropout_prob=0.0, **NARROW)
    return student, kit.models()[1]


def test_a_narrow_student_learns_and_keeps_nothing_of_the_projection(kit: Any) -> None:
    trainer = kit.trainer(hidden(), narrow_pair(kit), max_steps=30)
    names = set(trainer.model.state_dict())
    (linear,) = trainer.step.projections["hidden_states"].values()
    before = linear.weight.detach().clone()
    assert before.shape == (16, 8)
    trainer.train()
    losses = [
        entry["raw/hidden_states"] for entry in trainer.state.log_history if "raw/hidden_states" in entry
    ]
    assert losses[-1] < 0.8 * losses[0]
    assert not torch.equal(before, linear.weight)
    assert set(trainer.model.state_dict()) == names


def test_equal_widths_start_from_the_identity_and_may_go_without(kit: Any) -> None:
    (linear,) = kit.trainer(hidden()).step.projections["hidden_states"].values()
    assert torch.equal(linear.weight, torch.eye(16))
    assert len(kit.trainer(hidden(projection=False)).step.projections) == 0


def test_the_student_is_whole_again_after_an_error(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = kit.trainer(hidden())
    names = set(trainer.model.state_dict())

    def fails(*_: Any) -> Any:
        raise RuntimeError("in between")

    monkeypatch.setattr(type(trainer.step), "distances", fails)
    with pytest.raises(RuntimeError, match="in between"):
        trainer.train()
    assert set(trainer.model.state_dict()) == names


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kit: Any, tmp_path: Path) -> None:
    """Projection and its optimizer state come back with the checkpoint."""
    often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = kit.trainer(hidden(), narrow_pair(kit), output_dir=str(tmp_path / "whole"), **often)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    assert not any("projections" in name for name in load_file(checkpoint / "model.safetensors"))
    again = kit.trainer(hidden(), narrow_pair(kit), output_dir=str(tmp_path / "again"), **often)
    again.train(resume_from_checkpoint=str(checkpoint))
    ends = [dict(trainer.model.state_dict()) for trainer in (whole, again)]
    ends = [
        end | {"projection": trainer.step.projections["hidden_states"]["states"].weight}
        for end, trainer in zip(ends, (whole, again), strict=True)
    ]
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=0, atol=1e-6, msg=name)


def test_stages_follow_each_other(kit: Any) -> None:
    """Ten steps: states in the first half, labels in the second, a fading term in the first four fifths."""
    terms = [
        Term(objectives()["hidden_states"](), end=0.5),
        Term(objectives()["hard_label"](), start=0.5),
        Term(objectives()["patience"](), 2.0, end=0.8, fade=True),
    ]
    trainer = kit.trainer(terms, max_steps=10)
    trainer.train()
    ran = {
        term.name: [entry["step"] for entry in trainer.state.log_history if f"raw/{term.name}" in entry]
        for term in terms
    }
    assert ran == {"hidden_states": [*range(1, 6)], "hard_label": [*range(6, 11)], "patience": [*range(1, 9)]}
    fading = [replace(terms[2], every=2).weight_at(progress) for progress in (0.0, 0.4, 0.8)]
    assert fading == pytest.approx([4.0, 2.0, 0.0])
