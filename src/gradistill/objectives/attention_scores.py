"""TinyBERT's attention: the scores of every head before the softmax."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.relations import mean_of, pairs_among, refuse_hidden_attention
from gradistill.signals import AttentionVectors, Signal


@objective
class AttentionScores(Objective):
    """Mean squared error of ``QKᵀ/√d`` over heads and pairs of real tokens, summed over layers (TinyBERT eq. 7).

    Scores are computed from queries and keys alone: no position biases, no masks. A decoder has all pairs of real
    tokens too.
    """

    name: ClassVar[str] = "attention_scores"
    title: ClassVar[str] = "TinyBERT: attention scores"
    source: ClassVar[str] = "Jiao et al. 2020, arXiv 1909.10351"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L are matched to: uniform, skip, first, last, a list",
    )

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_hidden_attention(self.name, pair, equal_heads=True)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layers = pair.layers(self.layer_map, role)
        return {"query": AttentionVectors("query", layers), "key": AttentionVectors("key", layers)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        errors = (_scores(student) - _scores(teacher)).square().mean(2)
        return mean_of(errors.sum(1), pairs_among(batch.mask))


def _scores(signals: Signals) -> Float[Tensor, "batch layer head token token"]:
    query, key = signals["query"], signals["key"]
    return torch.einsum("blihp,bljhp->blhij", query, key) / query.shape[-1] ** 0.5
