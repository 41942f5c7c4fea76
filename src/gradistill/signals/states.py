"""Hidden states of every token, or of the token that the head reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.gradients import widened
from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, Signal
from gradistill.signals.forward_pass import ForwardPass, Needs


@dataclass(frozen=True)
class ClsStates(Signal):
    """``(batch, layer, hidden)``: hidden states of ``layers`` at the position that the head reads ([CLS])."""

    title: ClassVar[str] = "[CLS] states"

    layers: tuple[int, ...]

    def needs(self) -> Needs:
        return Needs(layers=self.layers)

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch layer hidden"]:
        states = forward.recorded.hidden_states
        return widened(torch.stack([states[k][forward.text_positions] for k in self.layers], dim=1))

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((len(self.layers), model.width))


@dataclass(frozen=True)
class States(Signal):
    """``(batch, layer, token, hidden)``: hidden states of ``layers``; 0 is the embedding output."""

    title: ClassVar[str] = "hidden states"
    of_tokens: ClassVar[bool] = True

    layers: tuple[int, ...]

    def needs(self) -> Needs:
        return Needs(layers=self.layers)

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch layer token hidden"]:
        return widened(torch.stack([forward.recorded.hidden_states[k] for k in self.layers], dim=1))

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((len(self.layers), model.width), per_token=True)
