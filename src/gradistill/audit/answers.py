"""Models asked about the same rows: their logits, and the saliency maps that loyalty compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from gradistill.attribution.targets import Target
from gradistill.audit.loyalty import Loyalty, measure_loyalty
from gradistill.models.still import still
from gradistill.objectives._contract import AttributionScores, Logits
from gradistill.signals.asking import Collate, questions
from gradistill.signals.speak import speak

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
    collate: Collate,
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
    lengths = rows["length"][:]
    logits: list[Any] = [None] * len(rows)
    maps: list[Any] = [None] * len(rows)
    with still(model):
        for question in questions(model, rows, collate, lengths=lengths, tokens_at_once=tokens_at_once):
            columns, batch, places = question.columns, question.batch, question.places
            own_tokens = (columns["attention_mask"] * (1 - columns["special_tokens_mask"])).bool()
            chosen = None if labels is None else torch.as_tensor(labels[places], device=batch.mask.device)
            said = speak(
                model, question.probe, batch, [Logits(), request], create_graph=False, teacher_labels=chosen
            )
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
