"""Whole runs: what users of transformers' Trainer know still works, under gradient objectives too."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, TrainerCallback

from families import build
from gradistill.models.probe import Probe
from gradistill.objectives.soft_label import SoftLabel
from gradistill.signals.teacher import OnlineTeacher
from slow import slow

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


def weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("method", ["kd", "gkd"])
@pytest.mark.parametrize("order", ["random", slow("group_by_length")])
@pytest.mark.parametrize("checkpoint", [slow(1), 6], ids=["within an epoch", "within the second epoch"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    method: str, checkpoint: int, order: str, kit: Any
) -> None:
    """With dropout: the start-up check of the resumed run must not draw from its random numbers, nor the order of an
    epoch follow from those that were drawn before it."""
    found = []
    for resume in (None, str(kit.folder / "run" / f"checkpoint-{checkpoint}")):
        student, teacher = kit.models(frozen=method == "gkd", **DROPOUT)
        trainer = kit.trainer(
            method, (student, teacher), max_steps=8, save_strategy="steps", save_steps=1,
            lr_scheduler_type="linear", train_sampling_strategy=order, per_device_train_batch_size=2,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 8
        found.append(weights(student))
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name


@pytest.mark.usefixtures("unchecked")
def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(kit: Any) -> None:
    found = []
    for seed in (0, 0, 1):
        student, teacher = kit.models(**DROPOUT)
        kit.trainer("adkd", (student, teacher), seed=seed).train()
        found.append(weights(student))
    same, other = ([torch.equal(run[name], found[0][name]) for name in run] for run in found[1:])
    assert all(same)
    assert not all(other)


CHECKPOINTING = {"gradient_checkpointing": True}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # the older name is asked for
@pytest.mark.parametrize("method", [slow("gkd"), "adkd"])
def test_gradient_checkpointing_changes_no_gradient(
    method: str, kit: Any, moved: Callable[..., dict[str, Tensor]]
) -> None:
    found, recomputed = [], []
    for options in ({}, CHECKPOINTING):
        student, teacher = (model.double() for model in kit.models(frozen=method == "gkd"))
        calls: list[int] = []
        student.bert.encoder.layer[0].intermediate.register_forward_hook(lambda *_, c=calls: c.append(1))
        trainer = kit.trainer(method, (student, teacher), sgd=True, max_steps=1, **options)
        found.append(moved(trainer))
        recomputed.append(len(calls))
    assert recomputed[0] < recomputed[1]
    for name, gradient in found[0].items():
        # float64, the same operations
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-14, msg=name)


@pytest.mark.parametrize("method", [slow("gkd_cls"), "adkd"])
def test_bfloat16_trains_with_finite_terms_near_those_of_float32(method: str, kit: Any) -> None:
    logged = []
    for bf16 in (False, True):
        models = kit.models(frozen=method == "gkd_cls")
        trainer = kit.trainer(method, models, max_steps=1, bf16=bf16)
        trainer.train()
        logged.append(next(entry for entry in trainer.state.log_history if "loss" in entry))
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in models[0].parameters())
    assert logged[1]["loss"] != logged[0]["loss"]  # it was on
    for term in kit.terms_of(method):
        # bfloat16 has 8 bits: 0.4 % an operation, some of them in a row
        expected = pytest.approx(logged[0][f"raw/{term.name}"], rel=0.1)
        assert logged[1][f"raw/{term.name}"] == expected


def temperatures(kit: Any, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> list[float]:
    """τ at each step of an annealed run; eight rows are two steps an epoch."""
    seen: list[float] = []
    real = SoftLabel.temperature_at

    def watched(self: SoftLabel, progress: Any) -> float:
        seen.append(real(self, progress))
        return seen[-1]

    monkeypatch.setattr(SoftLabel, "temperature_at", watched)
    kit.trainer([SoftLabel(temperature=4.0, anneal=True)], **arguments).train()
    return seen


def test_annealing_moves_with_the_epochs(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """METHODS.md 1.6: τ + (1 − τ)·e/(E − 1)."""
    found = temperatures(kit, monkeypatch, max_steps=-1, num_train_epochs=3)
    assert found == [4, 4, 2.5, 2.5, 1, 1]


def test_annealing_ends_at_one_however_the_length_is_given(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert temperatures(kit, monkeypatch, max_steps=9) == [4, 4, 3.25, 3.25, 2.5, 2.5, 1.75, 1.75, 1]


def test_annealing_of_a_broken_last_epoch(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = temperatures(kit, monkeypatch, max_steps=-1, num_train_epochs=1.5)
    assert found == [4, 4, 1]


class Watching(TrainerCallback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.events.append("step")

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        self.events.append("terms" if "raw/gradient_alignment" in logs else "other")

    def on_evaluate(self, *_: Any, metrics: Any = None, **__: Any) -> None:
        self.events.append(f"accuracy {metrics['eval_accuracy']}")

    def on_save(self, *_: Any, **__: Any) -> None:
        self.events.append("save")


@pytest.mark.usefixtures("unchecked")
def test_callbacks_see_steps_terms_evaluations_and_checkpoints(kit: Any) -> None:
    watching = Watching()
    options = {
        "callbacks": [watching], "eval_dataset": kit.rows(3),
        "compute_metrics": lambda prediction: {"accuracy": 0.25},
    }  # fmt: skip
    kit.trainer(
        "gkd", options=options, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2
    ).train()
    assert watching.events[:6] == ["step", "terms", "step", "terms", "other", "accuracy 0.25"]
    assert watching.events[6] == "save"


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_evaluation_is_the_plain_models(method: str, kit: Any) -> None:
    """The teacher is not asked; the loss is the cross-entropy, the mean over rows of batches that differ in size."""
    student, model = kit.models()
    teacher = OnlineTeacher(model)
    data = kit.rows(3, 6)
    options = {
        "eval_dataset": data, "teacher_facts": teacher.probe,
        "compute_metrics": lambda p: {"accuracy": float(np.mean(p.predictions.argmax(-1) == p.label_ids))},
    }  # fmt: skip
    trainer = kit.trainer(method, (student, teacher), options=options, per_device_eval_batch_size=3)
    found, answers = trainer.evaluate(), trainer.predict(data)
    assert teacher.seconds == 0
    batch = kit.padded(data)
    with torch.no_grad():
        logits = student(batch["input_ids"], batch["attention_mask"]).logits
    assert found["eval_loss"] == pytest.approx(cross_entropy(logits, batch["labels"]).item(), rel=1e-5)
    right = (logits.argmax(-1) == batch["labels"]).double().mean().item()
    assert found["eval_accuracy"] == pytest.approx(right, abs=1e-12)
    np.testing.assert_allclose(answers.predictions, logits.numpy(), rtol=1e-4, atol=1e-5)  # float32
    unlabelled = [{k: v for k, v in row.items() if k != "labels"} for row in data]
    np.testing.assert_array_equal(trainer.predict(unlabelled).predictions, answers.predictions)


@pytest.mark.usefixtures("unchecked")
def test_anything_that_answers_requests_can_teach(kit: Any) -> None:
    found = []
    for wrap in (lambda model: model, kit.noting):
        student, model = kit.models(frozen=True)
        teacher = wrap(model)
        given = {} if teacher is model else {"teacher_facts": Probe.find(model)}
        kit.trainer("gkd_cls", (student, teacher), options=given).train()
        found.append(weights(student))
    assert sorted(chain.from_iterable(teacher.rows)) == list(range(8))
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.usefixtures("unchecked")
def test_the_best_model_is_loaded_at_the_end(kit: Any) -> None:
    scores = iter([0.1, 0.9, 0.5])
    options = {"eval_dataset": kit.rows(3), "compute_metrics": lambda prediction: {"score": next(scores)}}
    trainer = kit.trainer(
        "adkd", options=options, max_steps=3, eval_strategy="steps", eval_steps=1, save_strategy="steps",
        save_steps=1, load_best_model_at_end=True, metric_for_best_model="score",
    )  # fmt: skip
    trainer.train()
    saved = {k: load_file(kit.folder / "run" / f"checkpoint-{k}" / "model.safetensors") for k in (2, 3)}
    student: Any = trainer.model
    now = weights(student)
    assert all(torch.equal(tensor, now[name]) for name, tensor in saved[2].items())
    assert not all(torch.equal(tensor, now[name]) for name, tensor in saved[3].items())


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_what_is_saved_opens_as_any_model(method: str, kit: Any) -> None:
    trainer = kit.trainer(method, kit.models(attention="sdpa"), save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model(str(kit.folder / "saved"))
    student: Any = trainer.model
    batch = kit.padded(kit.rows(3))
    expected = student.eval()(batch["input_ids"], batch["attention_mask"]).logits
    untrained = build("bert", seed=1, num_hidden_layers=2)(batch["input_ids"], batch["attention_mask"]).logits
    assert (expected - untrained).abs().max() > 1e-3
    for folder in ("saved", "run/checkpoint-2"):
        opened = AutoModelForSequenceClassification.from_pretrained(Path(kit.folder) / folder)
        assert opened.config._attn_implementation == "sdpa"
        found = opened(batch["input_ids"], batch["attention_mask"]).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
