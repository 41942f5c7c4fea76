"""Several predictors that are one: each reads the texts, and what they return is combined."""

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
    """Words can be masked where each predictor can mask them: each hides them behind its own mask token."""

    predictors: tuple[Predictor, ...]
    on_progress: OnProgress = field(default=lambda done: None, kw_only=True)

    has_head = False
    title: ClassVar[str]
    """What they are called where one of them alone would do."""

    @property
    def can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in self.predictors)

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``."""
        refused_heads(heads, self.title)
        found = self.combined([predictor.logits(copies)[0] for predictor in self.predictors])
        self.on_progress(len(copies))
        return found[None]

    @abstractmethod
    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """One set of logits from those of each predictor."""
