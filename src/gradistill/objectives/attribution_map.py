"""AD-KD: the student gives each token the importance that the teacher gives it, for every label."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.normalization import unit_maps
from gradistill.attribution.quadrature import Rule
from gradistill.attribution.targets import Target, TargetKind, View
from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.facts import ModelFacts
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import comparable_places, refuse_words, target_of
from gradistill.signals import AttributionScores, Signal, WordScores, WordsRead


@objective
class AttributionMap(Objective):
    """Distance of unit maps of token scores ``‖A_i‖₂``, A by Integrated Gradients (AD-KD eq. 3 to 9).

    Deviations: real tokens are found by the mask, not by a nonzero score; the views are summed (as the
    authors' code does; their text concatenates them); the default target is the log-odds of each label, which
    gives the authors' maps (``label_nll`` in all views, ``gold_loss`` in one) without their saturation.
    Maps have unit length and scores are not negative, so a view's L2 distance summed over tokens is in 0..2.

    Between models with different tokenizers the maps are of words (``WordScores``): |Σ signed attributions| over the
    tokens of each word that both models read whole. ``average: tokens`` is then over the words of a batch.

    Where each word has a label, a map explains one word's label by all tokens. The distance is the mean over ``words``
    words of each row, drawn in turns of the teacher's labels (``drawn_places``).
    """

    name: ClassVar[str] = "attribution_map"
    title: ClassVar[str] = "AD-KD: token attribution maps"
    source: ClassVar[str] = "Wu et al. 2023 (ACL), arXiv 2305.10010"

    target: TargetKind = Field(default="log_odds", description="the scalar that is differentiated")
    view: View = Field(
        default="all",
        description="label that is explained: all (multi-view), own, teacher, gold, sampled (one of all)",
    )
    steps: int = Field(
        default=1, ge=1, description="steps of Integrated Gradients; 1 is gradient × input (authors)"
    )
    rule: Rule = Field(
        default="right_riemann", description="quadrature: right_riemann (authors) or gauss_legendre"
    )
    keep: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the teacher's attribution entries kept per token (K/D of the paper)",
    )
    norm: Literal[1, 2] = Field(default=2, description="norm that makes a map unit length")
    distance_by: Literal["l2", "l1", "smooth_l1"] = Field(
        default="l2", description="distance of two maps, per token"
    )
    average: Literal["tokens", "examples"] = Field(
        default="examples",
        description="tokens: average the token distances over real tokens (authors); examples: sum them per example",
    )
    words: int = Field(
        default=1,
        ge=1,
        description="token classification: how many words of a row are explained at a time",
    )

    def _differentiated(self, model: ModelFacts) -> Target:
        return target_of(Target(self.target, self.view), model, self.words)

    def check(self, pair: Pair) -> None:
        student = pair.student
        self._differentiated(student).check(student.labels, multi_label=student.multi_label)
        refuse_words(self.name, self.words, pair)
        if pair.on_raw_texts and self.keep < 1:
            raise RecipeError(
                f"attribution_map.keep is {self.keep}, and the models have different tokenizers: their scores are sums "
                "over a word's tokens, which have no entries to select from",
                expected="keep: 1",
                remedy="--set objectives.attribution_map.keep=1, or --settings default",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        target = self._differentiated(pair.student)
        if pair.on_raw_texts:
            return {"scores": WordScores(target, self.steps, self.rule), "words": WordsRead()}
        keep = self.keep if role == "teacher" else 1.0
        return {"scores": AttributionScores(target, self.steps, self.rule, keep)}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        mask = comparable_places(student, teacher, batch).unsqueeze(1)
        difference = unit_maps(student["scores"], mask, self.norm) - unit_maps(
            teacher["scores"], mask, self.norm
        )
        summed = batch.over_explained(_DISTANCES[self.distance_by](difference).sum(2), self.words)
        if self.average == "examples":
            return summed
        return batch.per_word(summed) if "words" in student else batch.per_token(summed)


_DISTANCES = {
    "l2": torch.square,
    "l1": torch.abs,
    "smooth_l1": lambda apart: torch.where(apart.abs() < 1, 0.5 * apart.square(), apart.abs() - 0.5),
}
