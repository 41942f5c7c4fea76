"""Cross-entropy against the labels of the data; squared error in a regression."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradistill.batch import UNLABELLED, Batch
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.label_distributions import over_labels
from gradistill.signals import Logits, Signal


@objective
class HardLabel(Objective):
    """``−log p_gold`` for each example (fine-tuning's loss), or ``(z − y)²`` in a regression.

    In token classification: the mean over the labelled words of a row.

    With several labels a row: the mean of the labels' binary cross-entropies, as in transformers.

    Rows without a label have distance 0 and do not count in the average over examples.
    """

    name: ClassVar[str] = "hard_label"
    title: ClassVar[str] = "Cross-entropy with the labels"
    source: ClassVar[str] = "Devlin et al. 2019, arXiv 1810.04805"
    is_prediction_loss: ClassVar[bool] = True

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"logits": Logits()} if role == "student" else {}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        logits = student["logits"]
        assert batch.labels is not None  # the trainer refuses data without labels
        if batch.multi_label:
            known = batch.labelled()
            flags = torch.where(known.unsqueeze(1), batch.labels.to(logits), 0.0)
            losses = functional.binary_cross_entropy_with_logits(logits, flags, reduction="none")
            return batch.per_label(over_labels(losses) * known)
        if logits.shape[-1] == 1:
            scores, gold = logits.squeeze(1), batch.labels.to(logits).view(-1)
            return batch.per_label((scores - torch.where(gold.isnan(), scores, gold)).square())
        return batch.per_label(cross_entropy(logits, batch))


def cross_entropy(
    logits: Float[Tensor, "batch *token label"], batch: Batch, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """``−log p_gold`` of each row, or its mean over the labelled words; 0 in rows without a label."""
    assert batch.labels is not None  # the trainer refuses data without labels
    losses = functional.cross_entropy(
        logits.flatten(0, -2), batch.labels.flatten(), reduction="none", ignore_index=UNLABELLED,
        label_smoothing=smoothing,
    ).view_as(batch.labels)  # fmt: skip
    return batch.over_words(losses, batch.labels != UNLABELLED) if batch.token_labels else losses
