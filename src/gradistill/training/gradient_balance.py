"""Whether the predictions count beside the gradient objectives: both gradients, compared on a few early batches.

The optimizer gets their sum, which clipping and Adam bring to one length. Where one is hundreds of times the other, the
other is hardly trained. The objectives have unit length at the outputs, and not at the weights. How long their
gradients are there depends on the model's size: on mrpc 3 times those of the predictions in a student of MiniLM, and
150 to 450 times in one of base size, which then predicted one label for every row (docs/training.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isfinite
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

logger = logging.getLogger(__name__)

LOOKED_AT = (0, 5, 10)
"""Optimizer steps on whose first batch both are compared: a new student's first gradients are no sign of the later
ones."""
DROWNS = 100.0
"""So many times as long a gradient drowns the other."""


class GradientBalance:
    """Compares the gradients, and warns once. No ``.grad`` changes, and no graph is freed."""

    def __init__(self) -> None:
        self._left, self._ratios = list(LOOKED_AT), list[float]()

    def wants(self, step: int) -> bool:
        """Whether this optimizer step, counted from 0, is one of those, and its first batch."""
        if self._left and step >= self._left[0]:
            self._left = [later for later in self._left if later > step]
            return True
        return False

    def compare(
        self,
        predictions: Tensor,
        others: Tensor,
        parameters: Sequence[nn.Parameter],
        names: Sequence[str],
    ) -> None:
        """Take the norms of both losses' gradients at the student's ``parameters``.

        ``others`` is the loss of the gradient objectives, ``names``. Behind the last look a warning is logged if the
        median of the ratios is ``DROWNS`` or more.
        """
        norms = _norm(predictions, parameters), _norm(others, parameters)
        if norms[0] > 0 and isfinite(norms[1]):
            self._ratios.append(norms[1] / norms[0])
        if not self._left and self._ratios and (ratio := median(self._ratios)) >= DROWNS:
            smaller = " ".join(f"objectives.{name}.weight" for name in names)
            logger.warning(
                f"the gradient of {' and '.join(names)} is {ratio:.0f} times that of the prediction losses. The "
                "optimizer sees their sum, and will hardly train the predictions: try a tenth of "
                f"{smaller}, or compute.gradient_conflict: cap"
            )


def _norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    with torch.autocast(loss.device.type, enabled=False):  # backward passes are not run under autocast
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return float(get_total_norm([gradient.float() for gradient in found if gradient is not None]))
