"""Logits of drawn variants of every example: what is drawn, when it comes round again, and how a store keeps it."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.models.facts import ModelFacts
from gradistill.signals.base import Layout, Signal
from gradistill.signals.forward_pass import ForwardPass
from gradistill.signals.word_replacement import row_generator


@dataclass(frozen=True)
class DrawnLogits(Signal):
    """Logits of ``copies`` variants of every example, ``(batch, copy, label)``, in float32 or wider.

    There are ``sets`` sets of copies, of which an epoch has one and which then come round again; ``every_set``, as a
    store keeps them, is all of them, one behind the other. They depend on ``seed``, the set and the row's own tokens:
    not on the other rows of a batch, nor on padding.
    """

    copies: int
    sets: int
    seed: int = 0
    every_set: bool = False

    @property
    def column_name(self) -> str:
        """Of a store: the name of each field beside its value."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["every_set"]
        named = (f"{k} {'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in fields.items())
        return f"{type(self).__name__}: {', '.join(named)}"

    @abstractmethod
    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        """The logits of all copies of these sets."""

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch copy label"]:
        return self.logits_of(forward, range(self.sets) if self.every_set else [self._set_of(forward.batch)])

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((self.copies * (self.sets if self.every_set else 1), model.labels), vectors=False)

    def stored_as(self) -> Signal:
        return replace(self, every_set=True)

    def from_stored(self, stored: Tensor, batch: Batch) -> Tensor:
        if self.every_set:
            return stored
        return stored.unflatten(1, (self.sets, self.copies))[:, self._set_of(batch)]

    def _set_of(self, batch: Batch) -> int:
        return (0 if batch.drawn is None else batch.drawn.epoch) % self.sets

    def generator(self, token_ids: Int[np.ndarray, " token"], number: int) -> np.random.Generator:
        """That of a row, known by its own tokens, in one of the sets."""
        return row_generator(self.seed, number, token_ids)
