"""Queries, keys and values of the self-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.gradients import widened
from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, Signal
from gradistill.signals.forward_pass import ForwardPass, Needs

Part = Literal["query", "key", "value"]
_PARTS = get_args(Part)


@dataclass(frozen=True)
class AttentionVectors(Signal):
    """``(batch, layer, token, head, part)``: queries, keys or values of the self-attention of ``layers``. They are
    taken after rotary positions; key and value heads that several queries share are repeated."""

    title: ClassVar[str] = "self-attention"
    of_tokens: ClassVar[bool] = True

    part: Part
    layers: tuple[int, ...]

    def needs(self) -> Needs:
        return Needs(layers=self.layers, attention=True)

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch layer token head part"]:
        vectors = [forward.recorded.attention[k - 1][_PARTS.index(self.part)] for k in self.layers]
        return widened(torch.stack([heads.transpose(1, 2) for heads in vectors], dim=1))

    def layout(self, model: ModelFacts) -> Layout:
        width = model.attention_width // max(model.heads, 1)
        return Layout((len(self.layers), model.heads, width), per_token=True)
