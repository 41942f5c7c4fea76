"""The gradient of a target at the embedding output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, TargetSignal
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class InputGradient(TargetSignal):
    """``∇ target`` at the embedding output, ``(batch, view, token, hidden)``."""

    title: ClassVar[str] = "input gradients"

    def of_text(self, forward: ForwardPass) -> Float[Tensor, "batch view token hidden"]:
        return forward.gradients(self.target)

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((self.target.views(model.labels), model.width), per_token=True)
