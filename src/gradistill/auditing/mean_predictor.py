"""A predictor that averages the probabilities of several classifiers of one task."""

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
    """The unweighted average of the probabilities of several predictors; in a regression, of their scores.

    All have their outputs in the same order. Logits are the logarithms of the mean probabilities, or their log-odds
    with several labels a row (``multi_label``). An ensemble as teacher follows Hinton, Vinyals and Dean 2015 (arXiv
    1503.02531), where the arithmetic mean is one of two choices.

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
        """With several labels a row the mean of the members' thresholds, where a member without thresholds counts as ½.
        None if no member has thresholds."""
        thresholds = [label_thresholds(each) for each in self.predictors] if self.multi_label else []
        known = [each for each in thresholds if each is not None]
        if not known:
            return None
        return np.mean([np.full_like(known[0], 0.5) if each is None else each for each in thresholds], axis=0)

    def combined(self, logits: Sequence[Float[np.ndarray, "copy _"]]) -> Float[np.ndarray, "copy label"]:
        """The logits of the mean (see ``SeveralPredictors``)."""
        mean = np.mean([self._values(each) for each in logits], axis=0)
        return mean if self.kind == "scores" else logits_of(mean, multi_label=self.multi_label)

    def _values(self, logits: Float[np.ndarray, "copy label"]) -> Float[np.ndarray, "copy label"]:
        if self.kind == "scores":
            return logits
        return expit(logits) if self.kind == "multi_label" else softmax(logits, axis=-1)
