"""A term of the loss: an objective, its weight, and when it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pydantic
from pydantic import ConfigDict, Field

from gradistill.errors import RecipeError
from gradistill.objectives.base import Objective


@pydantic.dataclasses.dataclass(
    frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
)
class Term:
    """An objective in the loss, with its weight and schedule.

    ``every``: the term runs on every k-th optimizer step with k times its weight, and is not computed on other steps:
    lazy regularisation (Karras et al. 2020, StyleGAN2, arXiv 1912.04958, appendix B). ``share``: the term is computed
    on a random share of each batch's rows, and the sum is scaled up to the batch, an unbiased estimate. ``start``,
    ``end``: the part of the training in which the term runs (stages, as in TinyBERT). ``fade``: the weight falls
    linearly to 0 in this part.
    """

    objective: Objective
    weight: float = Field(default=1.0, description="factor of the objective in the loss")
    every: int = Field(
        default=1, ge=1, description="run on each k-th optimizer step only, with k times the weight"
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of each batch's rows, drawn at random, that the objective sees; its sum is scaled up",
    )
    start: float = Field(
        default=0.0, ge=0, lt=1, description="share of the training after which the objective starts"
    )
    end: float = Field(
        default=1.0, gt=0, le=1, description="share of the training after which the objective ends"
    )
    fade: bool = Field(default=False, description="let the weight fall linearly to 0 between start and end")

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Term:
        if self.start >= self.end:
            raise ValueError(f"start {self.start} is not below end {self.end}")
        return self

    @property
    def name(self) -> str:
        return self.objective.name

    def runs_at(self, step: int, progress: float) -> bool:
        """Whether the term runs at optimizer ``step`` (from 0), after the share ``progress`` of the training."""
        return step % self.every == 0 and self.in_stage(progress)

    def in_stage(self, progress: float) -> bool:
        """Whether the share ``progress`` of the training lies between ``start`` and ``end``."""
        return self.start <= progress < self.end

    def ever_runs(self, steps: int) -> bool:
        """Whether the term runs at least once in a training of ``steps`` optimizer steps."""
        return any(self.runs_at(step, step / steps) for step in range(0, steps, self.every))

    def steps_of_stage(self, steps: int) -> int:
        """The number of optimizer steps, out of ``steps``, between ``start`` and ``end``; at least one. If ``every`` is
        larger, the one run has more weight than a whole stage of another objective."""
        return max(1, round((self.end - self.start) * steps))

    def rows_of(self, batch: int) -> int:
        """The number of rows that the term is computed on in a batch of ``batch`` rows; at least one."""
        return max(1, math.ceil(round(self.share * batch, 6)))  # 0.07 · 100 is 7.000000000000001

    def weight_at(self, progress: float) -> float:
        """The weight on a step on which the term runs. Without ``fade``, its mean over the stage is ``weight``."""
        left = (self.end - progress) / (self.end - self.start) if self.fade else 1.0
        return self.weight * self.every * left


def refuse_idle_steps(terms: Iterable[Term]) -> None:
    """Raise RecipeError if on some optimizer steps no term would run."""
    terms = list(terms)
    covered = 0.0
    for term in sorted((term for term in terms if term.every == 1), key=lambda term: term.start):
        if term.start <= covered:
            covered = max(covered, term.end)
    if terms and covered < 1:
        raise RecipeError(
            "on some steps nothing would be trained: "
            + ", ".join(
                f"{t.name} runs every {t.every} steps from {t.start:.0%} to {t.end:.0%}" for t in terms
            ),
            expected="an objective that runs at every step, in every stage",
            remedy="set every: 1 for one of them, close the gap between stages (start, end), or add soft_label",
        )


def refuse_weightless(terms: Iterable[Term]) -> None:
    """Raise RecipeError if all weights are 0, so that nothing would be trained."""
    terms = list(terms)
    if terms and not any(term.weight for term in terms):
        raise RecipeError(
            f"the weight of {_named(terms)} is 0, so that nothing would be trained",
            expected="an objective with a weight",
            remedy="give one of them a weight, such as 1",
        )


def refuse_no_conflict(terms: Iterable[Term], rule: str) -> None:
    """Raise RecipeError if prediction losses and other objectives never run on one step. The rule
    ``compute.gradient_conflict`` would have no effect."""
    weighty = [term for term in terms if term.weight]
    answers = [term for term in weighty if term.objective.is_prediction_loss]
    rest = [term for term in weighty if not term.objective.is_prediction_loss]
    if any(max(a.start, r.start) < min(a.end, r.end) for a in answers for r in rest):
        return
    if answers and rest:
        fault = f"{_named(answers)} and {_named(rest)} never run on the same step"
    elif answers:
        fault = f"there is no objective other than {_named(answers)}"
    else:
        fault = "there is neither hard_label nor soft_label"
    raise RecipeError(
        f"compute.gradient_conflict is {rule}, and {fault}",
        expected="hard_label or soft_label, and another objective, with weights other than 0 in the same stage",
        remedy="leave gradient_conflict out, or add what is missing",
    )


def _named(terms: Iterable[Term]) -> str:
    return " and ".join(term.name for term in terms)
