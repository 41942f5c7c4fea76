"""Label smoothing: ``TrainingArguments.label_smoothing_factor`` in the loss of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from gradistill.batch import Batch
from gradistill.objectives import EpochProgress, Term
from gradistill.objectives.base import Signals, objective
from gradistill.objectives.hard_label import HardLabel, cross_entropy


@objective
class SmoothedHardLabel(HardLabel):
    """``−(1 − ε) log p_gold − ε/C Σ_c log p_c``: the Trainer's LabelSmoother.

    Szegedy et al. 2016, arXiv 1512.00567, section 7.
    """

    smoothing: float = 0.0

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        return batch.per_label(cross_entropy(student["logits"], batch, self.smoothing))


def smoothed(terms: Sequence[Term], factor: float) -> list[Term]:
    """The terms, with the labels of ``hard_label`` smoothed by ``factor``."""
    if not factor:
        return list(terms)
    return [
        replace(term, objective=SmoothedHardLabel(smoothing=factor))
        if isinstance(term.objective, HardLabel)
        else term
        for term in terms
    ]
