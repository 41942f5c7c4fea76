"""Several labels a row: the contract for every objective, and float64 witnesses of the distances and targets."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from scipy.special import expit

from families import build, collated
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import RecipeError, TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, Pair, Term, all_objectives
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import AttributionScores, InputGradient, compute_signals
from gradistill.signals.counterfactual import edited_ids_of
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.step import Step
from gradistill.training.trainer_checks import refuse_labels, refuse_other_pair
from objectives.loops import B, C, pair_of
from objectives.test_contract import EVERY, batch_of, distances, with_draws

FLAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def several(**changes: Any) -> dict[str, torch.Tensor]:
    return {**collated(**changes), "labels": FLAGS}


def classifier(seed: int) -> Any:
    model = build("bert", seed=seed, initializer_range=0.2)
    model.config.problem_type = "multi_label_classification"
    return model


@cache
def found(seed: int) -> tuple[Any, Probe]:
    model = classifier(seed)
    return model, Probe.find(model)


def step_of(name: str) -> tuple[Step, Any]:
    (student, own), (teacher, theirs) = found(1), found(2)
    student, pair = copy.deepcopy(student), Pair(own, theirs)
    EVERY[name].check(pair)
    online = OnlineTeacher(ProbedModel(teacher, theirs))
    return Step([Term(EVERY[name])], pair, ProbedModel(student, own), online), student


def test_the_probe_knows_several_labels() -> None:
    assert found(1)[1].multi_label
    assert not Probe.find(build("bert")).multi_label


@pytest.mark.parametrize("name", EVERY)
def test_every_objective_is_finite_reaches_the_student_and_ignores_padding(name: str) -> None:
    step, student = step_of(name)
    batch = batch_of(several())
    with second_order_attention(student):
        values = distances(step, student, batch)
        values.sum().backward()
    assert values.shape == (3,)
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    wide = several()
    for key in ("input_ids", "attention_mask"):
        wide[key] = torch.nn.functional.pad(wide[key], (0, 4))
    torch.testing.assert_close(
        distances(step, student, batch_of(wide)).detach(), values.detach(), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in EVERY if name != "hard_label"])
def test_zero_on_identical_models(name: str) -> None:
    step, student = step_of(name)
    batch = replace(with_draws(batch_of(several()), step), multi_label=True)
    seen = {}
    for role in ("teacher", "student"):
        requests = EVERY[name].signals(step.pair, role)
        answers = compute_signals(student, step.student.probe, batch, requests.values(), create_graph=False)
        batch = replace(batch, edited_ids=edited_ids_of(answers, batch))
        seen |= {key: answers[request] for key, request in requests.items()}
    assert EVERY[name].distance(seen, seen, batch, EpochProgress()).abs().max() < 1e-6


def of(name: str, student: Any, teacher: Any, labels: Any = None, **fields: Any) -> list[float]:
    mask = torch.ones(B, 2).bool()
    share = None if labels is None else (~labels[:, 0].isnan()).double().mean()
    batch = Batch({}, mask, labels=labels, multi_label=True, labels_per_example=share)
    objective = all_objectives()[name](**fields)
    return objective.distance(student, teacher, batch, EpochProgress()).tolist()


def bernoulli_kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_hard_label_is_the_mean_cross_entropy_and_rows_without_labels_are_none_of_it() -> None:
    student, _ = pair_of({"logits": (B, C)})
    flags = (torch.arange(B * C).view(B, C) % 2).double()
    flags[1] = torch.nan
    expected = []
    for z, y in zip(student["logits"].tolist(), flags.tolist(), strict=True):
        losses = [-math.log(expit(a) if b else 1 - expit(a)) for a, b in zip(z, y, strict=True)]
        expected.append(0.0 if math.isnan(y[0]) else sum(losses) / C * B / (B - 1))
    assert of("hard_label", student, {}, flags) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("divergence", ["kl", "soft_cross_entropy"])
def test_soft_label_is_the_mean_over_labels_of_two_bernoullis(divergence: str) -> None:
    student, teacher = pair_of({"logits": (B, C)})
    expected = []
    for z_s, z_t in zip(student["logits"].tolist(), teacher["logits"].tolist(), strict=True):
        each = []
        for s, t in zip(z_s, z_t, strict=True):
            p, q = expit(t / 3), expit(s / 3)
            entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
            each.append(bernoulli_kl(p, q) + (entropy if divergence == "soft_cross_entropy" else 0))
        expected.append(9 * sum(each) / C)
    measured = of(
        "soft_label", student, teacher, temperature=3.0, divergence=divergence, times_temperature_squared=True
    )
    assert measured == pytest.approx(expected, rel=1e-10)


def test_distances_of_copies_are_those_of_two_bernoullis() -> None:
    student, teacher = pair_of({"logits": (B, C)})
    ours, theirs = student["logits"].unsqueeze(1), teacher["logits"].unsqueeze(1)
    pairs = zip(ours[:, 0].tolist(), theirs[:, 0].tolist(), strict=True)
    expected = [
        sum(4 * bernoulli_kl(expit(t / 2), expit(s / 2)) for s, t in zip(*pair, strict=True)) / C
        for pair in pairs
    ]
    measured = copy_distances(ours, theirs, 2.0, multi_label=True)[:, 0]
    assert measured.tolist() == pytest.approx(expected, rel=1e-10)
    far = copy_distances(
        torch.tensor([[[200.0, -200]]]), torch.tensor([[[-200.0, 200]]]), 1.0, multi_label=True
    )
    assert far.isfinite().all()


def test_targets_are_functions_of_their_own_logit() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    p = logits.sigmoid()
    expected = {
        "log_odds": (p / (1 - p)).log(),
        "logit": logits,
        "margin": logits,
        "confidence": p,
        "label_nll": -p.log(),
    }
    for kind, values in expected.items():
        target: Any = Target(kind, "all")
        torch.testing.assert_close(target.values(logits, None, multi_label=True), values)
    flags = (torch.rand(4, 3) < 0.5).double()
    gold = Target("gold_loss", "gold").values(logits, flags, multi_label=True)
    by_hand = -(flags * p.log() + (1 - flags) * (1 - p).log()).mean(1, keepdim=True)
    torch.testing.assert_close(gold, by_hand)


def test_every_view_has_a_gradient_of_its_own() -> None:
    """Three labels span three gradients here: the naive ones of each logit, no differences of them."""
    model = copy.deepcopy(found(1)[0]).double()
    probe, batch = Probe.find(model), batch_of(several())
    views = compute_signals(model, probe, batch, [InputGradient(Target("log_odds"))], create_graph=False)
    with probe.tapped(model) as taps:
        logits = model(**batch.inputs).logits
    naive = [torch.autograd.grad(logits[:, k].sum(), taps[0], retain_graph=True)[0] for k in range(3)]
    torch.testing.assert_close(views[InputGradient(Target("log_odds"))], torch.stack(naive, dim=1))


def test_the_view_teacher_is_the_top_label() -> None:
    model, probe = found(1)
    batch = batch_of(several())
    whole, top = AttributionScores(Target("log_odds")), AttributionScores(Target("log_odds", "teacher"))
    given = replace(batch, teacher_labels=torch.tensor([2, 0, 1]))
    scores = compute_signals(model, probe, given, [whole, top], create_graph=False)
    torch.testing.assert_close(scores[top][:, 0], scores[whole][torch.arange(3), torch.tensor([2, 0, 1])])


def test_one_gold_label_does_not_exist() -> None:
    pair = Pair(found(1)[1], found(2)[1])
    with pytest.raises(RecipeError, match="several labels or none"):
        all_objectives()["rationale"](view="gold").check(pair)
    all_objectives()["attribution_map"](target="gold_loss", view="gold").check(pair)


def test_labels_and_pairs_of_another_kind_are_refused() -> None:
    own, other = found(1)[1], Probe.find(build("bert"))
    with pytest.raises(TrainingError, match=r"a 0\.0 or 1\.0 for each of 3 labels"):
        refuse_labels(batch_of(collated()), own)
    refuse_labels(batch_of(several()), own)
    with pytest.raises(TrainingError, match="several labels a row"):
        refuse_labels(batch_of(several()), other)
    with pytest.raises(TrainingError, match="The student has problem_type"):
        refuse_other_pair(Pair(own, other))
