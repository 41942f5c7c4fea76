"""Several classifiers of one task as one predictor: the average of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from gradistill.auditing.predictor import OnProgress, Predictor, refused_heads
from gradistill.data.changed_copies import Copy
from gradistill.data.probabilities import logits_of

Kind = Literal["classes", "multi_label", "scores"]


@dataclass(frozen=True, eq=False)
class MeanPredictor:
    """The average of the probabilities of several predictors, each with the same weight; in a regression of scores.

    All have their outputs in one order. Its logits are the logarithms of the mean probabilities, of several labels a
    row (``multi_label``) their log-odds. An ensemble as teacher: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531),
    where arithmetic means are one of two choices.

    Words can be masked where each predictor can mask them: each hides them behind its own mask token.

    Example: ``MeanPredictor((one, other), "classes").logits([Copy(("a fine film",))])[0]``
    """

    predictors: tuple[Predictor, ...]
    kind: Kind = "classes"
    on_progress: OnProgress = lambda done: None

    has_head = False

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.kind == "multi_label"

    @property
    def can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in self.predictors)

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``."""
        refused_heads(heads, "the mean of several models")
        mean = np.mean([self._values(predictor.logits(copies)[0]) for predictor in self.predictors], axis=0)
        self.on_progress(len(copies))
        if self.kind == "scores":
            return mean[None]
        return logits_of(mean, multi_label=self.multi_label)[None]

    def _values(self, logits: Float[np.ndarray, "copy label"]) -> Float[np.ndarray, "copy label"]:
        if self.kind == "scores":
            return logits
        return expit(logits) if self.kind == "multi_label" else softmax(logits, axis=-1)
