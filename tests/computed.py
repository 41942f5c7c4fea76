"""Signals of a tiny model for the rows that all tests share, and paths of functions that are no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from families import collated
from gradistill.attribution.gradients import view_gradients
from gradistill.attribution.quadrature import Path, PathPoint
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.models.probe import Probe
from gradistill.signals import ForwardPass, Needs, Signal, compute_signals


def computed(model: Any, *signals: Signal, batch: Batch | None = None, **options: Any) -> Any:
    """``teacher_labels`` among the options go into the batch."""
    batch = Batch.of(collated(model.config.num_labels)) if batch is None else batch
    if (labels := options.pop("teacher_labels", None)) is not None:
        batch = replace(batch, teacher_labels=labels)
    return compute_signals(model, Probe.find(model), batch, signals, **{"create_graph": False, **options})


def forward_of(model: Any, batch: Batch, target: Target) -> ForwardPass:
    return ForwardPass.run(model, Probe.find(model), batch, Needs(targets=(target,)))


def run_of(model: Any, probe: Probe, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits from embedding outputs of the examples of a batch, by a hook of our own."""

    def run(rows: Tensor, examples: Tensor) -> Tensor:
        handle = model.get_submodule(probe.embedding).register_forward_hook(lambda *_: rows)
        try:
            return model(**batch.rows(examples).inputs).logits
        finally:
            handle.remove()

    return run


def path_of(
    run: Callable[[Tensor, Tensor], Tensor],
    embedding: Tensor,
    target: Target,
    label_ids: Tensor | None,
    *,
    baseline: Tensor | None = None,
    create_graph: bool = False,
) -> Path:
    """The path of a function from embedding outputs, and the example of each, to logits."""

    def at(rows: Tensor, examples: Tensor) -> PathPoint:
        if not create_graph:
            rows = rows.detach()
            if torch.is_grad_enabled():
                rows.requires_grad_()
        logits = run(rows, examples)
        values = target.values(logits, None if label_ids is None else label_ids[examples])
        invariant = target.shift_invariant

        def gradients() -> Tensor:
            return view_gradients(
                values, logits, [rows], create_graph=create_graph, shift_invariant=invariant
            )[0]

        return PathPoint(values, gradients)

    every = torch.arange(len(embedding))
    with torch.no_grad():
        values = target.values(run(embedding, every), label_ids)
    return Path(embedding, torch.zeros_like(embedding) if baseline is None else baseline, values, at)
