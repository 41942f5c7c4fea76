"""Integrated Gradients (Sundararajan et al. 2017) from a zero baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.adaptive_quadrature import integrated_to_tolerance
from gradistill.attribution.quadrature import IntegrationResult, integrated_in_steps
from gradistill.errors import RecipeError
from gradistill.signals.explained import EXPLAINED
from gradistill.signals.forward_pass import ForwardPass

Steps = int | Literal["auto"]


@dataclass(frozen=True)
class IntegratedGradients:
    """``‖A_i‖₂`` of the attributions. ``steps`` of Gauss–Legendre, or ``"auto"``: as many nodes as each row needs to
    miss completeness by no more than ``tolerance`` (``attribution.adaptive_quadrature``)."""

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated Gradients"
    source: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"
    reruns: ClassVar[bool] = True

    steps: Steps = 50
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if self.steps != "auto" and self.steps < 1:
            raise RecipeError(
                f"{self.steps} steps of Integrated Gradients", expected="1 or more", remedy="50 is usual"
            )

    def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> IntegrationResult:
        """One vector a token, with completeness residuals and the number of nodes of each row."""
        path, together = forward.path(EXPLAINED), rows_at_once or forward.rows_at_once
        if self.steps == "auto":
            return integrated_to_tolerance(path, tolerance=self.tolerance, rows_at_once=together)
        return integrated_in_steps(path, steps=self.steps, rows_at_once=together)

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return self.attributions(forward).attributions.norm(dim=-1)
