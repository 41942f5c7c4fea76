"""Models asked about the same rows: their logits, and the saliency maps that loyalty compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from gradistill.attribution.targets import Target
from gradistill.audit.loyalty import Loyalty, measure_loyalty
from gradistill.data.batching import by_length
from gradistill.models.probe import Probe
from gradistill.models.still import still
from gradistill.objectives._contract import AttributionScores, Logits
from gradistill.signals.speak import speak
from gradistill.types import Batch

SALIENCY = "gradient_x_input"
"""``‖E_i ⊙ ∇_{E_i} F‖₂`` of the log-odds of the teacher's label (of the prediction in a regression)."""


@dataclass(frozen=True)
class Answers:
    """What one model answers, row by row: logits ``(rows, label)`` and a map of token scores for each row,
    special tokens and padding taken out."""

    logits: np.ndarray
    maps: tuple[np.ndarray, ...]

    @property
    def labels(self) -> np.ndarray:
        """The predicted label of each row (0 in a regression)."""
        return self.logits.argmax(-1)


def ask(
    model: nn.Module,
    rows: Dataset,
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]],
    *,
    labels: np.ndarray | None = None,
    tokens_at_once: int = 4096,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Answers:
    """What ``model`` answers about encoded rows (with ``special_tokens_mask``), in their order.

    It explains ``labels``, one per row, or what it predicts itself. ``on_progress`` hears how many rows are done.
    The model is asked in eval mode and left as it was; rows of like length, at most ``tokens_at_once`` tokens of
    them with their padding, share a forward pass.
    """
    request = AttributionScores(Target("log_odds", "teacher"))
    probe, started, device = Probe.find(model), False, next(model.parameters()).device
    logits: list[Any] = [None] * len(rows)
    maps: list[Any] = [None] * len(rows)
    with still(model):
        for places in by_length(rows["length"][:], tokens_at_once):
            collated = collate([rows[place] for place in places])
            own_tokens = (collated["attention_mask"] * (1 - collated["special_tokens_mask"])).bool()
            batch = Batch.of({key: value.to(device) for key, value in collated.items()})
            if not started:
                probe, started = probe.verified(model, batch), True
            said = speak(
                model, probe, batch, [Logits(), request], create_graph=False,
                teacher_labels=None if labels is None else torch.as_tensor(labels[places], device=device),
            )  # fmt: skip
            for k, place in enumerate(places):
                logits[place] = said[Logits()][k].cpu().numpy()
                maps[place] = said[request][k, 0].cpu()[own_tokens[k]].numpy()
            on_progress(len(places))
    return Answers(np.stack(logits), tuple(maps))


def loyalty(student: Answers, teacher: Answers, *, resamples: int = 2000, seed: int = 0) -> Loyalty:
    """Label, probability and saliency loyalty with bootstrap intervals (METHODS.md, section 4)."""
    return measure_loyalty(
        student.logits,
        teacher.logits,
        student.maps,
        teacher.maps,
        method=SALIENCY,
        resamples=resamples,
        seed=seed,
    )
