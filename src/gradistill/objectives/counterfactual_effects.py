"""Counterfactual effects: the student predicts as the teacher does where a small edit changes the teacher's label."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import CounterfactualLogits, CounterfactualTokens, EditedLogits, Logits, Signal

_LOG_ODDS = Target("log_odds", "all")


@objective
class CounterfactualEffects(Objective):
    """``τ²·KL(p_t(x′) ‖ p_s(x′)) + β·((F_s(x) − F_s(x′)) − (F_t(x) − F_t(x′)))²`` at temperature τ.

    x′ is the smallest edit of the text that changes the teacher's label (``signals/counterfactual.py``). F is the
    log-odds of the teacher's label for x; with several labels a row, of its top label, which the edit removes. In a
    regression F is the prediction, and the first term is the squared error. It is of first order for the student.
    Training on counterfactual rows follows CoD (arXiv 2510.21631), where a language model writes them. The edits and
    the second term are ours.
    """

    name: ClassVar[str] = "counterfactual_effects"
    title: ClassVar[str] = "Counterfactual effects: predictions where the teacher's label changes"
    source: ClassVar[str] = "arXiv 2510.21631; edits and effects: gradistill"

    effect: float = Field(default=0.1, ge=0, description="β, weight of the squared difference of effects")
    replacement: Literal["mask", "tokens"] = Field(
        default="mask", description="what replaces a word: mask, or tokens (of the data)"
    )
    margin: float = Field(
        default=1.0,
        ge=0,
        description="how far the new label's logit must exceed the old one's, in the teacher",
    )
    temperature: float = Field(default=2.0, gt=0, description="τ, divides both models' logits")
    seed: int = Field(default=0, ge=0, description="random seed of the tokens (replacement: tokens)")

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        if role == "student":
            return {"logits": Logits(), "edited": EditedLogits()}
        search = (self.replacement, self.margin, self.seed)
        return {
            "logits": Logits(),
            "edited": CounterfactualLogits(*search),
            "tokens": CounterfactualTokens(*search),
        }

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        divergences = copy_distances(
            student["edited"].unsqueeze(1),
            teacher["edited"].unsqueeze(1),
            self.temperature,
            multi_label=batch.multi_label,
        )
        labels = teacher["logits"].argmax(-1, keepdim=True)

        effects = [
            (_log_odds(of_model["logits"], batch) - _log_odds(of_model["edited"], batch)).gather(1, labels)[
                :, 0
            ]
            for of_model in (student, teacher)
        ]
        return divergences[:, 0] + self.effect * (effects[0] - effects[1]).square()


def _log_odds(logits: Float[Tensor, "batch label"], batch: Batch) -> Float[Tensor, "batch label"]:
    return _LOG_ODDS.values(logits, None, multi_label=batch.multi_label)
