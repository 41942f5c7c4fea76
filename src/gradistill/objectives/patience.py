"""Patient knowledge distillation: intermediate [CLS] states."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_vectors
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.signals import ClsStates, Signal


@objective
class Patience(Objective):
    """Mean squared error of unit-length [CLS] states, over layers and width (PKD eq. 7).

    The paper's equation sums, its experiments average (their weights of 10 to 1000 belong to the average). We average.
    """

    name: ClassVar[str] = "patience"
    title: ClassVar[str] = "Patient KD: [CLS] states"
    source: ClassVar[str] = "Sun et al. 2019, arXiv 1908.09355"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L−1 are matched to: uniform, skip, first, last, a list",
    )

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student", intermediate=True)
        if pair.student.width != pair.teacher.width:
            raise RecipeError(
                f"patience compares states of width {pair.student.width} (student) and {pair.teacher.width} (teacher)",
                expected="equal widths",
                remedy="use a student as wide as the teacher, or a method without states (kd, adkd)",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"states": ClsStates(pair.layers(self.layer_map, role, intermediate=True))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        everywhere = torch.ones_like(batch.mask[:, :1])
        difference = unit_vectors(student["states"], everywhere) - unit_vectors(teacher["states"], everywhere)
        return difference.square().mean((1, 2))
