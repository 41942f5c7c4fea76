"""TinyBERT's hidden states: all tokens' states, projected to the teacher's width by a learned map."""

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
from gradistill.objectives.relations import mean_of
from gradistill.signals import Signal, States


@objective
class HiddenStates(Objective):
    """Mean squared error of hidden states, summed over layers (TinyBERT eq. 8, and eq. 9 for the embeddings).

    All layers share one projection. The mean is over the real tokens of each text; the authors include padding.
    """

    name: ClassVar[str] = "hidden_states"
    title: ClassVar[str] = "TinyBERT: hidden states"
    source: ClassVar[str] = "Jiao et al. 2020, arXiv 1909.10351"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L are matched to: uniform, skip, first, last, a list",
    )
    embeddings: bool = Field(default=True, description="compare the embedding output too")
    projection: bool = Field(
        default=True, description="learn a linear map from the student's width to the teacher's"
    )

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)
        if not self.projection and pair.student.width != pair.teacher.width:
            raise RecipeError(
                f"hidden_states compares widths {pair.student.width} (student) and {pair.teacher.width} (teacher)",
                expected="equal widths, or a projection",
                remedy="set projection: true",
            )

    def projections(self, pair: Pair) -> dict[str, tuple[int, int]]:
        return {"states": (pair.student.width, pair.teacher.width)} if self.projection else {}

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        layers = pair.layers(self.layer_map, role)
        return {"states": States((0, *layers) if self.embeddings else layers)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        errors = (student["states"] - teacher["states"]).square().mean(-1)
        return mean_of(errors.sum(1), batch.mask)
