"""Terms that see a share of the rows: an unbiased estimate, and only these rows in the second-order graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from families import build, collated
from gradistill.batch import Batch, RandomDraws
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, Objective, Pair, Term
from gradistill.objectives.attribution_map import AttributionMap
from gradistill.objectives.gradient_alignment import GradientAlignment
from gradistill.objectives.hard_label import HardLabel
from gradistill.objectives.soft_label import SoftLabel
from gradistill.signals import Logits
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.lazy_terms import drawn_for
from gradistill.training.step import Step
from slow import slow

ROWS = 4


def step_of(*terms: Term) -> tuple[Step, Any]:
    """In float64, so that a difference from the expectation has no other cause."""
    student, teacher = (
        build("bert", seed=seed, initializer_range=0.2, attention="eager").double() for seed in (1, 2)
    )
    probes = Probe.find(student), Probe.find(teacher)
    return Step(
        terms, Pair(*probes), ProbedModel(student, probes[0]), OnlineTeacher(ProbedModel(teacher, probes[1]))
    ), student


def batch_of(place: Iterable[int] | None = None) -> Batch:
    batch = Batch.of(collated(rows=ROWS))
    tokens = batch.mask.sum().double() / ROWS
    drawn = (
        None
        if place is None
        else RandomDraws(torch.tensor(list(place)), torch.zeros(ROWS).long(), torch.ones(ROWS, 3))
    )
    return replace(batch, tokens_per_example=tokens, drawn=drawn)


def gradient_of(values: Tensor, student: Any) -> Tensor:
    wanted = [p for p in student.parameters() if p.requires_grad]
    found = torch.autograd.grad(values.sum(), wanted, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize("share", [0.25, slow(0.6)])
@pytest.mark.parametrize(
    "objective",
    [slow(AttributionMap()), AttributionMap(average="tokens"), GradientAlignment(), SoftLabel()],
    ids=repr,
)
def test_the_mean_over_all_draws_is_the_whole(objective: Objective, share: float) -> None:
    whole, student = step_of(Term(objective))
    (expected,) = whole.distances(student, batch_of(), EpochProgress())[0].values()
    expected_gradient = gradient_of(expected, student)
    shared = replace(whole, terms=[Term(objective, share=share)])
    draws = list(permutations(range(ROWS)))
    mean, gradient = torch.zeros_like(expected), torch.zeros_like(expected_gradient)
    for place in draws:
        (found,) = shared.distances(student, batch_of(place), EpochProgress())[0].values()
        assert int((found > 0).sum()) == (1 if share == 0.25 else 3)
        mean += found.detach() / len(draws)
        gradient += gradient_of(found, student) / len(draws)
    torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_terms_of_several_shares_each_see_their_own() -> None:
    """The drawn rows of a smaller share are among those of a larger; values and logits stand at their rows."""
    whole, student = step_of(Term(HardLabel()), Term(GradientAlignment()), Term(AttributionMap()))
    expected, expected_logits = whole.distances(student, batch_of(), EpochProgress())
    terms = [Term(HardLabel()), Term(GradientAlignment(), share=0.25), Term(AttributionMap(), share=0.5)]
    found, logits = replace(whole, terms=terms).distances(student, batch_of([2, 0, 3, 1]), EpochProgress())
    torch.testing.assert_close(logits, expected_logits, rtol=1e-10, atol=1e-12)
    scales = {"hard_label": [1, 1, 1, 1], "gradient_alignment": [0, 4, 0, 0], "attribution_map": [0, 2, 0, 2]}
    for name, scale in scales.items():
        torch.testing.assert_close(found[name], expected[name] * torch.tensor(scale), rtol=1e-10, atol=1e-12)


def operations(step: Step, student: Any) -> int:
    """Floating-point operations of the student in one step; its teacher has spoken before."""
    signals = step.teacher(batch_of(), (Logits(), *step.signals("teacher")))
    quiet = replace(step, teacher=lambda batch, requests: {r: signals[r][batch.index] for r in requests})
    with FlopCounterMode(display=False) as counter:
        values = quiet.distances(student, batch_of([2, 0, 3, 1]), EpochProgress())[0].values()
        torch.stack([value.sum() for value in values]).sum().backward()
    return counter.get_total_flops()


def test_a_share_costs_its_share() -> None:
    """Of what the second-order term adds to a plain step: nothing is computed twice, or for rows without need."""
    plain, student = step_of(Term(SoftLabel()))
    whole, part = (replace(plain, terms=[*plain.terms, Term(AttributionMap(), share=s)]) for s in (1.0, 0.25))
    extra, of_it = (operations(step, student) - operations(plain, student) for step in (whole, part))
    assert extra > 0
    assert of_it == extra / 4


def shared(share: float, view: Any = "all") -> list[Term]:
    return [Term(SoftLabel()), Term(AttributionMap(view=view), share=share)]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("share", "rows", "passes"), [(1.0, 4, 1), (0.5, 2, 2), (0.3, 2, 2), (0.01, 1, 2)])
def test_only_the_drawn_rows_have_a_second_order_graph(
    share: float, rows: int, passes: int, kit: Any, graphs: list[int]
) -> None:
    forwards: list[int] = []
    student, model = kit.models()
    teacher = kit.noting(model)
    options = {"teacher_facts": Probe.find(model)}
    trainer = kit.trainer(shared(share), (student, teacher), max_steps=3, options=options)
    head = student.classifier
    head.register_forward_hook(lambda m, _, output: forwards.append(len(output)) if m.training else None)
    trainer.train()
    assert graphs == [rows] * 3
    assert [len(asked) for asked in teacher.explained] == [rows] * 3
    assert forwards == ([rows, 4 - rows] if passes == 2 else [4]) * 3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("view", [slow("all"), "sampled"])
@pytest.mark.parametrize("checkpoint", [1, slow(3)])
def test_a_resumed_run_draws_the_same(checkpoint: int, view: Any, kit: Any) -> None:
    """Rows, and the label of a sampled view."""
    asked, found = [], []
    for resume in (None, str(kit.folder / "run" / f"checkpoint-{checkpoint}")):
        student, model = kit.models(hidden_dropout_prob=0.2)
        teacher = kit.noting(model)
        trainer = kit.trainer(
            shared(0.5, view), (student, teacher), max_steps=5, save_strategy="steps", save_steps=1,
            per_device_train_batch_size=2, gradient_accumulation_steps=2, lr_scheduler_type="linear",
            options={"teacher_facts": Probe.find(model)},
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        asked.append(teacher.explained)
        found.append(student.state_dict())
    assert asked[1] == asked[0][2 * checkpoint :]
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor), name


def test_draws_follow_from_their_numbers() -> None:
    """Another seed, process, step or accumulated batch is another draw; each order is as likely as any."""
    batch = Batch.of(collated(rows=16))
    first = drawn_for(batch, 3, 0, 0, 0, 0).place
    assert torch.equal(first, drawn_for(batch, 3, 0, 0, 0, 0).place)
    assert first.sort().values.tolist() == list(range(16))
    for numbers in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        assert not torch.equal(first, drawn_for(batch, 3, *numbers).place)
    counts = torch.stack([drawn_for(batch, 3, 0, 0, step, 0).place < 4 for step in range(4000)]).sum(0)
    # 4000 draws of probability ¼: 1000, standard deviation 27; the largest of 16 within 4 of them
    assert (counts - 1000).abs().max() < 110


@pytest.mark.parametrize(
    ("share", "batch", "rows"), [(0.25, 16, 4), (0.25, 3, 1), (0.07, 100, 7), (1.0, 5, 5), (1e-7, 8, 1)]
)
def test_a_share_is_rounded_up(share: float, batch: int, rows: int) -> None:
    assert Term(HardLabel(), share=share).rows_of(batch) == rows


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_is_above_0_and_at_most_1(share: float) -> None:
    with pytest.raises(ValidationError, match="share"):
        Term(HardLabel(), share=share)
