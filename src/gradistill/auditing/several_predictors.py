"""A predictor that combines the outputs of several predictors for the same texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from gradistill.auditing.predictor import OnProgress, Predictor, refused_heads
from gradistill.data.changed_copies import Copy


@dataclass(frozen=True, eq=False)
class SeveralPredictors(ABC):
    """Base class of combined predictors. Words can be masked if every predictor can; each uses its own mask token."""

    predictors: tuple[Predictor, ...]
    on_progress: OnProgress = field(default=lambda done: None, kw_only=True)

    has_head = False
    title: ClassVar[str]
    """The name of the combined predictor in messages."""

    @property
    def can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in self.predictors)

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """The combined logits (see ``Predictor``)."""
        refused_heads(heads, self.title)
        combined = self.combined([predictor.logits(copies)[0] for predictor in self.predictors])
        self.on_progress(len(copies))
        return combined[None]

    @abstractmethod
    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """The combined logits, from the logits of each predictor."""
