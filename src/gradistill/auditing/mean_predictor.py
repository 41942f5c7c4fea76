"""Several classifiers of one task as one predictor: the average of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from gradistill.auditing.predictor import Predictor, in_order, refused_heads
from gradistill.data.changed_copies import Copy
from gradistill.data.probabilities import logits_of

Kind = Literal["classes", "multi_label", "scores"]


@dataclass(frozen=True, eq=False)
class MeanPredictor:
    """The average of the probabilities of several predictors, each with the same weight; in a regression of scores.

    ``orders`` holds for each predictor the places of its outputs in the order that all are brought into. Its logits
    are the logarithms of the mean probabilities, of several labels a row (``multi_label``) their log-odds. An ensemble
    as teacher: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), where arithmetic means are one of two choices.

    Words can be masked where each predictor can mask them: each hides them behind its own mask token.

    Example: ``MeanPredictor((one, other), ((0, 1), (1, 0)), "classes").logits([Copy(("a fine film",))])[0]``
    """

    predictors: tuple[Predictor, ...]
    orders: tuple[tuple[int, ...], ...]
    kind: Kind = "classes"

    has_head = False

    @property
    def can_mask(self) -> bool:
        return all(predictor.can_mask for predictor in self.predictors)

    def logits(
        self, copies: Sequence[Copy], *, heads: Sequence[int] = ()
    ) -> Float[np.ndarray, "head copy label"]:
        """See ``Predictor``."""
        refused_heads(heads, "the mean of several models")
        every = [
            self._values(in_order(predictor.logits(copies)[0], order))
            for predictor, order in zip(self.predictors, self.orders, strict=True)
        ]
        mean = np.mean(every, axis=0)
        if self.kind == "scores":
            return mean[None]
        return logits_of(mean, multi_label=self.kind == "multi_label")[None]

    def _values(self, logits: Float[np.ndarray, "copy label"]) -> Float[np.ndarray, "copy label"]:
        if self.kind == "scores":
            return logits
        return expit(logits) if self.kind == "multi_label" else softmax(logits, axis=-1)
