"""CKD's layer-transforming relation: how one token's state changes from layer to layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.models.layers import LayerMap
from gradistill.objectives._contract import Moment, Objective, Pair, Request, Role, Signals, States, objective
from gradistill.objectives._relations import angles, cosines, mean_of, triplets_among
from gradistill.objectives._spaces import refuse_shortened
from gradistill.types import Batch


@objective
class LayerRelations(Objective):
    """Squared differences of cosines between a token's states at two layers, and of angles at one between two others.

    CKD's layer-transforming relation, the embedding output included; means over layers and real tokens.
    """

    name: ClassVar[str] = "layer_relations"
    title: ClassVar[str] = "CKD: relations between layers"
    source: ClassVar[str] = "Park et al. 2021 (EMNLP), arXiv 2109.08359"

    layer_map: LayerMap = Field(
        "uniform",
        description="teacher layers beside student layers 1 … L: uniform, skip, first, last, a list",
    )
    triplets: float = Field(1.0, ge=0, description="weight of triplets beside pairs")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)

    def requests(self, pair: Pair, role: Role) -> dict[str, Request]:
        return {"states": States((0, *pair.layers(self.layer_map, role)))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        ours, theirs = (said["states"].transpose(1, 2) for said in (student, teacher))
        total = mean_of((cosines(ours) - cosines(theirs)).square().mean((2, 3)), batch.mask)
        if self.triplets:
            layers = ours.shape[2]
            different = triplets_among(torch.ones_like(ours[..., 0], dtype=torch.bool), layers)
            bent = (angles(ours, layers) - angles(theirs, layers)).square()
            counted = different & batch.mask[:, :, None, None, None]
            total = total + self.triplets * mean_of(bent, counted)
        return total
