"""The sampled view: one label for each example and step stands for all of them, without bias."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from families import build, collated
from gradistill.attribution import gradients
from gradistill.batch import Batch, RandomDraws
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, Objective, Pair, Term, all_objectives
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.lazy_terms import drawn_for
from gradistill.training.step import Step
from slow import slow


def step_of(objective: Objective, labels: int) -> tuple[Step, Any]:
    """In float64, so that a difference from the expectation has no other cause."""
    student, teacher = (
        build("bert", labels=labels, seed=seed, initializer_range=0.2, attention="eager").double()
        for seed in (1, 2)
    )
    probes = Probe.find(student), Probe.find(teacher)
    return Step(
        [Term(objective)],
        Pair(*probes),
        ProbedModel(student, probes[0]),
        OnlineTeacher(ProbedModel(teacher, probes[1])),
    ), student


def batch_of(labels: int, chosen: tuple[int, ...]) -> Batch:
    batch = Batch.of(collated(labels, rows=len(chosen), tokens=5))
    tokens = batch.mask.sum().double() / len(batch)
    drawn = RandomDraws(torch.arange(len(chosen)), torch.tensor(chosen), torch.ones(len(chosen), labels))
    return replace(batch, tokens_per_example=tokens, drawn=drawn)


def measured(step: Step, student: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Distances, and the gradient of their sum."""
    (values,) = step.distances(student, batch, EpochProgress())[0].values()
    found = torch.autograd.grad(values.sum(), list(student.parameters()), allow_unused=True)
    return values.detach(), torch.cat([g.flatten() for g in found if g is not None])


CASES: list[tuple[str, dict[str, Any]]] = [
    ("attribution_map", {}),
    ("attribution_map", {"target": "confidence", "average": "tokens"}),
    ("attribution_map", {"target": "logit", "distance_by": "l1"}),
    ("attribution_map", {"steps": 2, "keep": 0.5}),
    ("gradient_alignment", {"sites": ("embedding_output", "cls")}),
    ("gradient_alignment", {"target": "margin"}),
]


@pytest.mark.parametrize("labels", [slow(2), 3])
@pytest.mark.parametrize(("name", "fields"), CASES, ids=str)
def test_the_mean_over_all_draws_is_the_sum_over_all_views(
    name: str, fields: dict[str, Any], labels: int
) -> None:
    whole, student = step_of(all_objectives()[name](view="all", **fields), labels)
    sampled = replace(whole, terms=[Term(all_objectives()[name](view="sampled", **fields))])
    expected = measured(whole, student, batch_of(labels, (0, 0)))
    draws = list(product(range(labels), repeat=2))
    found = [measured(sampled, student, batch_of(labels, chosen)) for chosen in draws]
    for k in range(2):
        mean = torch.stack([draw[k] for draw in found]).mean(0)
        torch.testing.assert_close(mean, expected[k], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["attribution_map", "gradient_alignment"])
def test_in_a_regression_there_is_nothing_to_draw(name: str) -> None:
    whole, student = step_of(all_objectives()[name](view="all"), 1)
    sampled = replace(whole, terms=[Term(all_objectives()[name](view="sampled"))])
    batch = batch_of(1, (0, 0, 0))
    for ours, theirs in zip(measured(sampled, student, batch), measured(whole, student, batch), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("view", "passes"), [("all", 4), ("sampled", 1)])
def test_one_inner_gradient_serves(view: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five labels, teacher and student alike; all views take C − 1."""
    step, student = step_of(all_objectives()["attribution_map"](view=view), 5)
    through_the_model: list[bool] = []
    real = torch.autograd.grad

    def counted(outputs: Tensor, inputs: Any, **options: Any) -> Any:
        if inputs[0].ndim == 3:
            through_the_model.append(options["create_graph"])
        return real(outputs, inputs, **options)

    monkeypatch.setattr(gradients.torch.autograd, "grad", counted)
    step.distances(student, batch_of(5, (4, 0, 2)), EpochProgress())
    assert through_the_model == [False] * passes + [True] * passes


def test_labels_are_drawn_anew_and_evenly() -> None:
    batch = Batch.of(collated(rows=16))
    draws = [drawn_for(batch, 3, 0, 0, step, 0) for step in range(1000)]
    assert torch.equal(draws[7].label, drawn_for(batch, 3, 0, 0, 7, 0).label)
    counts = torch.stack([draw.label for draw in draws]).flatten().bincount()
    # 16 000 draws of probability ⅓: 5333, standard deviation 60; the largest of 3 within 4 of them
    assert len(counts) == 3
    assert (counts - 16000 / 3).abs().max() < 240
    together = torch.stack([(draw.place < 4) & (draw.label == 0) for draw in draws]).sum()
    # rows and labels are drawn independently: 16 000 · ¼ · ⅓ = 1333, standard deviation below 36
    assert abs(together - 1333) < 144
