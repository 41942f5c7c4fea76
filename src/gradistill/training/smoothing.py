"""Label smoothing: ``TrainingArguments.label_smoothing_factor`` in the loss of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradistill.errors import TrainingError
from gradistill.objectives import Moment, Term
from gradistill.objectives._contract import Signals, objective
from gradistill.objectives.hard_label import HardLabel
from gradistill.types import UNLABELLED, Batch


@objective
class SmoothedHardLabel(HardLabel):
    """``−(1 − ε) log p_gold − ε/C Σ_c log p_c``: the Trainer's LabelSmoother.

    Szegedy et al. 2016, arXiv 1512.00567, section 7.
    """

    smoothing: float = 0.0

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, moment: Moment
    ) -> Float[Tensor, " batch"]:
        assert batch.labels is not None  # the trainer refuses data without labels
        smoothed = functional.cross_entropy(
            student["logits"],
            batch.labels,
            reduction="none",
            ignore_index=UNLABELLED,
            label_smoothing=self.smoothing,
        )
        return batch.per_label(smoothed)


def smoothed(terms: Sequence[Term], factor: float) -> list[Term]:
    """The terms with the labels of ``hard_label`` smoothed. Raises TrainingError where no term reads labels so."""
    if not factor:
        return list(terms)
    if not any(isinstance(term.objective, HardLabel) for term in terms):
        raise TrainingError(
            f"TrainingArguments.label_smoothing_factor is {factor}, and there is no hard_label to smooth",
            remedy="leave it out, or add HardLabel() to the objectives",
        )
    return [
        replace(term, objective=SmoothedHardLabel(smoothing=factor))
        if isinstance(term.objective, HardLabel)
        else term
        for term in terms
    ]
