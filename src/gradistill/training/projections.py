"""Learned linear maps from the student's signals to the teacher's width: part of the training, not of the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from torch import nn

from gradistill.objectives import Pair, Term

_PLACE = "distillation_projections"


def projections_for(terms: Sequence[Term], pair: Pair) -> nn.ModuleDict:
    """One map a term and signal, without a bias; between equal widths it starts as the identity."""
    found = nn.ModuleDict()
    for term in terms:
        maps = {name: _linear(*widths) for name, widths in term.objective.projections(pair).items()}
        if maps:
            found[term.name] = nn.ModuleDict(maps)
    return found


def _linear(width: int, wanted: int) -> nn.Linear:
    linear = nn.Linear(width, wanted, bias=False)
    if width == wanted:
        nn.init.eye_(linear.weight)
    return linear


@contextmanager
def trained_with(model: nn.Module, projections: nn.ModuleDict) -> Iterator[None]:
    """Inside the block the projections are a part of the model: its optimizer, its device, its checkpoints.

    DistributedDataParallel passes them over, because the model's own forward pass does not use them:
    ``averaged_over_processes`` is for their gradients.
    """
    if not len(projections):
        yield
        return
    model.add_module(_PLACE, projections)
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{_PLACE}.")]
    model._ddp_params_and_buffers_to_ignore = names  # pyright: ignore[reportArgumentType] (torch's own name for it)
    try:
        yield
    finally:
        delattr(model, _PLACE)
        del model._ddp_params_and_buffers_to_ignore


def averaged_over_processes(projections: nn.ModuleDict, accelerator: Accelerator) -> None:
    """What DistributedDataParallel does for the gradients of the model."""
    if accelerator.num_processes > 1 and accelerator.sync_gradients:
        for parameter in projections.parameters():
            if parameter.grad is not None:  # None in all processes: its stage is over
                averaged: Any = accelerator.reduce(parameter.grad, "mean")
                parameter.grad = averaged
