"""Token scores of Integrated Gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.normalization import signed_scores, token_scores
from gradistill.attribution.quadrature import Rule, integrated_gradients
from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, TargetSignal
from gradistill.signals.forward_pass import ForwardPass

ROWS_AT_ONCE = 64
"""Rows in one forward pass when several steps of Integrated Gradients run the model again."""


@dataclass(frozen=True)
class AttributionScores(TargetSignal):
    """Token scores of Integrated Gradients, ``(batch, view, token)``. One right Riemann step is gradient × input.

    A score is the norm of a token's attribution entries; ``keep`` is the share of entries that enter it. With
    ``signed`` it is the sum of all entries instead.
    """

    title: ClassVar[str] = "attributions"

    steps: int = 1
    rule: Rule = "right_riemann"
    keep: float = 1.0
    signed: bool = False

    def of_text(self, forward: ForwardPass) -> Float[Tensor, "batch view token"]:
        attributions, mask = self._attributions(forward), forward.batch.mask.unsqueeze(1)
        if self.signed:
            return signed_scores(attributions, mask)
        return token_scores(attributions, mask, keep=self.keep)

    def _attributions(self, forward: ForwardPass) -> Float[Tensor, "batch view token hidden"]:
        if (self.steps, self.rule) == (1, "right_riemann"):
            return forward.embedding.unsqueeze(1) * forward.gradients(self.target)
        path = forward.path(self.target)
        return integrated_gradients(path, steps=self.steps, rule=self.rule, rows_at_once=ROWS_AT_ONCE)

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((self.target.views(model.labels),), per_token=True, vectors=False)
