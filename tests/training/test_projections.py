"""Learned projections: trained with the student, kept in checkpoints, never saved with the student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from families import build
from gradistill.errors import TrainingError
from gradistill.objectives import Term, all_objectives
from gradistill.objectives.hard_label import HardLabel

NARROW = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 16}


def hidden(**fields: Any) -> list[Term]:
    return [Term(all_objectives()["hidden_states"](**fields))]


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


class Adapter(BertForSequenceClassification):
    """A student that saves only a part of its weights, as one with a LoRA adapter does."""

    def save_pretrained(
        self, save_directory: Any, *arguments: Any, state_dict: Any = None, **named: Any
    ) -> None:
        state = self.state_dict() if state_dict is None else state_dict
        kept = {
            name: tensor.contiguous()
            for name, tensor in state.items()
            if "classifier" in name or "pooler" in name
        }
        Path(save_directory).mkdir(exist_ok=True)
        save_file(kept, Path(save_directory) / "model.safetensors")


def adapter() -> Any:
    student = Adapter(narrow_student().config)
    student.load_state_dict(narrow_student().state_dict())
    for name, parameter in student.named_parameters():
        parameter.requires_grad_("classifier" in name or "pooler" in name)
    return student


def narrow_student() -> Any:
    return build("bert", seed=1, num_hidden_layers=2, **NARROW)  # with dropout: random states come back too


STUDENTS = {
    "a model": lambda: (narrow_student(), {}),
    "model_init": lambda: (None, {"model_init": lambda: narrow_student()}),
    "an adapter": lambda: (adapter(), {}),
}


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kind: str, kit: Any, tmp_path: Path) -> None:
    """To the last bit: student, projection, and the state of the optimizer for both."""
    often = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "per_device_train_batch_size": 2}
    ends = []
    for name, checkpoint in (("whole", None), ("again", str(tmp_path / "whole" / "checkpoint-3"))):
        student, options = STUDENTS[kind]()
        torch.manual_seed(0)
        terms = [*hidden(), Term(HardLabel())]
        models = (student, kit.models()[1])
        trainer = kit.trainer(terms, models, options=options, output_dir=str(tmp_path / name), **often)
        trainer.train(resume_from_checkpoint=checkpoint)
        projection = trainer.step.projections["hidden_states"]["states"].weight.detach().clone()
        ends.append({**trainer.model.state_dict(), "projection": projection})
    own = tmp_path / "whole" / "checkpoint-3" / "projections.safetensors"
    assert set(load_file(own)) == {"hidden_states.states.weight"}
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name]), name


def test_a_checkpoint_holds_the_student_alone_in_its_weights(kit: Any, tmp_path: Path) -> None:
    trainer = kit.trainer(
        hidden(), narrow_pair(kit), output_dir=str(tmp_path), save_strategy="steps", save_steps=2
    )
    trainer.train()
    weights = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert set(weights) == set(trainer.model.state_dict())


def test_a_checkpoint_of_an_earlier_version_still_goes_on(kit: Any, tmp_path: Path) -> None:
    """There the projections stood among the student's weights."""
    often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "output_dir": str(tmp_path)}
    whole = kit.trainer(hidden(), narrow_pair(kit), **often)
    whole.train()
    checkpoint = tmp_path / "checkpoint-2"
    own = checkpoint / "projections.safetensors"
    moved = {f"distillation_projections.{name}": tensor for name, tensor in load_file(own).items()}
    weights = checkpoint / "model.safetensors"
    save_file({**load_file(weights), **moved}, weights, metadata={"format": "pt"})
    own.unlink()
    again = kit.trainer(hidden(), narrow_pair(kit), **often)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(*(t.step.projections["hidden_states"]["states"].weight for t in (whole, again)))


def test_a_checkpoint_without_projections_is_refused(kit: Any, tmp_path: Path) -> None:
    often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "output_dir": str(tmp_path)}
    kit.trainer(hidden(), narrow_pair(kit), save_only_model=True, **often).train()
    again = kit.trainer(hidden(), narrow_pair(kit), **often)
    with pytest.raises(TrainingError, match="does not hold the projections of hidden_states"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_schedule_that_was_handed_in_cannot_know_projections(kit: Any) -> None:
    student, teacher = narrow_pair(kit)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    with pytest.raises(TrainingError, match="does not cover the projections"):
        kit.trainer(hidden(), (student, teacher), options={"optimizers": (optimizer, schedule)})


def test_stages_follow_each_other(kit: Any) -> None:
    """Ten steps: states in the first half, labels in the second, a fading term in the first four fifths."""
    terms = [
        Term(all_objectives()["hidden_states"](), end=0.5),
        Term(all_objectives()["hard_label"](), start=0.5),
        Term(all_objectives()["patience"](), 2.0, end=0.8, fade=True),
    ]
    trainer = kit.trainer(terms, max_steps=10)
    trainer.train()
    ran = {
        term.name: [entry["step"] for entry in trainer.state.log_history if f"raw/{term.name}" in entry]
        for term in terms
    }
    assert ran == {"hidden_states": [*range(1, 6)], "hard_label": [*range(6, 11)], "patience": [*range(1, 9)]}
    for entry in trainer.state.log_history:
        if "raw/patience" in entry:
            left = (0.8 - (entry["step"] - 1) / 10) / 0.8
            assert entry["weighted/patience"] == pytest.approx(entry["raw/patience"] * 2.0 * left, rel=1e-5)
    fading = [replace(terms[2], every=2).weight_at(progress) for progress in (0.0, 0.4, 0.8)]
    assert fading == pytest.approx([4.0, 2.0, 0.0])
