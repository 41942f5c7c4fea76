"""Gradient × input (Shrikumar et al. 2016): AD-KD's own map, Integrated Gradients of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.signals.explained import EXPLAINED
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class GradientXInput:
    """``‖E_i ⊙ ∇_{E_i} F‖₂``: one forward and one backward pass."""

    name: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "gradient × input"
    source: ClassVar[str] = "Shrikumar et al. 2016, arXiv 1605.01713"

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return (forward.embedding * forward.gradients(EXPLAINED)[:, 0]).norm(dim=-1)
