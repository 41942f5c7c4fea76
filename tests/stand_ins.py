"""Stand-ins: predictors that are no model, whose logits depend on which words are there, and functions that raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradistill.data.changed_copies import Copy, masked_copies
from gradistill.data.raw_words import Kept, Texts, count_words
from gradistill.training.trainer import DistillationTrainer


@dataclass(frozen=True)
class OfWords:
    """``logits_of`` takes the texts and whether each of their words is there; ``seen`` counts predictions."""

    logits_of: Callable[[Texts, np.ndarray], Sequence[float]]
    has_head: bool = False
    can_mask: bool = True
    seen: list[int] = field(default_factory=list)

    def logits(self, copies: Sequence[Copy], *, heads: Sequence[int] = ()) -> np.ndarray:
        assert not heads
        self.seen.append(len(copies))
        rows = [
            self.logits_of(c.texts, np.ones(count_words(c.texts), bool) if c.kept is None else c.kept)
            for c in copies
        ]
        return np.array([rows], dtype=np.float64)


def networks(rows: Sequence[Texts], *, labels: int = 2, seed: int = 0) -> OfWords:
    """For each row a small random network of its words, with strong interactions."""
    weights = {}
    for number, row in enumerate(rows):
        random = np.random.default_rng([seed, number])
        first = random.normal(size=(count_words(row), 8))
        weights[row] = first, random.normal(size=(8, labels))
    return OfWords(lambda texts, there: np.tanh(there @ weights[texts][0]) @ weights[texts][1])


def masks_of(rows: Sequence[Texts]) -> Callable[[int, Kept], list[Copy]]:
    return lambda row, kept: masked_copies(rows[row], kept)


def raising(error: BaseException) -> Callable[..., None]:
    """A function that raises the error, whatever it is called with."""

    def run(*_: object, **__: object) -> None:
        raise error

    return run


def out_of_memory(when: Callable[[int, int], bool]) -> Callable[..., Any]:
    """``DistillationTrainer.compute_loss`` that runs out of memory: ``when`` takes the rows of a batch and the number
    of the training step."""
    loss, step = DistillationTrainer.compute_loss, 0

    def compute_loss(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal step
        if model.training:
            step += 1
            if when(len(inputs["input_ids"]), step):
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(trainer, model, inputs, *args, **kwargs)

    return compute_loss
