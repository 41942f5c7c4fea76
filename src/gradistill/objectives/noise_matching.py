"""Noise matching: the student predicts as the teacher does under noise on the embeddings."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_other_inputs
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import NoiseLogits, Signal


@objective
class NoiseMatching(Objective):
    """``τ² · mean over copies of KL(p_t(E + ξ) ‖ p_s(E + ξ))`` at temperature τ, ξ noise on the embedding output.

    In a regression: the squared error of the predictions. To second order in the noise this equals the distance of the
    two models' Jacobians (Srinivas and Fleuret 2018, section 3), without a second-order graph. Both models need
    equal embeddings. Frozen ones stay equal; copied ones that are trained do not, and then the noise differs too.
    """

    name: ClassVar[str] = "noise_matching"
    title: ClassVar[str] = "Noise matching: predictions under noise"
    source: ClassVar[str] = "Srinivas and Fleuret 2018, arXiv 1803.00443"

    copies: int = Field(default=1, ge=1, description="noisy copies of each row and epoch")
    sets: int = Field(
        default=4, ge=1, description="number of sets of copies; epoch e uses set e modulo this number"
    )
    sigma: float = Field(
        default=0.1,
        gt=0,
        description="length of the noise on a token, relative to the length of its embedding",
    )
    temperature: float = Field(default=2.0, gt=0, description="τ, divides both models' logits")
    seed: int = Field(default=0, ge=0, description="random seed of the noise")

    def check(self, pair: Pair) -> None:
        refuse_other_inputs(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"copies": NoiseLogits(self.copies, self.sets, self.seed, sigma=self.sigma)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        return copy_distances(
            student["copies"], teacher["copies"], self.temperature, multi_label=batch.multi_label
        ).mean(1)
