"""Learned linear maps from the student's signals to the teacher's width: part of the training, not of the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
    """Inside the block the projections are a part of the model: its optimizer, its device, its checkpoints."""
    if not len(projections):
        yield
        return
    model.add_module(_PLACE, projections)
    try:
        yield
    finally:
        delattr(model, _PLACE)
