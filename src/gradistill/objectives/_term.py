"""A term of the loss: an objective, its weight, and how often it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pydantic
from pydantic import ConfigDict, Field

from gradistill.errors import RecipeError
from gradistill.objectives._contract import Objective


@pydantic.dataclasses.dataclass(
    frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
)
class Term:
    """An objective in the loss, and what stands beside its own fields in a recipe.

    ``every`` k-th optimizer step it runs, k times as heavy, and on the others nothing of it is computed: lazy
    regularisation (Karras et al. 2020, StyleGAN2, arXiv 1912.04958, appendix B). Of each batch it sees a random
    ``share`` of the rows, and its sum over them is scaled up to the batch: an unbiased estimate.
    """

    objective: Objective
    weight: float = Field(default=1.0, description="its factor in the loss")
    every: int = Field(default=1, ge=1, description="run on each k-th optimizer step only, k times as heavy")
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of the rows of each batch, drawn anew for each, scaled up to all",
    )

    @property
    def name(self) -> str:
        return self.objective.name

    def runs_at(self, step: int) -> bool:
        """Whether its turn comes at an optimizer step, counted from 0 over the whole training."""
        return step % self.every == 0

    def rows_of(self, batch: int) -> int:
        """How many rows it sees of so many; at least one."""
        return math.ceil(round(self.share * batch, 6))  # 0.07 · 100 is 7.000000000000001

    @property
    def weight_when_run(self) -> float:
        """Its weight on the steps on which it runs; over all steps the mean is ``weight``."""
        return self.weight * self.every


def refuse_idle_steps(terms: Iterable[Term]) -> None:
    """Raise RecipeError where there would be steps on which no term runs."""
    rhythms = {term.name: term.every for term in terms}
    if rhythms and 1 not in rhythms.values():
        raise RecipeError(
            "on some steps nothing would be trained: "
            + ", ".join(f"{name} runs every {every} steps" for name, every in rhythms.items()),
            expected="an objective that runs at every step",
            remedy="set every: 1 for one of them, or add soft_label",
        )
