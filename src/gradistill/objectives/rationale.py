"""Rationale: each token's importance and gradient direction, from one inner gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_maps, unit_texts, unit_vectors
from gradistill.attribution.targets import Target, TargetKind, View
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.facts import ModelFacts
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import (
    comparable_places,
    refuse_other_inputs,
    refuse_words,
    target_of,
)
from gradistill.signals import AttributionScores, InputGradient, Logits, Signal, WordScores, WordsRead


@objective
class Rationale(Objective):
    """``magnitude · Σ_i (a_t,i − a_s,i)² + direction · ‖Ĝ_t − Ĝ_s‖² + sign · (1 − cos)``, ours.

    ``a`` is AD-KD's unit map of token scores, which keeps sizes and drops directions. ``Ĝ`` is the whole gradient of a
    text at unit length, from the same inner gradient (as the rows of Jacobian matching). With ``unit="token"`` each
    token's gradient has unit length (Gradient KD), and the second part is ``direction · mean_i ‖Ĝ_t,i − Ĝ_s,i‖²``.
    The cosine is of signed maps (as in e²KD). The view ``teacher`` takes one gradient only, of the teacher's label. The
    target ``margin`` contrasts that label with its runner-up. Models with different tokenizers are compared by words
    (``WordScores``), without directions. In token classification the distance is the mean over ``words`` words of a
    row, as in ``AttributionMap``.
    """

    name: ClassVar[str] = "rationale"
    title: ClassVar[str] = "Rationale: attribution maps and gradient directions"
    source: ClassVar[str] = "gradistill (from Wu et al. 2023 and Wang, Li, Sun 2022)"
    cross_tokenizer_setting: ClassVar[str] = "direction: 0"

    target: TargetKind | Literal["auto"] = Field(
        default="auto",
        description="the scalar that is differentiated; margin: against the runner-up; auto: logit for three labels or "
        "more, log_odds for two labels (whose gradients are opposite) and for several labels a row",
    )
    view: View = Field(
        default="all", description="label that is explained: all, teacher, own, gold, sampled (one of all)"
    )
    magnitude: float = Field(
        default=1.0, ge=0, description="weight of the distance of unit maps of token scores"
    )
    direction: float = Field(default=1.0, ge=0, description="weight of the distance of unit gradients")
    sign: float = Field(default=0.0, ge=0, description="weight of 1 − cosine of the signed maps")
    unit: Literal["token", "text"] = Field(
        default="text",
        description="what is scaled to unit length for the directions: a text's whole gradient, or each token's",
    )
    steps: int = Field(
        default=1, ge=1, description="steps of Integrated Gradients for the maps; 1 is gradient × input"
    )
    focus: bool = Field(
        default=False,
        description="weight the directions by the teacher's map, so that important tokens count more (unit: token)",
    )
    confidence: bool = Field(default=False, description="weight examples by the teacher's confidence")
    words: int = Field(
        default=1,
        ge=1,
        description="token classification: how many words of a row are explained at a time",
    )

    def _differentiated(self, model: ModelFacts) -> Target:
        plain = "logit" if model.labels > 2 and not model.multi_label else "log_odds"
        return target_of(
            Target(plain if self.target == "auto" else self.target, self.view), model, self.words
        )

    def check(self, pair: Pair) -> None:
        student = pair.student
        self._differentiated(student).check(student.labels, multi_label=student.multi_label)
        if self.focus and self.unit == "text":
            raise RecipeError(
                "rationale.focus is set with unit: text, which has no weights for single tokens",
                expected="unit: token, or no focus",
                remedy="drop one of them",
            )
        refuse_words(self.name, self.words, pair)
        if self.confidence and student.token_labels:
            raise RecipeError(
                "rationale.confidence is set, which weights texts by the confidence in their one label, and here each "
                "word has a label",
                expected="no confidence",
                remedy="--set objectives.rationale.confidence=false",
            )
        if self.direction:
            refuse_other_inputs("rationale with direction > 0", pair)

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        target, kind = (
            self._differentiated(pair.student),
            WordScores if pair.on_raw_texts else AttributionScores,
        )
        wanted: dict[str, Signal] = {"scores": kind(target, self.steps)}
        if pair.on_raw_texts:
            wanted["words"] = WordsRead()
        if self.direction:
            wanted["gradient"] = InputGradient(target)
        if self.sign:
            wanted["signed"] = kind(target, self.steps, signed=True)
        if self.confidence and role == "teacher":
            wanted["logits"] = Logits()
        return wanted

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        mask = comparable_places(student, teacher, batch).unsqueeze(1)
        ours, theirs = (unit_maps(signals["scores"], mask) for signals in (student, teacher))
        total = self.magnitude * (ours - theirs).square().sum(-1)
        if self.direction:
            total = total + self.direction * self._turned(
                student["gradient"], teacher["gradient"], mask, theirs
            )
        if self.sign:
            alike = (unit_maps(student["signed"], mask) * unit_maps(teacher["signed"], mask)).sum(-1)
            total = total + self.sign * (1 - alike)
        summed = batch.over_explained(total, self.words)
        if not self.confidence:
            return summed
        return summed * _confidence(teacher["logits"], multi_label=batch.multi_label)

    def _turned(
        self,
        student: Float[Tensor, "batch view token hidden"],
        teacher: Float[Tensor, "batch view token hidden"],
        mask: Bool[Tensor, "batch 1 token"],
        shares: Float[Tensor, "batch view token"],
    ) -> Float[Tensor, "batch view"]:
        """Distances of the gradients' directions. ``shares`` is the teacher's unit map."""
        if self.unit == "text":
            return (unit_texts(student, mask) - unit_texts(teacher, mask)).square().sum(-1)
        distances = (unit_vectors(student, mask) - unit_vectors(teacher, mask)).square().sum(-1)
        weights = shares.square() if self.focus else mask.to(distances) / mask.sum(-1, keepdim=True)
        return (weights * distances).sum(-1)


def _confidence(logits: Float[Tensor, "batch label"], *, multi_label: bool) -> Float[Tensor, " batch"]:
    """The largest probability, rescaled so that 1 is certain and 0 is chance; 1 in a regression. With several labels a
    row: the mean over the labels."""
    labels = logits.shape[1]
    if multi_label:
        return (2 * logits.sigmoid() - 1).abs().mean(-1)
    if labels == 1:
        return torch.ones_like(logits[:, 0])
    return (logits.softmax(-1).amax(-1) * labels - 1) / (labels - 1)
