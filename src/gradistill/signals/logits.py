"""Logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, Signal
from gradistill.signals.forward_pass import ForwardPass, Needs


@dataclass(frozen=True)
class Logits(Signal):
    """Logits ``(batch, label)`` in float32 or wider; for a token classifier ``(batch, token, label)``."""

    title: ClassVar[str] = "logits"
    cross_tokenizer: ClassVar[bool] = True
    of_tokens: ClassVar[bool] = True
    tokens_first: ClassVar[bool] = True

    def needs(self) -> Needs:
        return Needs()

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch *token label"]:
        return forward.logits

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((model.labels,), per_token=model.token_labels, vectors=False)
