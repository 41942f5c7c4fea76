"""Interchange: the student predicts as the teacher does when states of another text are inserted into both."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_shortened
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import InterchangeLogits, Signal


@objective
class Interchange(Objective):
    """``τ² · mean over copies of KL(p_t ‖ p_s)`` at temperature τ, both after an interchange; squared error in a
    regression.

    In both models, the states of some words after a layer are replaced by those of another text, at mapped layers
    (DIITO, Wu et al. 2022, eq. 4). Deviations: their other text is a whole row; ours has equal length, with tokens
    drawn from the data, so that a store can hold the teacher's logits. They train language models and replace
    consecutive tokens; we replace drawn words.
    """

    name: ClassVar[str] = "interchange"
    title: ClassVar[str] = "DIITO: predictions after interchange"
    source: ClassVar[str] = "Wu et al. 2022, arXiv 2112.02505"

    copies: int = Field(default=1, ge=1, description="interchanges of each row and epoch")
    sets: int = Field(
        default=4, ge=1, description="number of sets of interchanges; epoch e uses set e modulo this number"
    )
    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L − 1 are matched to: uniform, skip, first, last, a list",
    )
    temperature: float = Field(default=2.0, gt=0, description="τ, divides both models' logits")
    seed: int = Field(default=0, ge=0, description="random seed of words, layers and other texts")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student", intermediate=True)
        refuse_shortened(self.name, pair)
        if not (pair.student.replaceable_states and pair.teacher.replaceable_states):
            raise RecipeError(
                "interchange replaces hidden states inside a model, and one of the models has no module that returns "
                "them",
                expected="a block for each layer, whose output is the state after it",
                remedy="use a method without interchange (kd, coalition, adkd), or another architecture",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layers = pair.layers(self.layer_map, role, intermediate=True)
        return {"copies": InterchangeLogits(self.copies, self.sets, self.seed, layers=layers)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        return copy_distances(
            student["copies"], teacher["copies"], self.temperature, multi_label=batch.multi_label
        ).mean(1)
