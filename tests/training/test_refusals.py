"""What the trainer refuses, before training or in the middle of it, and what its messages say."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from gradistill.batch import Batch
from gradistill.errors import RecipeError, TrainingError
from gradistill.models.probe import Probe
from gradistill.objectives import (
    AttentionScores,
    CoalitionMatching,
    CounterfactualEffects,
    Interchange,
    NoiseMatching,
)
from gradistill.objectives.attribution_map import AttributionMap
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.patience import Patience
from gradistill.objectives.soft_label import SoftLabel
from gradistill.signals import Signal
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training import trainer as trainer_module
from stand_ins import raising


def test_no_objectives_are_refused(kit: Any) -> None:
    with pytest.raises(TrainingError, match="`objectives` is empty"):
        kit.trainer([])


@pytest.mark.parametrize("objective", [SoftLabel(), Patience(), GradientAlignment()], ids=lambda o: o.name)
def test_a_missing_teacher_is_refused(objective: Any, kit: Any) -> None:
    student, _ = kit.models()
    with pytest.raises(TrainingError, match="`teacher` is missing") as caught:
        kit.trainer([HardLabel(), objective], (student, None))
    assert "pass teacher=…" in str(caught.value)


def test_an_objective_that_cannot_apply_is_refused(kit: Any) -> None:
    with pytest.raises(RecipeError, match="a student of 1 layer"):
        kit.trainer([Patience()], kit.models(num_hidden_layers=1))
    with pytest.raises(RecipeError, match="the student has its own embeddings"):
        kit.trainer([GradientAlignment()], options={"shared_embeddings": False})


def test_a_teacher_is_not_its_own_student(kit: Any) -> None:
    _, teacher = kit.models()
    with pytest.raises(TrainingError, match="`model` is the teacher itself"):
        kit.trainer([SoftLabel()], (teacher, teacher))


COMPARE_LABELS = (
    SoftLabel(), CoalitionMatching(), NoiseMatching(), Interchange(layer_map="first"), CounterfactualEffects(),
    AttributionMap(),
)  # fmt: skip


@pytest.mark.parametrize("objective", COMPARE_LABELS, ids=lambda o: o.name)
def test_a_pair_whose_outputs_stand_for_other_labels_is_refused(objective: Any, kit: Any) -> None:
    for names, message in (
        (
            ["no", "yes", "maybe"],
            "outputs of student and teacher are in different orders: no, yes, maybe; Yes, no",
        ),
        (["no", "yes"], "The student has 2 outputs, and the teacher 3"),
    ):
        student, teacher = kit.models(labels=len(names))[0], kit.models()[1]
        student.config.id2label = dict(enumerate(names))
        teacher.config.id2label = dict(enumerate(["Yes", "no", "maybe"]))
        with pytest.raises(TrainingError, match=message):
            kit.trainer([objective], (student, teacher))
        kit.trainer([HardLabel(), AttentionScores()], (student, teacher))  # neither compares labels


def test_gradients_of_a_teacher_in_narrow_numbers_are_refused(kit: Any) -> None:
    student, teacher = kit.models()
    kit.trainer([SoftLabel()], (student, teacher.bfloat16()))
    with pytest.raises(RecipeError, match="which computes in bfloat16: too coarse for gradients"):
        kit.trainer([AttributionMap()], (student, teacher))


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_named_with_its_row(label: int, kit: Any) -> None:
    rows = kit.rows(3)
    rows[5]["labels"] = label
    trainer = kit.trainer([HardLabel()], data=rows, max_steps=10)
    with pytest.raises(
        TrainingError, match=f"Row 5 of the training data has the label {label}, and the student has 3"
    ):
        trainer.train()


def test_whole_numbers_are_no_scores(kit: Any) -> None:
    rows = kit.rows(3)
    for row in rows:
        row["labels"] = 1
    trainer = kit.trainer([HardLabel()], kit.models(labels=1), data=rows, max_steps=1)
    with pytest.raises(
        TrainingError, match=r"whole numbers, and the student predicts one score(?s:.)*float32"
    ):
        trainer.train()


def test_a_teacher_that_is_spread_over_devices_is_not_moved(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = kit.models()
    teacher.hf_device_map = {"": "cpu"}
    monkeypatch.setattr(teacher, "to", raising(RuntimeError("You can't move it")))
    kit.trainer([SoftLabel()], (student, teacher)).train()


def test_a_teacher_that_was_trained_meanwhile_computes_without_dropout(kit: Any) -> None:
    losses = []
    for disturbed in (False, True):
        student, teacher = kit.models()
        for module in teacher.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        trainer = kit.trainer([SoftLabel()], (student, teacher))
        if disturbed:
            teacher.train()
        trainer.train()
        losses.append([logs["loss"] for logs in trainer.state.log_history if "loss" in logs])
    assert losses[0] == losses[1]


def test_an_objective_of_ones_own_is_named_where_its_distance_has_another_shape(kit: Any) -> None:
    for over, shape in ((lambda each: each.mean(), "()"), (lambda each: each.unsqueeze(1), "(4, 1)")):

        class Own(SoftLabel):
            name: ClassVar[str] = "own"

            def distance(self, *given: Any, over: Any = over) -> Any:
                return over(super().distance(*given))

        with pytest.raises(TrainingError) as caught:
            kit.trainer([Own()]).train()
        assert f"objective 'own' has the shape {shape}" in str(caught.value)


def wrapped_in(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every Trainer believe that it was started under this wrapper."""
    real = Trainer.create_accelerator_and_postprocess

    def create(self: Any) -> None:
        real(self)
        setattr(self, flag, True)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)


WRAPPERS = {"is_fsdp_enabled": "FSDP", "is_deepspeed_enabled": "DeepSpeed"}


@pytest.mark.parametrize("flag", WRAPPERS)
def test_wrappers_that_lose_inner_gradients_are_refused(
    flag: str, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped_in(flag, monkeypatch)
    with pytest.raises(TrainingError) as caught:
        kit.trainer("gkd")
    message = str(caught.value)
    assert message.startswith(WRAPPERS[flag])
    assert "for a student under a gradient objective" in message
    assert "torchrun" in message


@pytest.mark.parametrize("flag", WRAPPERS)
def test_the_same_wrappers_stand_where_no_gradient_is_matched(
    flag: str, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped_in(flag, monkeypatch)
    assert not kit.trainer("kd").step.second_order


@pytest.mark.parametrize("method", ["kd", "gkd", "coalition_minilm"])
def test_one_process_trains_on_one_device(
    method: str, kit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Replicas of nn.DataParallel lose the hooks; and two devices made the batch twice as large."""
    real = Trainer.create_accelerator_and_postprocess

    def create(self: Any) -> None:
        real(self)
        self.args._n_gpu = 2
        self._train_batch_size = self.args.train_batch_size

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    caplog.set_level(logging.WARNING, logger=trainer_module.__name__)
    arguments = kit.arguments(per_device_train_batch_size=4)
    before = arguments.n_gpu
    trainer = kit.trainer(method, options={"args": arguments})
    assert trainer.args.n_gpu == 1
    assert trainer._train_batch_size == trainer.args.train_batch_size == 4
    assert trainer.args is not arguments
    assert arguments.n_gpu == before, "the caller's stays as it is"
    (message,) = caplog.messages
    assert "2 devices are available" in message
    assert "torchrun --nproc-per-node 2" in message
    trainer.train()


def test_rows_without_a_score_whose_distance_is_differentiated_are_refused(kit: Any) -> None:
    data = kit.rows(1)
    data[5]["labels"] = float("nan")
    for target, refused in (("gold_loss", True), ("log_odds", False)):
        terms = [HardLabel(), AttributionMap(target=target, view="gold" if refused else "all")]
        trainer = kit.trainer(terms, kit.models(labels=1), data=data)
        if refused:
            with pytest.raises(TrainingError, match="attribution_map differentiates the loss of the labels"):
                trainer.train()
        else:
            trainer.train()


@pytest.mark.parametrize("method", ["finetune", "kd", "adkd"])
def test_data_without_labels_is_refused(method: str, kit: Any) -> None:
    data = [{k: v for k, v in row.items() if k != "labels"} for row in kit.rows(3)]
    with pytest.raises(TrainingError, match="A batch has no labels") as caught:
        kit.trainer(method, data=data).train()
    assert "rename the label column to 'labels'" in str(caught.value)


def test_a_student_without_a_second_derivative_never_starts(kit: Any) -> None:
    """A branch of its first block is cut: every weight would still move, and the gradient term would not train."""
    student, teacher = kit.models(initializer_range=0.2)
    block = student.bert.encoder.layer[0].intermediate
    real = block.forward
    block.forward = lambda states: real(states).detach()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    trainer = kit.trainer("gkd", (student, teacher))
    with pytest.raises(TrainingError, match="second-order gradient of the student is missing or wrong"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert all(torch.equal(p, before[name]) for name, p in student.named_parameters())
    kit.trainer("kd", (student, teacher)).train()  # it has all that soft labels need


class SilentOnRow:
    """A teacher that says NaN about some rows of the training data, in one of its answers."""

    def __init__(self, model: Any, rows: tuple[int, ...], kind: str) -> None:
        self.teacher, self.rows, self.kind = OnlineTeacher(model), torch.tensor(rows), kind

    def __call__(self, batch: Batch, requests: Iterable[Signal]) -> dict[Signal, Tensor]:
        signals = dict(self.teacher(batch, requests))
        assert batch.index is not None
        spoiled = torch.isin(batch.index, self.rows)
        for request, tensor in signals.items():
            if type(request).__name__ == self.kind:
                signals[request] = torch.where(spoiled.view(-1, *[1] * (tensor.ndim - 1)), torch.nan, tensor)
        return signals


@pytest.mark.parametrize(
    ("method", "kind", "named"),
    [
        ("kd", "Logits", "soft_label"),
        ("adkd", "AttributionScores", "attribution_map"),
        ("gkd_cls", "ClsStates", "patience"),
    ],
)
def test_a_term_that_is_not_finite_is_named_with_its_step_and_rows(
    method: str, kind: str, named: str, kit: Any
) -> None:
    student, model = kit.models()
    teacher = SilentOnRow(model, (3,), kind)
    trainer = kit.trainer(
        method, (student, teacher), options={"teacher_facts": Probe.find(model)}, max_steps=4
    )
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    step = trainer.state.global_step
    message = str(caught.value)
    assert message.startswith(
        f"{named} stopped being finite at step {step}, in rows [3] of the training data"
    )
    assert "is intact" not in message  # there is no checkpoint yet
    assert all(p.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("clipped_at", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_reaches_no_weight(value: float, clipped_at: float, kit: Any) -> None:
    """Under a finite loss: nothing but the gradient shows it."""
    student, teacher = kit.models()
    trainer = kit.trainer("gkd", (student, teacher), max_steps=4, max_grad_norm=clipped_at)
    bias = student.bert.encoder.layer[1].output.dense.bias
    bias.register_hook(lambda gradient: gradient * (value if trainer.state.global_step == 2 else 1.0))
    with pytest.raises(TrainingError, match=r"the gradient of .* stopped being finite at step 2, in rows \["):
        trainer.train()
    assert trainer.state.global_step == 2
    assert all(p.isfinite().all() for p in student.parameters())


class Ends(TrainerCallback):
    """Notes the attention that each step runs with; stops with an error at the end of one."""

    def __init__(self, step: int | None = None) -> None:
        self.step, self.attention = step, []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.attention.append(model.config._attn_implementation)
        if state.global_step == self.step:
            raise InterruptedError("stopped")


@pytest.mark.parametrize("before", ["sdpa", "eager"])
@pytest.mark.parametrize(("method", "within"), [("gkd", "eager"), ("kd", None)])
def test_the_students_attention_comes_back(method: str, within: str | None, before: str, kit: Any) -> None:
    student, teacher = kit.models(attention=before)
    watching = Ends()
    kit.trainer(method, (student, teacher), options={"callbacks": [watching]}).train()
    assert watching.attention == [within or before] * 2
    assert student.config._attn_implementation == before
    assert teacher.config._attn_implementation == "sdpa"


def test_the_students_attention_comes_back_after_an_error(kit: Any) -> None:
    student, teacher = kit.models(attention="sdpa")
    with pytest.raises(InterruptedError, match="stopped"):
        kit.trainer("gkd", (student, teacher), options={"callbacks": [Ends(1)]}).train()
    assert student.config._attn_implementation == "sdpa"
