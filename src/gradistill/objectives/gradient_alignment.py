"""Gradient KD: the student's input gradients have the directions of the teacher's."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_vectors
from gradistill.attribution.targets import Target, TargetKind, View
from gradistill.batch import Batch
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, Site, objective
from gradistill.objectives.compatibility import refuse_other_inputs, refuse_other_widths
from gradistill.signals import ClsGradient, InputGradient, Signal


@objective
class GradientAlignment(Objective):
    """``Σ_i ‖Ĝ_t,i − Ĝ_s,i‖²``: squared distance of unit gradient directions, token by token (GKD eq. 6).

    Not to be confused with Generalized Knowledge Distillation. The site ``cls`` takes the same distance at the [CLS]
    position of intermediate states, summed over layers (GKD-CLS). The authors' target is the confidence of each
    model's own prediction; its log-odds have the same unit gradients.
    """

    name: ClassVar[str] = "gradient_alignment"
    title: ClassVar[str] = "Gradient KD: input gradient directions"
    source: ClassVar[str] = "Wang, Li, Sun 2022, arXiv 2211.01071"

    target: TargetKind = Field(default="log_odds", description="the scalar that is differentiated")
    view: View = Field(
        default="own",
        description="label whose gradient is taken: all, own (each model's prediction), teacher, gold, "
        "sampled (one of all)",
    )
    sites: tuple[Site, ...] = Field(
        default=("embedding_output",),
        min_length=1,
        description="where gradients are taken: embedding_output, cls (intermediate layers)",
    )
    layer_map: LayerMap = Field(
        default="uniform",
        description="for the site cls: teacher layers that student layers 1 … L−1 are matched to",
    )
    average: Literal["tokens", "examples"] = Field(
        default="tokens",
        description="tokens: average the token distances over real tokens (authors); examples: sum them per example",
    )

    @property
    def _differentiated(self) -> Target:
        return Target(self.target, self.view)

    def check(self, pair: Pair) -> None:
        self._differentiated.check(pair.student.labels, multi_label=pair.student.multi_label)
        if "cls" in self.sites:
            pair.layers(self.layer_map, "student", intermediate=True)
        refuse_other_widths(self.name, pair)
        if "embedding_output" in self.sites:
            refuse_other_inputs(self.name, pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        target = self._differentiated
        wanted: dict[str, Signal] = {}
        if "embedding_output" in self.sites:
            wanted["embedding_output"] = InputGradient(target)
        if "cls" in self.sites:
            wanted["cls"] = ClsGradient(target, pair.layers(self.layer_map, role, intermediate=True))
        return wanted

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        total = torch.zeros(len(batch), device=batch.mask.device)
        if "embedding_output" in self.sites:
            mask = batch.mask.unsqueeze(1)
            distances = _squared_distance(student["embedding_output"], teacher["embedding_output"], mask)
            total = total + (batch.per_token(distances) if self.average == "tokens" else distances)
        if "cls" in self.sites:
            everywhere = torch.ones_like(batch.mask[:, None, :1])
            total = total + _squared_distance(student["cls"], teacher["cls"], everywhere)
        return total


def _squared_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
    return (unit_vectors(student, mask) - unit_vectors(teacher, mask)).square().sum((1, 2, 3))
