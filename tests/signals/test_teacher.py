"""The online teacher: it speaks as anyone does, keeps still, and counts its time."""

from __future__ import annotations

from typing import Any

import torch

from families import build, collated
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.models.probe import Probe, ProbedModel
from gradistill.signals import AttributionScores, InputGradient, Logits, compute_signals
from gradistill.signals.teacher import OnlineTeacher, TeacherSignals

REQUESTS = (Logits(), InputGradient(Target()), AttributionScores(Target("log_odds", "own"), steps=2))


def lively() -> Any:
    """A model in training mode with dropout and weights that want gradients."""
    return build("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()


def test_it_is_set_to_eval_mode_and_out_of_every_graph() -> None:
    model = lively()
    teacher = OnlineTeacher(model)
    assert isinstance(teacher, TeacherSignals)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for _ in range(2):
        for tensor in teacher(Batch.of(collated()), REQUESTS).values():
            assert not tensor.requires_grad
        assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_computes_the_same_twice_and_as_compute_signals() -> None:
    """In eval mode dropout is off: without it the three answers would differ."""
    model = lively()
    teacher = OnlineTeacher(model)
    batch = Batch.of(collated())
    first, second = teacher(batch, REQUESTS), teacher(batch, REQUESTS)
    direct = compute_signals(model, Probe.find(model), batch, REQUESTS, create_graph=False)
    for request in REQUESTS:
        assert torch.equal(first[request], second[request])
        assert torch.equal(first[request], direct[request])


def test_its_weights_stay_bit_for_bit() -> None:
    model = lively()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    OnlineTeacher(model)(Batch.of(collated()), REQUESTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_its_seconds_grow() -> None:
    teacher = OnlineTeacher(build("bert"))
    assert teacher.seconds == 0
    teacher(Batch.of(collated()), REQUESTS)
    once = teacher.seconds
    teacher(Batch.of(collated()), REQUESTS)
    assert 0 < once < teacher.seconds


def test_it_computes_where_gradients_are_off() -> None:
    """As in an evaluation loop: its own gradients do not depend on the mode that it is called in."""
    teacher, batch = OnlineTeacher(build("bert")), Batch.of(collated())
    with torch.no_grad():
        within = teacher(batch, REQUESTS)
        assert not torch.is_grad_enabled()
    outside = teacher(batch, REQUESTS)
    assert all(torch.equal(within[request], outside[request]) for request in REQUESTS)


def test_a_given_probe_is_used() -> None:
    model = build("bert")
    probe = Probe.find(model)
    assert OnlineTeacher(ProbedModel(model, probe)).probe is probe
