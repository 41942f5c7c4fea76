"""MGSKD: relations between tokens, between spans, and between whole texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gradistill.models.layers import LayerMap
from gradistill.objectives._contract import Moment, Objective, Pair, Request, Role, Signals, States, objective
from gradistill.objectives._relations import angles, mean_of, pairs_among, products, triplets_among
from gradistill.objectives._spaces import refuse_shortened
from gradistill.types import Batch

Level = Literal["token", "span", "sample"]


@objective
class GranularRelations(Objective):
    """Squared differences of dot products of pairs and of angles of triplets, at several granularities (MGSKD).

    Tokens and spans are compared in the lower layers, samples (texts of one batch) in the upper ones, as in the paper.
    Ours: a span is a run of ``span`` tokens, where theirs are phrases found by a tool; products are divided by the
    width, so that widths may differ; triplets of tokens and spans lie within a window. A text's value is the mean over
    the relations that it is in; those between samples are another in another batch.
    """

    name: ClassVar[str] = "granular_relations"
    title: ClassVar[str] = "MGSKD: relations of tokens, spans and samples"
    source: ClassVar[str] = "Liu et al. 2022 (ACL), arXiv 2203.13070"

    layer_map: LayerMap = Field(
        "uniform",
        description="teacher layers beside student layers 1 … L: uniform, skip, first, last, a list",
    )
    levels: tuple[Level, ...] = Field(
        ("token", "span", "sample"), min_length=1, description="between what: token, span, sample"
    )
    span: int = Field(3, ge=2, description="tokens in a span")
    window: int = Field(10, ge=1, description="how many tokens or spans away the others of a triplet may be")
    triplets: float = Field(1.0, ge=0, description="weight of triplets beside pairs")
    samples_from: float = Field(
        0.5, ge=0, lt=1, description="share of the depth above which samples are compared, not tokens"
    )

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)

    def requests(self, pair: Pair, role: Role) -> dict[str, Request]:
        return {"states": States(pair.layers(self.layer_map, role))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        total = torch.zeros(len(batch), device=batch.mask.device)
        for level in self.levels:
            ours, real = self._items(student["states"], batch.mask, level)
            theirs, _ = self._items(teacher["states"], batch.mask, level)
            window = len(batch) if level == "sample" else self.window
            for values, counted in self._apart(ours, theirs, real, window):
                if level == "sample":  # one set of items, each a text
                    values, counted = values[0], counted[0]
                total = total + mean_of(values, counted)
        return total

    def _items(self, states: Tensor, mask: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """What is related at a level, ``(set, layer, item, hidden)``, and which of it is real."""
        upper = min(int(self.samples_from * states.shape[1]), states.shape[1] - 1)
        if level == "sample":
            pooled, real = _pooled(states[:, upper:], mask, mask.shape[1])
            return pooled.permute(2, 1, 0, 3), real.transpose(0, 1)
        below = states[:, : max(upper, 1)]
        return (below, mask) if level == "token" else _pooled(below, mask, self.span)

    def _apart(
        self, ours: Tensor, theirs: Tensor, real: Tensor, window: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Squared differences, weighted, and which of them count: of pairs, then of triplets."""
        scaled = products(ours) / ours.shape[-1] - products(theirs) / theirs.shape[-1]
        yield scaled.square().mean(1), pairs_among(real)
        if self.triplets:
            bent = (angles(ours, window) - angles(theirs, window)).square()
            yield self.triplets * bent.mean(1), triplets_among(real, window)


def _pooled(
    states: Float[Tensor, "batch layer token hidden"], mask: Bool[Tensor, "batch token"], span: int
) -> tuple[Float[Tensor, "batch layer span hidden"], Bool[Tensor, "batch span"]]:
    """Means over the real tokens of runs of ``span`` tokens, and which runs hold any."""
    short = -mask.shape[1] % span
    real = functional.pad(mask, (0, short)).unflatten(1, (-1, span))
    sums = functional.pad(states * mask[:, None, :, None], (0, 0, 0, short)).unflatten(2, (-1, span)).sum(3)
    counts = real.sum(2)
    return sums / counts.clamp(min=1)[:, None, :, None], counts > 0
