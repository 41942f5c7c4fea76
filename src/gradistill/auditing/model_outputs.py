"""One model's outputs for rows of an audit: predictions, maps, and the positions of its tokens in the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.loyalty_measures import Maps
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.predictor import ClassifierPredictor, Predictor
from gradistill.auditing.word_maps import TokenizedText
from gradistill.models.probe import ProbedModel


@dataclass(frozen=True)
class ProbedPredictor:
    """A model of an audit. PyTorch classifiers are probed, once for all rows."""

    predictor: Predictor
    probed: ProbedModel | None
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def of(cls, predictor: Predictor) -> ProbedPredictor:
        if not isinstance(predictor, ClassifierPredictor):
            return cls(predictor, None, None)
        return cls(predictor, ProbedModel.of(predictor.classifier), predictor.tokenizer)


@dataclass(frozen=True)
class ModelOutputs:
    """One model's ``predictions`` for some rows, and the positions of its tokens in the texts (``reads``).

    Models without gradients have no maps; tokenizers without offsets give no ``reads``.
    """

    model: ProbedPredictor
    predictions: Predictions
    reads: Sequence[TokenizedText] = ()

    @property
    def in_words(self) -> bool:
        """Whether the maps can be summed over words."""
        return bool(self.predictions.maps and self.reads)

    def word_sums(self, maps: Maps) -> list[np.ndarray]:
        return [read.raw_words(scores) for read, scores in zip(self.reads, maps, strict=True)]
