"""Whether the predictions count beside the gradient objectives: both gradients, compared on a few early batches.

The optimizer gets their sum, which clipping and Adam bring to one length. Where one is dozens of times the other, the
other is hardly trained. The objectives have unit length at the outputs, and not at the weights. How long their
gradients are there depends on the model's size. That of ``rationale`` is 1 to 6 times as long as that of the
predictions in students of MiniLM at first, and 16 times on 60 steps of mrpc. In one of base size it is 111 times as
long, and the student then predicted one label for every row; with a tenth of the weight it predicted well
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
"""How often both are compared, from the first step on which both are trained, and how many steps apart: a new student's
first gradients are no sign of the later ones."""

DROWNING_RATIO = 30.0
"""So many times as long, the gradient of the objectives drowns that of the predictions: 16 times work, 111 do not."""

FILE = "gradient_balance.json"
"""Of a checkpoint: what was compared before it."""


class GradientBalance:
    """Compares the two gradients. No ``.grad`` changes, and no graph is freed.

    ``steps`` are the optimizer steps that were compared, ``ratios`` what was found on them, ``names`` those of the
    objectives that were there.
    """

    def __init__(self) -> None:
        self.names, self.steps, self.ratios = set[str](), list[int](), list[float]()

    def due(self, step: int, names: Collection[str]) -> bool:
        """Whether both are to be compared on this batch, of this optimizer step (counted from 0). It begins anew with
        the stage of an objective that was not among the ``names`` before, unless the predictions were drowned."""
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
        """Compare the gradients of both losses at the student's ``parameters``: their norms, averaged over processes.

        ``objectives`` is the loss of the gradient objectives. Both are as heavy as on average over the steps. A step on
        which a norm is 0 or not finite counts for nothing.
        """
        self.steps.append(step)
        norms = torch.stack([_norm(predictions, parameters), _norm(objectives, parameters)])
        averaged: Any = accelerator.reduce(norms, "mean")
        of_predictions, of_objectives = averaged.tolist()
        if all(isfinite(norm) and norm > 0 for norm in (of_predictions, of_objectives)):
            self.ratios.append(of_objectives / of_predictions)

    @property
    def done(self) -> bool:
        """Whether no step is left to be compared."""
        return len(self.steps) == COMPARISONS

    @property
    def ratio(self) -> float | None:
        """The median over the compared steps of how many times as long the objectives' gradient is; None before."""
        return median(self.ratios) if self.ratios else None

    @property
    def drowning_ratio(self) -> float | None:
        """The ratio if the predictions are drowned by all steps that are compared, else None."""
        return self.ratio if self.done and (self.ratio or 0.0) >= DROWNING_RATIO else None

    def save(self, checkpoint: Path) -> None:
        """Write what was compared into a checkpoint, so that a run that goes on from it ends alike."""
        if self.steps:
            state = {"names": sorted(self.names), "steps": self.steps, "ratios": self.ratios}
            (checkpoint / FILE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint. One of a version that compared nothing has no such file."""
        state = read_object(checkpoint / FILE) if (checkpoint / FILE).is_file() else {}
        self.names = set(state.get("names", []))
        self.steps, self.ratios = state.get("steps", []), state.get("ratios", [])


def _norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    with torch.autocast(loss.device.type, enabled=False):  # backward passes are not run under autocast
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return get_total_norm([gradient.float() for gradient in found if gradient is not None])
