"""The norm of the gradient (Simonyan et al. 2014): how much a token could change the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class GradientNorm:
    """``‖∇_{E_i} F‖₂``: one forward and one backward pass."""

    name: ClassVar[str] = "gradient_norm"
    title: ClassVar[str] = "gradient norm"
    source: ClassVar[str] = "Simonyan et al. 2014, arXiv 1312.6034"

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return forward.gradients(EXPLAINED_TARGET)[:, 0].norm(dim=-1)
