"""Several classifiers of one task as one predictor: the average of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from gradistill.auditing.predictor import label_thresholds
from gradistill.auditing.several_predictors import SeveralPredictors
from gradistill.data.probabilities import logits_of

Kind = Literal["classes", "multi_label", "scores"]


@dataclass(frozen=True, eq=False)
class MeanPredictor(SeveralPredictors):
    """The average of the probabilities of several predictors, each with the same weight; in a regression of scores.

    All have their outputs in one order. Its logits are the logarithms of the mean probabilities, of several labels a
    row (``multi_label``) their log-odds. An ensemble as teacher: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531),
    where arithmetic means are one of two choices.

    Example: ``MeanPredictor((one, other), "classes").logits([Copy(("a fine film",))])[0]``
    """

    kind: Kind = "classes"

    title = "the mean of several models"

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.kind == "multi_label"

    @property
    def thresholds(self) -> np.ndarray | None:
        """Of several labels a row the mean of its members' thresholds, ½ for a member that has none; None where none
        has."""
        found = [label_thresholds(each) for each in self.predictors] if self.multi_label else []
        known = [each for each in found if each is not None]
        if not known:
            return None
        return np.mean([np.full_like(known[0], 0.5) if each is None else each for each in found], axis=0)

    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """See ``SeveralPredictors``."""
        mean = np.mean([self._values(each) for each in logits], axis=0)
        return mean if self.kind == "scores" else logits_of(mean, multi_label=self.multi_label)

    def _values(self, logits: Float[np.ndarray, "copy label"]) -> Float[np.ndarray, "copy label"]:
        if self.kind == "scores":
            return logits
        return expit(logits) if self.kind == "multi_label" else softmax(logits, axis=-1)
