"""Coalition matching: the student predicts as the teacher does on copies that keep only some of the words."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.label_distributions import copy_distances
from gradistill.signals import CopyLogits, Signal, WordCopyLogits
from gradistill.signals.copy_logits import Sizes
from gradistill.signals.word_replacement import Replacement

DEFAULT_KEEP = (0.1, 0.95)


@objective
class CoalitionMatching(Objective):
    """``τ² · mean over copies of KL(p_t(x_S) ‖ p_s(x_S))`` at temperature τ; the copy x_S keeps the words S (ours).

    In a regression: the squared error of the predictions. Models that agree on all copies agree on all Shapley values,
    which are linear in the predictions (Lundberg and Lee 2017). It is of first order, as it needs predictions only.
    Training on the teacher's predictions for perturbed inputs follows Srinivas and Fleuret 2018 (arXiv 1803.00443),
    who add noise. Models that stay accurate on coalitions follow Jethani et al. 2022 (FastSHAP, arXiv 2107.07436).
    A teacher with another tokenizer, or without one, reads copies of the raw text (``WordCopyLogits``). There,
    ``replacement: tokens`` draws words of the data.
    """

    name: ClassVar[str] = "coalition_matching"
    title: ClassVar[str] = "Coalition matching: predictions on changed copies"
    source: ClassVar[str] = "gradistill (docs/coalition_matching.md)"

    copies: int = Field(default=2, ge=1, description="changed copies of each row and epoch")
    sets: int = Field(
        default=4, ge=1, description="number of sets of copies; epoch e uses set e modulo this number"
    )
    keep: tuple[float, float] = Field(
        default=DEFAULT_KEEP, description="range of the share of words that stay in a copy (sizes: rate)"
    )
    sizes: Sizes = Field(
        default="rate", description="how many words stay: by a rate from keep, or by the Shapley kernel"
    )
    replacement: Replacement = Field(
        default="either",
        description="what replaces a word: mask, tokens (of the data), or either, chosen for each copy",
    )
    hardest: int | None = Field(
        default=None, ge=1, description="use only this many copies of a row, those with the largest distance"
    )
    temperature: float = Field(default=2.0, gt=0, description="τ, divides both models' logits")
    seed: int = Field(default=0, ge=0, description="random seed of the copies")

    def check(self, pair: Pair) -> None:
        low, high = self.keep
        if not 0 <= low <= high <= 1:
            raise RecipeError(
                f"coalition_matching.keep is {list(self.keep)}",
                expected="two shares between 0 and 1, the smaller first",
                remedy="write keep: [0.1, 0.95]",
            )
        if self.sizes == "shapley" and self.keep != DEFAULT_KEEP:
            raise RecipeError(
                "coalition_matching.keep is set with sizes: shapley, which draws the number of words without a rate",
                expected="sizes: rate, or no keep",
                remedy="drop one of them",
            )
        if self.hardest is not None and self.hardest > self.copies:
            raise RecipeError(
                f"coalition_matching.hardest is {self.hardest}, and there are {self.copies} copies",
                expected="at most as many as copies",
                remedy="raise copies, or lower hardest",
            )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        kind = WordCopyLogits if pair.on_raw_texts else CopyLogits
        return {
            "copies": kind(
                self.copies, self.sets, self.seed,
                keep=self.keep, sizes=self.sizes, replacement=self.replacement,
            )
        }  # fmt: skip

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        distances = copy_distances(
            student["copies"], teacher["copies"], self.temperature, multi_label=batch.multi_label
        )
        if self.hardest is not None:
            distances = distances.topk(self.hardest, dim=1).values
        return distances.mean(1)
