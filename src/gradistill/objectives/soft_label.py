"""Knowledge distillation of the teacher's probabilities: soft labels at a temperature."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from gradistill.batch import Batch
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.label_distributions import Divergence, divergence
from gradistill.signals import Logits, Signal


@objective
class SoftLabel(Objective):
    """``KL(p_t ‖ p_s)`` or ``−Σ p_t log p_s`` at temperature τ; in a regression the squared error of ``z/τ``.

    With several labels a row: the same for the Bernoulli variable ``σ(z/τ)`` of each label, averaged over labels.
    The two divergences differ by the teacher's entropy only, so their gradients are equal. They are summed over labels:
    the mean over examples is torch's ``batchmean``. The GKD authors also average over labels (C times weaker).
    """

    name: ClassVar[str] = "soft_label"
    title: ClassVar[str] = "Soft labels (knowledge distillation)"
    source: ClassVar[str] = "Hinton et al. 2015, arXiv 1503.02531"
    is_prediction_loss: ClassVar[bool] = True

    temperature: float = Field(default=1.0, gt=0, description="τ, divides both models' logits")
    divergence: Divergence = Field(default="kl", description="divergence of the two distributions at τ")
    times_temperature_squared: bool = Field(
        default=False,
        description="multiply by τ², which keeps the gradient's size independent of τ (Hinton; GKD)",
    )
    anneal: bool = Field(
        default=False, description="move τ linearly to 1 over the epochs (AD-KD's annealed KD)"
    )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"logits": Logits()}

    def temperature_at(self, progress: EpochProgress) -> float:
        """``τ_e = τ + (1 − τ)·e/(E − 1)`` if annealed; a single epoch keeps τ."""
        if not self.anneal or progress.epochs < 2:
            return self.temperature
        return self.temperature + (1 - self.temperature) * progress.epoch / (progress.epochs - 1)

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        temperature = self.temperature_at(progress)
        distances = divergence(
            student["logits"] / temperature,
            teacher["logits"] / temperature,
            multi_label=batch.multi_label,
            by=self.divergence,
        )
        if batch.token_labels:
            distances = batch.over_words(distances, batch.first_tokens)
        return distances * temperature**2 if self.times_temperature_squared else distances
