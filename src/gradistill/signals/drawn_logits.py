"""Logits of random variants of every example: how they are drawn, repeated over epochs, and stored."""

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

    There are ``sets`` sets of copies; epoch e uses set e modulo ``sets``. ``every_set``, the stored form, holds all
    sets, concatenated along the copy axis. Copies depend on ``seed``, the set and the row's own tokens, not on the
    other rows of a batch, nor on padding.
    """

    copies: int
    sets: int
    seed: int = 0
    every_set: bool = False

    @property
    def column_name(self) -> str:
        """The column's name in a store: the class, and each field's name and value."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["every_set"]
        named = (f"{k} {'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in fields.items())
        return f"{type(self).__name__}: {', '.join(named)}"

    @abstractmethod
    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        """The logits of all copies in ``sets``."""

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
        """A generator seeded by ``seed``, the set ``number`` and the row's token ids."""
        return row_generator(self.seed, number, token_ids)
