"""e²KD: the student's explanation of the teacher's label is similar to the teacher's."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_maps
from gradistill.attribution.targets import Target, TargetKind, View
from gradistill.batch import Batch
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.signals import AttributionScores, Signal


@objective
class ExplanationSimilarity(Objective):
    """``1 − cos`` of the two models' explanations at the teacher's label (e²KD eq. 2).

    The authors explain images, by GradCAM and B-cos networks. Here a text's explanation is gradient × input: one signed
    number for each token, its sum over the width.
    """

    name: ClassVar[str] = "explanation_similarity"
    title: ClassVar[str] = "e²KD: similar explanations"
    source: ClassVar[str] = "Parchami-Araghi et al. 2024 (ECCV), arXiv 2402.03119"

    target: TargetKind = Field(default="log_odds", description="the scalar that is explained")
    view: View = Field(
        default="teacher",
        description="label that is explained: teacher, own, gold, all, sampled (one of all)",
    )
    explanation: Literal["signed", "magnitude"] = Field(
        default="signed",
        description="a token's score: the sum of its attributions (signed), or their length (magnitude)",
    )

    @property
    def _differentiated(self) -> Target:
        return Target(self.target, self.view)

    def check(self, pair: Pair) -> None:
        self._differentiated.check(pair.student.labels, multi_label=pair.student.multi_label)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"scores": AttributionScores(self._differentiated, signed=self.explanation == "signed")}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        mask = batch.mask.unsqueeze(1)
        alike = (unit_maps(student["scores"], mask) * unit_maps(teacher["scores"], mask)).sum(-1)
        return (1 - alike).sum(1)
