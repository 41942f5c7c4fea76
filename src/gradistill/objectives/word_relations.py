"""CKD's word relations: how the tokens of a text relate to each other, layer by layer."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_shortened
from gradistill.objectives.relations import (
    angles,
    cosines,
    counted_triplets,
    divergences,
    mean_over_layers,
    pairs_among,
    triplets_among,
)
from gradistill.signals import Signal, States


@objective
class WordRelations(Objective):
    """Relations of pairs of tokens and of triplets of nearby tokens, averaged over layers: CKD's word relation.

    ``divergence: kl`` is the authors' definition. A token's cosines with the other tokens become a distribution by a
    softmax. The pair term is ``Σ_i KL(teacher ‖ student) / n²``. The triplet term is the sum of squared differences of
    angles, divided by the number of triplets in the windows (``counted_triplets``).
    ``divergence: squared`` is ours: means of squared differences of cosines and of angles over different tokens.

    Deviations from the authors' code: every text has equal weight (theirs divides by all pairs of a batch, so long
    texts weigh more). Windows end with the text (theirs repeat the first and last token and reach into the padding).
    """

    name: ClassVar[str] = "word_relations"
    title: ClassVar[str] = "CKD: relations between words"
    source: ClassVar[str] = "Park et al. 2021 (EMNLP), arXiv 2109.08359"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L are matched to: uniform, skip, first, last, a list",
    )
    embeddings: bool = Field(
        default=True, description="relate the tokens of the embedding output too, as the authors do"
    )
    divergence: Literal["kl", "squared"] = Field(
        default="kl",
        description="kl: KL of softmaxed cosines (authors); squared: squared differences of cosines (ours)",
    )
    window: int = Field(
        default=10, ge=1, description="largest distance, in tokens, of the other two tokens of a triplet"
    )
    triplets: float = Field(default=1.0, ge=0, description="weight of triplets relative to pairs")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layers = pair.layers(self.layer_map, role)
        return {"states": States((0, *layers) if self.embeddings else layers)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        ours, theirs = student["states"], teacher["states"]
        total = self._pairs(cosines(ours), cosines(theirs), batch)
        if self.triplets:
            errors = (angles(ours, self.window) - angles(theirs, self.window)).square()
            total = total + self.triplets * self._triplets(errors, batch)
        return total

    def _pairs(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " batch"]:
        if self.divergence == "squared":
            return mean_over_layers((ours - theirs).square(), pairs_among(batch.mask))
        real = batch.mask[:, None].expand(ours.shape[:-1])
        return divergences(ours, theirs, real).sum(-1).mean(1) / batch.mask.sum(-1).square().clamp(min=1)

    def _triplets(self, angle_errors: Tensor, batch: Batch) -> Float[Tensor, " batch"]:
        different = triplets_among(batch.mask, self.window)
        if self.divergence == "squared":
            return mean_over_layers(angle_errors, different)
        total = (angle_errors * different[:, None]).flatten(2).sum(-1).mean(1)
        return total / counted_triplets(batch.mask, self.window)
