"""MiniLM: relations between the tokens in one layer's self-attention, as distributions."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.relations import common_heads, mean_of, refuse_hidden_attention
from gradistill.signals import AttentionVectors, Part, Signal

Relation = Literal["attention", "query", "key", "value"]
_SIDES: dict[str, tuple[Part, Part]] = {
    "attention": ("query", "key"),
    "query": ("query", "query"),
    "key": ("key", "key"),
    "value": ("value", "value"),
}


@objective
class SelfAttentionRelations(Objective):
    """``KL(softmax(A Bᵀ/√d)_t ‖ …_s)``, mean over heads and real tokens, summed over relations.

    MiniLM (eq. 5, 7): relations ``attention`` and ``value`` of the last layers; both models have equal numbers of
    heads. MiniLMv2 (eq. 5, 6): ``query``, ``key`` and ``value`` with ``heads`` relation heads that divide both widths.
    ``attention`` is computed from queries and keys alone: no position biases, and all real tokens in a decoder too.
    """

    name: ClassVar[str] = "self_attention_relations"
    title: ClassVar[str] = "MiniLM: self-attention relations"
    source: ClassVar[str] = "Wang et al. 2020, arXiv 2002.10957; v2: Wang et al. 2021, arXiv 2012.15828"

    relations: tuple[Relation, ...] = Field(
        default=("query", "key", "value"),
        min_length=1,
        description="relations to match: attention, query, key, value",
    )
    heads: int | None = Field(
        default=None,
        ge=1,
        description="relation heads (v2); unset: the attention heads, equally many in both models (v1)",
    )
    teacher_layer: int | None = Field(
        default=None,
        ge=1,
        description="the teacher's layer that the student's last one is matched to; unset: its last",
    )

    def check(self, pair: Pair) -> None:
        refuse_hidden_attention(self.name, pair, equal_heads=self.heads is None)
        if self.teacher_layer is not None and self.teacher_layer > pair.teacher.layers:
            raise RecipeError(
                f"the teacher has {pair.teacher.layers} layers, and teacher_layer is {self.teacher_layer}",
                expected=f"1 to {pair.teacher.layers}",
                remedy="choose one of these, or leave teacher_layer out for the last layer",
            )
        widths = [facts.attention_width for facts in (pair.student, pair.teacher)]
        if self.heads is not None and any(width % self.heads for width in widths):
            raise RecipeError(
                f"{self.heads} relation heads do not divide widths {widths[0]} (student) and {widths[1]} (teacher)",
                expected="a divisor of both",
                remedy=f"set heads to a divisor of both, such as {common_heads(pair)}",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layer = pair.student.layers if role == "student" else (self.teacher_layer or pair.teacher.layers)
        parts: dict[Part, None] = dict.fromkeys(
            part for relation in self.relations for part in _SIDES[relation]
        )
        return {part: AttentionVectors(part, (layer,)) for part in parts}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        total = torch.zeros(len(batch), device=batch.mask.device)
        for relation in self.relations:
            log_q, log_p = (self._log_shares(signals, relation, batch.mask) for signals in (student, teacher))
            kept = batch.mask[:, None, None, :]
            divergence = torch.where(kept, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
            total = total + mean_of(divergence.mean(1), batch.mask)
        return total

    def _log_shares(
        self, signals: Signals, relation: Relation, mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch head token token"]:
        left, right = (self._split(signals[part]) for part in _SIDES[relation])
        scores = left @ right.transpose(-1, -2) / left.shape[-1] ** 0.5
        hidden = torch.finfo(scores.dtype).min  # not −∞: −∞ − (−∞) is NaN
        return scores.masked_fill(~mask[:, None, None, :], hidden).log_softmax(-1)

    def _split(
        self, vectors: Float[Tensor, "batch 1 token head part"]
    ) -> Float[Tensor, "batch relation_head token width"]:
        if self.heads is not None:
            vectors = vectors.flatten(3).unflatten(3, (self.heads, -1))
        return vectors.squeeze(1).transpose(1, 2)
