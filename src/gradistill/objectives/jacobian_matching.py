"""Jacobian matching: the student's outputs change with the input as the teacher's do, in direction and size."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_texts
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_other_inputs
from gradistill.signals import InputGradient, Signal


@objective
class JacobianMatching(Objective):
    """``Σ_c ‖J_t,c − J_s,c‖²`` of the logits' Jacobian at the embedding output, one row for each label.

    Sobolev training (Czarnecki et al. 2017, eq. 1 and section 3) matches the Jacobian, or its projections on random
    directions. Ours are random signs, drawn for each example and step; their expectation is the full sum. ``unit``
    matches rows of unit length (Srinivas and Fleuret 2018, eq. 7); of many labels one is drawn then, whose distance
    counts for all: a projection of unit length would not be the sum on average. We sum over tokens and width, where
    they average.
    """

    name: ClassVar[str] = "jacobian_matching"
    title: ClassVar[str] = "Jacobian matching (Sobolev training)"
    source: ClassVar[str] = (
        "Czarnecki et al. 2017, arXiv 1706.04859; Srinivas, Fleuret 2018, arXiv 1803.00443"
    )

    directions: Literal["auto", "all", "projected", "sampled"] = Field(
        default="auto",
        description="all: each label; projected: a random projection of the labels; sampled: one label; "
        "auto: all for up to 4 labels, else projected, or sampled with unit",
    )
    unit: bool = Field(default=False, description="scale each row of the Jacobian to unit length first")

    def _differentiated(self, labels: int) -> Target:
        chosen = self.directions
        if chosen == "auto":
            chosen = "all" if labels <= 4 else "sampled" if self.unit else "projected"
        return Target("logit", chosen)

    def check(self, pair: Pair) -> None:
        if self.unit and self.directions == "projected":
            raise RecipeError(
                f"{self.name} has unit and directions: projected.",
                expected="directions: all or sampled: a projection of unit length is not the sum on average",
                remedy="leave directions out",
            )
        refuse_other_inputs(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"jacobian": InputGradient(self._differentiated(pair.student.labels))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        mask = batch.mask.unsqueeze(1)
        if self.unit:
            ours, theirs = (unit_texts(signals["jacobian"], mask) for signals in (student, teacher))
        else:
            ours, theirs = (
                signals["jacobian"].masked_fill(~mask.unsqueeze(-1), 0.0).flatten(2)
                for signals in (student, teacher)
            )
        return (ours - theirs).square().sum((1, 2))
