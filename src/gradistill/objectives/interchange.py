"""Interchange: the student answers as the teacher when hidden states of another text are put into both."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import Moment, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_shortened
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import InterchangeLogits, Signal


@objective
class Interchange(Objective):
    """``τ² · mean over copies of KL(p_t ‖ p_s)`` at temperature τ, both after an interchange; squared error in a
    regression.

    In both models the states of some words after a layer are taken from a run of another text, after mapped layers of
    the two (DIITO, Wu et al. 2022, eq. 4). Deviations: their other text is another row, whole; ours has as many tokens,
    drawn from the data, so that a store can hold what the teacher answers. They train for language modelling, and take
    consecutive tokens; we take drawn words.
    """

    name: ClassVar[str] = "interchange"
    title: ClassVar[str] = "DIITO: predictions after interchange"
    source: ClassVar[str] = "Wu et al. 2022, arXiv 2112.02505"

    copies: int = Field(default=1, ge=1, description="interchanges of each row and epoch")
    sets: int = Field(
        default=4, ge=1, description="sets of interchanges, one an epoch, which then come round again"
    )
    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers beside student layers 1 … L − 1: uniform, skip, first, last, a list",
    )
    temperature: float = Field(default=2.0, gt=0, description="τ, divides both models' logits")
    seed: int = Field(default=0, ge=0, description="what words, layers and other texts are drawn by")

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student", intermediate=True)
        refuse_shortened(self.name, pair)
        if not (pair.student.replaceable_states and pair.teacher.replaceable_states):
            raise RecipeError(
                "interchange puts hidden states into a model, and one of the models has no module that returns them",
                expected="a block for each layer, whose output is the state after it",
                remedy="use a method without it (kd, coalition, adkd), or another architecture",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layers = pair.layers(self.layer_map, role, intermediate=True)
        return {"copies": InterchangeLogits(self.copies, self.sets, self.seed, layers=layers)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        return copy_distances(
            student["copies"], teacher["copies"], self.temperature, multi_label=batch.multi_label
        ).mean(1)
