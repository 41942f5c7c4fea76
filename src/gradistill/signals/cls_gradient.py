"""The gradient of a target at the [CLS] position of intermediate states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, TargetSignal
from gradistill.signals.forward_pass import ForwardPass, Needs


@dataclass(frozen=True)
class ClsGradient(TargetSignal):
    """``∇ target`` at the [CLS] position of the states after ``layers``, ``(batch, view, layer, hidden)``."""

    title: ClassVar[str] = "[CLS] gradients"
    trains_on: ClassVar[str | None] = None  # these gradients are not taken at the input

    layers: tuple[int, ...]

    def needs(self) -> Needs:
        return Needs(layers=self.layers, targets=(self.target,), gradient_layers=self.layers)

    def of_text(self, forward: ForwardPass) -> Float[Tensor, "batch view layer hidden"]:
        rows, position = forward.text_positions
        gradients = [forward.gradients(self.target, layer) for layer in self.layers]
        return torch.stack([gradient[rows, :, position] for gradient in gradients], dim=2)

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((self.target.views(model.labels), len(self.layers), model.width))
