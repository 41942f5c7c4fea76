"""e²KD: the student's explanation of the teacher's label is like the teacher's own."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_maps
from gradistill.attribution.targets import Target, TargetKind, View
from gradistill.batch import Batch
from gradistill.objectives.base import Moment, Objective, Pair, Role, Signals, objective
from gradistill.signals import AttributionScores, Signal


@objective
class ExplanationSimilarity(Objective):
    """``1 − cos`` of the two models' explanations at the teacher's label (e²KD eq. 2).

    The authors explain images, by GradCAM and B-cos networks. For texts an explanation is here gradient × input, one
    signed number a token: its sum over the width.
    """

    name: ClassVar[str] = "explanation_similarity"
    title: ClassVar[str] = "e²KD: similar explanations"
    source: ClassVar[str] = "Parchami-Araghi et al. 2024 (ECCV), arXiv 2402.03119"

    target: TargetKind = Field(default="log_odds", description="the scalar that is explained")
    view: View = Field(
        default="teacher", description="of which label: teacher, own, gold, all, sampled (one of all)"
    )
    explanation: Literal["signed", "magnitude"] = Field(
        default="signed", description="a token's attributions as their sum, or as their length"
    )

    @property
    def _differentiated(self) -> Target:
        return Target(self.target, self.view)

    def check(self, pair: Pair) -> None:
        self._differentiated.check(pair.student.labels, multi_label=pair.student.multi_label)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"scores": AttributionScores(self._differentiated, signed=self.explanation == "signed")}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        mask = batch.mask.unsqueeze(1)
        alike = (unit_maps(student["scores"], mask) * unit_maps(teacher["scores"], mask)).sum(-1)
        return (1 - alike).sum(1)
