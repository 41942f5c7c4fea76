"""Compares the gradients of prediction losses and gradient objectives at the student's weights on a few early batches.

The optimizer sees their sum, whose length clipping and Adam normalise. A gradient that is dozens of times longer leaves
the other loss untrained. The objectives have unit length at the outputs, not at the weights, where the length of their
gradients depends on the model's size. In students of MiniLM the gradient of ``rationale`` is at first 1 to 6 times as
long as the gradient of the prediction losses, and 16 times on 60 steps of mrpc. In a student of base size it was 111
times as long, and the student predicted one label for every row. With a tenth of the weight it predicted well
(docs/training.md).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gradistill.io import read_object

COMPARISONS, STEPS_BETWEEN = 3, 5
"""The number of comparisons, from the first step on which both are trained, and the steps between them. Several are
needed because a new student's first gradients do not predict the later ones."""

DROWNING_RATIO = 30.0
"""From this ratio on, the objectives' gradient drowns the prediction losses' gradient: 16 worked, 111 did not."""

FILE = "gradient_balance.json"
"""File of a checkpoint with the comparisons made before it."""


class GradientBalance:
    """Compares the two gradients. It changes no ``.grad`` and frees no graph.

    ``steps``: the optimizer steps on which gradients were compared. ``ratios``: the results. ``names``: the gradient
    objectives that took part.
    """

    def __init__(self) -> None:
        self.names, self.steps, self.ratios = set[str](), list[int](), list[float]()

    def due(self, step: int, names: Collection[str]) -> bool:
        """Whether to compare the gradients on this batch of optimizer ``step`` (from 0). An objective that is new among
        ``names`` restarts the comparison, unless the predictions were drowned."""
        if not self.names.issuperset(names) and self.drowning_ratio is None:
            self.names.update(names)
            self.steps, self.ratios = [], []
        return not self.done and (not self.steps or step - self.steps[-1] >= STEPS_BETWEEN)

    def compare(
        self,
        step: int,
        predictions: Tensor,
        objectives: Tensor,
        parameters: Sequence[nn.Parameter],
        accelerator: Accelerator,
    ) -> None:
        """Compare the norms of both losses' gradients at the student's ``parameters``, averaged over processes.

        ``objectives`` is the loss of the gradient objectives. Both losses have their average weights over the steps. A
        step on which a norm is 0 or not finite adds no ratio.
        """
        self.steps.append(step)
        norms = torch.stack([_norm(predictions, parameters), _norm(objectives, parameters)])
        averaged: Any = accelerator.reduce(norms, "mean")
        of_predictions, of_objectives = averaged.tolist()
        if all(isfinite(norm) and norm > 0 for norm in (of_predictions, of_objectives)):
            self.ratios.append(of_objectives / of_predictions)

    @property
    def done(self) -> bool:
        """Whether all comparisons are made."""
        return len(self.steps) == COMPARISONS

    @property
    def ratio(self) -> float | None:
        """The median of ``ratios``: how many times as long the objectives' gradient is. None without comparisons."""
        return median(self.ratios) if self.ratios else None

    @property
    def drowning_ratio(self) -> float | None:
        """The ratio if all comparisons are made and it reaches ``DROWNING_RATIO``, else None."""
        return self.ratio if self.done and (self.ratio or 0.0) >= DROWNING_RATIO else None

    def save(self, checkpoint: Path) -> None:
        """Write the comparisons into a checkpoint, so that a resumed run has the same result."""
        if self.steps:
            state = {"names": sorted(self.names), "steps": self.steps, "ratios": self.ratios}
            (checkpoint / FILE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, checkpoint: Path) -> None:
        """Read the comparisons from a checkpoint. Checkpoints of versions without comparisons have no such file."""
        state = read_object(checkpoint / FILE) if (checkpoint / FILE).is_file() else {}
        self.names = set(state.get("names", []))
        self.steps, self.ratios = state.get("steps", []), state.get("ratios", [])


def _norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    with torch.autocast(loss.device.type, enabled=False):  # backward passes are not run under autocast
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return get_total_norm([gradient.float() for gradient in gradients if gradient is not None])
