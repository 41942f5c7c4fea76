"""The start-up check of the second-order term: does it let every supported pair pass, and hear every fault?

    python benchmarks/silence.py [--families bert gpt2 …]

A student of two layers from a teacher of three (Funnel: of three), tiny and random, of each tested family
(tests/families.py), under each recipe with a gradient objective, with the recipe's own dropout and in training mode:
none may be refused. Then one fault
at a time in the same student, under AD-KD: all must be. The faults sit on the matrix in the middle of the model, so
that the rest of every gradient stays. What a fault does is measured beside the check, in float64: how far all
second-order gradients are from those of an honest model with the same outputs, as a share of their length. Where
dynamo declines to compile, nothing has happened, and it is no fault.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import FAULTS, markdown, publish
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradistill.batch import Batch
from gradistill.errors import GradistillError, ModelError, TrainingError
from gradistill.models.attention import second_order_attention
from gradistill.models.probe import Probe
from gradistill.models.student import share_embeddings, silence_embedding_dropout, student_from_teacher
from gradistill.objectives import Pair
from gradistill.recipe import Recipe, load_recipe, shipped_methods
from gradistill.signals import AttributionScores, ClsGradient, InputGradient, compute_signals
from gradistill.training.gradient_check import check_second_order
from gradistill.training.step import signals_of

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from families import FAMILIES, build, collated
from faulty import Forgetful

GRADIENTS = (AttributionScores, ClsGradient, InputGradient)
SPREAD = 0.2
"""Of the random weights: with transformers' own 0.02 such small models are all but linear, and no fault is seen."""


def after(matrix: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    matrix.register_forward_hook(lambda _module, _given, output: change(output))


def without_gradients(matrix: nn.Module) -> None:
    matrix.forward = torch.no_grad()(matrix.forward)


def compiled(matrix: nn.Module) -> None:
    matrix.compile(backend="aot_eager")


FUSED, FORGETFUL = "fused attention", "custom function, silent"
LARGEST = "largest effect missed"
ROUNDING = 1e-9
"""Of float64: below it nothing has happened."""


def honest(matrix: nn.Module) -> None:
    """What ``Forgetful`` is compared with."""
    after(matrix, nn.functional.gelu)


FAULTY: dict[str, Callable[[nn.Module], object]] = {
    FORGETFUL: lambda matrix: after(matrix, Forgetful.apply),  # pyright: ignore[reportArgumentType]
    "no_grad": without_gradients,
    "detached": lambda matrix: after(matrix, Tensor.detach),
    "torch.compile": compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    given = parser.parse_args()
    recipes = {name: load_recipe(name) for name in shipped_methods()}
    found = {family: looked_at(family, recipes) for family in given.families}
    rows = [row(family, entry) for family, entry in found.items()]
    rows.append(total(found))
    publish("silence", markdown(rows), found, command="python benchmarks/silence.py", page=FAULTS)


def looked_at(family: str, recipes: dict[str, Recipe]) -> dict[str, dict[str, str]]:
    """``passed``, ``refused: …`` or ``impossible: …`` by recipe; ``detected``, ``none`` or ``missed: …`` by fault."""
    teacher = build(family, initializer_range=SPREAD)
    by_recipe = {}
    for name, recipe in recipes.items():
        try:
            student, asked = prepared(teacher, recipe)
        except GradistillError as error:
            by_recipe[name] = f"impossible: {error.what}"
            continue
        if asked:
            by_recipe[name] = verdict(student, asked)
    student, asked = prepared(teacher, recipes["adkd"])
    by_fault = {name: detected(student, asked, fault) for name, fault in FAULTY.items()}
    if teacher.config._attn_implementation == "sdpa":
        by_fault[FUSED] = "detected" if verdict(student, asked, fused=True) != "passed" else "missed: 1.0"
    return {"recipes": by_recipe, "faults": by_fault}


def prepared(teacher: Any, recipe: Recipe) -> tuple[Any, list[Any]]:
    """The recipe's student, and the gradients that it is asked for."""
    try:
        student = student_from_teacher(teacher, 2, dropout=recipe.student.dropout)
    except ModelError:  # Funnel's depth cannot be set: a student as deep as its teacher
        student = copy.deepcopy(teacher)
    share_embeddings(student, teacher, recipe.student.embeddings)
    if recipe.student.dropout == "not_in_embeddings":
        silence_embedding_dropout(student)
    pair = Pair(Probe.find(student), Probe.find(teacher), True)
    asked = signals_of(list(recipe.objectives.values()), pair, "student")
    return student, [request for request in asked if isinstance(request, GRADIENTS)]


def verdict(student: Any, asked: list[Any], *, fused: bool = False, probe: Probe | None = None) -> str:
    """``fused`` is in eval mode: with dropout the fused kernel of a CPU gives way to one that is right."""
    batch = Batch.of(collated())
    probe = probe or Probe.find(student)
    try:
        with nullcontext() if fused else second_order_attention(student):
            batch = replace(batch, teacher_labels=torch.zeros(len(batch), dtype=torch.long))
            check_second_order(student.train(not fused), probe, batch, asked)
    except TrainingError as error:
        return f"refused: {str(error).splitlines()[0]}"
    return "passed"


def detected(student: Any, asked: list[Any], fault: Callable[[nn.Module], object]) -> str:
    probe = Probe.find(student)
    faulty, true = copy.deepcopy(student), copy.deepcopy(student)
    fault(middle(faulty, probe))
    if fault is FAULTY[FORGETFUL]:
        honest(middle(true, probe))
    try:
        if verdict(faulty, asked, probe=probe) != "passed":
            return "detected"
        lost = effect(faulty, true, asked, probe)
        return f"missed: {lost:.1e}" if lost > ROUNDING else "none"
    finally:
        torch._dynamo.reset()


def middle(student: Any, probe: Probe) -> nn.Module:
    found = [m for name, m in student.named_modules()
             if isinstance(m, nn.Linear | Conv1D) and not name.startswith(probe.embedding)]  # fmt: skip
    return found[len(found) // 2 - 1]


def effect(faulty: Any, true: Any, asked: list[Any], probe: Probe) -> float:
    """The distance of the second-order gradients of all parameters, as a share of the true ones' length."""
    found, expected = (second_order(model.eval().double(), asked, probe) for model in (faulty, true))
    return float((found - expected).norm() / expected.norm())


def second_order(model: Any, asked: list[Any], probe: Probe) -> Tensor:
    batch = Batch.of(collated())
    labels = torch.zeros(len(batch), dtype=torch.long)
    with second_order_attention(model):
        said = compute_signals(model, probe, batch, asked, create_graph=True, teacher_labels=labels)
        total = sum(
            (signal * torch.linspace(0.5, 1, signal.numel()).view(signal.shape)).sum()
            for signal in said.values()
        )
        parameters = [p for p in model.parameters() if p.requires_grad]
        found = torch.autograd.grad(total, parameters, allow_unused=True)  # pyright: ignore[reportArgumentType]
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                      for p, g in zip(parameters, found, strict=True)])  # fmt: skip


def counts(entries: dict[str, str]) -> Counter[str]:
    return Counter(entry.partition(":")[0] for entry in entries.values())


def row(family: str, entry: dict[str, dict[str, str]]) -> dict[str, Any]:
    recipes, faults = counts(entry["recipes"]), counts(entry["faults"])
    missed = [found for found in entry["faults"].values() if found.startswith("missed")]
    return {
        "family": family,
        "pairs let pass": recipes["passed"],
        "false alarms": recipes["refused"],
        "not possible": recipes["impossible"],
        "faults detected": faults["detected"],
        "missed": faults["missed"],
        LARGEST: max((float(e.partition(": ")[2]) for e in missed), default=0.0),
    }


def total(found: dict[str, Any]) -> dict[str, Any]:
    rows = [row("", entry) for entry in found.values()]
    sums = {key: sum(entry[key] for entry in rows) for key in rows[0] if key not in ("family", LARGEST)}
    return {"family": "**all**", **sums, LARGEST: max(entry[LARGEST] for entry in rows)}


if __name__ == "__main__":
    main()
