"""Jacobian matching: the student's outputs change with the input as the teacher's do, size included."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_texts
from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.objectives.base import Moment, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_other_inputs
from gradistill.signals import InputGradient, Signal


@objective
class JacobianMatching(Objective):
    """``Σ_c ‖J_t,c − J_s,c‖²`` of the logits' Jacobian at the embedding output, one row a label.

    Sobolev training (Czarnecki et al. 2017, eq. 1 and section 3) matches it as it is, or projected on random
    directions: random signs here, drawn for each example and step, whose expectation is the full sum. Srinivas and
    Fleuret (2018, eq. 7) match rows of unit length: ``unit``. Summed over tokens and width, where they average.
    """

    name: ClassVar[str] = "jacobian_matching"
    title: ClassVar[str] = "Jacobian matching (Sobolev training)"
    source: ClassVar[str] = (
        "Czarnecki et al. 2017, arXiv 1706.04859; Srinivas, Fleuret 2018, arXiv 1803.00443"
    )

    directions: Literal["auto", "all", "projected", "sampled"] = Field(
        default="auto",
        description="all labels, a random projection of them, or one of them; auto: all of up to 4",
    )
    unit: bool = Field(default=False, description="scale each row of the Jacobian to unit length first")

    def _differentiated(self, labels: int) -> Target:
        chosen = self.directions
        if chosen == "auto":
            chosen = "all" if labels <= 4 else "projected"
        return Target("logit", chosen)

    def check(self, pair: Pair) -> None:
        refuse_other_inputs(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"jacobian": InputGradient(self._differentiated(pair.student.labels))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
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
