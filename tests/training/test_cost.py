"""A guard that counts instead of timing: what a step may multiply, run and differentiate, recipe by recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from families import VOCABULARY, build
from gradistill.attribution import gradients
from gradistill.batch import Batch
from gradistill.models.probe import Probe, ProbedModel
from gradistill.objectives import EpochProgress, Pair
from gradistill.recipe import load_recipe
from gradistill.signals import Logits
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.step import Step
from slow import slow


def _benchmark(name: str) -> ModuleType:
    """A module of the folder benchmarks, which is not on the path: its names would hide those of tests."""
    spec = spec_from_file_location(
        f"benchmarks_{name}", Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Encoder = _benchmark("arithmetic").Encoder
WIDE = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4}
ROWS, TOKENS = 4, 24
INNER = {"finetune": 0, "kd": 0, "pkd": 0, "gkd": 1, "gkd_cls": 1}
"""Inner gradients a step, whatever the number of labels; AD-KD takes one fewer than there are labels."""


class Given:
    """A teacher whose answers lie ready, as from a store."""

    def __init__(self, signals: dict[Any, Any]) -> None:
        self.signals = signals

    def __call__(self, _batch: Batch, requests: Any) -> Any:
        return {request: self.signals[request] for request in requests}


def a_step(method: str, labels: int, layers: int, *, trimmed: bool) -> tuple[Step, Any, Batch]:
    student = build("bert", labels=labels, num_hidden_layers=layers, attention="eager", **WIDE).train()
    teacher = build("bert", labels=labels, num_hidden_layers=layers, seed=1, **WIDE)
    probe, online = Probe.find(student), OnlineTeacher(teacher)
    recipe = load_recipe(method)
    terms = list(recipe.objectives.values())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (ROWS, TOKENS), generator=generator)
    gold = torch.zeros(ROWS) if labels == 1 else torch.zeros(ROWS, dtype=torch.long)
    batch = Batch.of({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": gold})
    step = Step(terms, Pair(probe, online.probe), ProbedModel(student, probe), online)

    signals = dict(online(batch, (Logits(), *step.signals("teacher"))))
    probe = probe if trimmed else replace(probe, trim=None)
    return replace(step, teacher=Given(signals), student=ProbedModel(student, probe)), student, batch


def run(step: Step, student: Any, batch: Batch) -> None:
    distances, _ = step.distances(student, batch, EpochProgress())
    torch.stack([term.weight * distances[term.name].mean() for term in step.terms]).sum().backward()


def inner_gradients(method: str, labels: int) -> int:
    return INNER.get(method, max(labels - 1, 1))


@pytest.mark.parametrize("trimmed", [False, True], ids=["whole", "trimmed"])
@pytest.mark.parametrize("labels", [1, slow(2), 3, slow(10)])
@pytest.mark.parametrize("method", ["finetune", "kd", slow("pkd"), slow("gkd"), "gkd_cls", "adkd"])
def test_products_of_a_step_are_those_of_the_arithmetic(method: str, labels: int, trimmed: bool) -> None:
    step, student, batch = a_step(method, labels, 3, trimmed=trimmed)
    with FlopCounterMode(display=False) as counted:
        run(step, student, batch)
    encoder = Encoder(3, WIDE["hidden_size"], WIDE["intermediate_size"], labels, ROWS, TOKENS)
    expected = encoder.step_flops(inner_gradients(method, labels), trimmed=trimmed)
    assert counted.get_total_flops() == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("labels", [1, 2, 3, 10])
@pytest.mark.parametrize("method", ["finetune", "kd", "pkd", "gkd", "gkd_cls", "adkd"])
def test_a_step_runs_forward_once_and_differentiates_as_often_as_it_must(
    method: str, labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, student, batch = a_step(method, labels, 2, trimmed=True)
    inner: list[Sequence[Any]] = []
    forwards: list[int] = []
    grad = torch.autograd.grad

    def counting(outputs: Any, inputs: Sequence[Any], **options: Any) -> Any:
        if inputs[0].ndim == 3:  # sites inside the model; the weights of views end at the logits
            inner.append(inputs)
        return grad(outputs, inputs, **options)

    monkeypatch.setattr(gradients.torch.autograd, "grad", counting)
    student.register_forward_hook(lambda *_: forwards.append(1))
    run(step, student, batch)
    assert (len(forwards), len(inner)) == (1, inner_gradients(method, labels))


@pytest.mark.parametrize("layers", [2, 3, 6])
def test_the_arithmetic_is_that_of_the_methods(layers: int) -> None:
    """METHODS.md 6: an aligned step costs 2 + T/(6 D + T) plain ones, and less with a trimmed last block."""
    encoder = Encoder(layers, 384, 1536, 2, 32, 128)
    plain = encoder.step_flops()
    assert encoder.step_flops(1) / plain == pytest.approx(2 + 128 / (6 * 384 + 128), rel=1e-3)
    assert plain == 3 * encoder.forward_flops()
    assert encoder.step_flops(1, trimmed=True) / plain == pytest.approx(2 - 2 * 0.85 / layers, abs=0.1)
