"""CKD's layer-transforming relation: how one token's state changes from layer to layer."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_shortened
from gradistill.objectives.relations import angles, cosines, divergences, mean_of, triplets_among
from gradistill.signals import Signal, States


@objective
class LayerRelations(Objective):
    """Relations of pairs and triplets of layers, for each token: CKD's layer-transforming relation.

    The embedding output is one of the layers. ``divergence: kl`` is the authors' definition. It is that of
    ``word_relations`` with one token's states at ``n`` layers in place of ``n`` tokens. Pairs are divided by n²,
    triplets by n³. ``divergence: squared`` is ours: mean squared differences over pairs and triplets of different
    layers. Both are averaged over the real tokens of each text (by the authors: of the batch).
    """

    name: ClassVar[str] = "layer_relations"
    title: ClassVar[str] = "CKD: relations between layers"
    source: ClassVar[str] = "Park et al. 2021 (EMNLP), arXiv 2109.08359"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L are matched to: uniform, skip, first, last, a list",
    )
    divergence: Literal["kl", "squared"] = Field(
        default="kl",
        description="kl: KL of softmaxed cosines (authors); squared: squared differences of cosines (ours)",
    )
    triplets: float = Field(default=1.0, ge=0, description="weight of triplets relative to pairs")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"states": States((0, *pair.layers(self.layer_map, role)))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        ours, theirs = (signals["states"].transpose(1, 2) for signals in (student, teacher))
        layers = ours.shape[2]
        every = torch.ones_like(ours[..., 0], dtype=torch.bool)
        if self.divergence == "kl":
            pairs = divergences(cosines(ours), cosines(theirs), every).sum(-1) / layers**2
        else:
            pairs = (cosines(ours) - cosines(theirs)).square().mean((2, 3))
        total = mean_of(pairs, batch.mask)
        if self.triplets:
            different = triplets_among(every, layers)
            errors = (angles(ours, layers) - angles(theirs, layers)).square() * different
            count = layers**3 if self.divergence == "kl" else different.flatten(2).sum(-1).clamp(min=1)
            total = total + self.triplets * mean_of(errors.flatten(2).sum(-1) / count, batch.mask)
        return total
