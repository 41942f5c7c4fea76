"""Integrated Gradients (Sundararajan et al. 2017) from a zero baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.errors import RecipeError
from gradistill.signals.forward_pass import ForwardPass
from gradistill.signals.row_attributions import Steps, integrate


@dataclass(frozen=True)
class IntegratedGradients:
    """``‖A_i‖₂`` of the attributions. ``steps`` of Gauss–Legendre, or ``"auto"``: as many nodes as each row needs."""

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated Gradients"
    source: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"

    steps: Steps = 50

    def __post_init__(self) -> None:
        if self.steps != "auto" and self.steps < 1:
            raise RecipeError(
                f"{self.steps} steps of Integrated Gradients", expected="1 or more", remedy="50 is usual"
            )

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return integrate(forward, self.steps).attributions.norm(dim=-1)
