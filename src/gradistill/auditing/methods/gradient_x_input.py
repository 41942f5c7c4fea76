"""Gradient × input (Shrikumar et al. 2016): the map of AD-KD, Integrated Gradients with one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.quadrature import IntegrationResult
from gradistill.signals.explained import EXPLAINED_TARGET, explained_labels
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class GradientXInput:
    """``‖E_i ⊙ ∇_{E_i} F‖₂``: one forward and one backward pass."""

    name: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "gradient × input"
    source: ClassVar[str] = "Shrikumar et al. 2016, arXiv 1605.01713"
    reruns: ClassVar[bool] = False

    def attributions(self, forward: ForwardPass, *, rows_at_once: int | None = None) -> IntegrationResult:
        """One vector for each token, without completeness: residuals are NaN."""
        del rows_at_once  # the model does not run again
        attributions = forward.embedding * forward.gradients(EXPLAINED_TARGET)[:, 0]
        residuals = torch.full_like(forward.logits[:, 0].detach(), torch.nan)
        return IntegrationResult(attributions, residuals, torch.ones_like(explained_labels(forward)))

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return self.attributions(forward).attributions.norm(dim=-1)
