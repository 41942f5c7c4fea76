"""CKD's word relations: how the tokens of a text stand to each other, layer by layer."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.models.layers import LayerMap
from gradistill.objectives._contract import Moment, Objective, Pair, Request, Role, Signals, States, objective
from gradistill.objectives._relations import (
    angles,
    cosines,
    mean_over_layers,
    pairs_among,
    triplets_among,
)
from gradistill.objectives._spaces import refuse_shortened
from gradistill.types import Batch


@objective
class WordRelations(Objective):
    """Squared differences of the cosines of pairs of tokens, and of the angles in triplets of near ones.

    CKD's word relation: any width beside any other. Each is a mean over what there is in a text, and over layers;
    triplets lie within a window, as theirs do.
    """

    name: ClassVar[str] = "word_relations"
    title: ClassVar[str] = "CKD: relations between words"
    source: ClassVar[str] = "Park et al. 2021 (EMNLP), arXiv 2109.08359"

    layer_map: LayerMap = Field(
        "uniform",
        description="teacher layers beside student layers 1 … L: uniform, skip, first, last, a list",
    )
    window: int = Field(10, ge=1, description="how many tokens away the others of a triplet may be")
    triplets: float = Field(1.0, ge=0, description="weight of triplets beside pairs")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)

    def requests(self, pair: Pair, role: Role) -> dict[str, Request]:
        return {"states": States(pair.layers(self.layer_map, role))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        ours, theirs = student["states"], teacher["states"]
        apart = (cosines(ours) - cosines(theirs)).square()
        total = mean_over_layers(apart, pairs_among(batch.mask))
        if self.triplets:
            bent = (angles(ours, self.window) - angles(theirs, self.window)).square()
            total = total + self.triplets * mean_over_layers(bent, triplets_among(batch.mask, self.window))
        return total
