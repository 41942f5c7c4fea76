"""What one model of an audit makes of some rows: predictions, maps, and how its tokens lie in the texts."""

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
class ExaminedModel:
    """A model of an audit. Those that are PyTorch classifiers are probed, once for all rows."""

    predictor: Predictor
    probed: ProbedModel | None
    tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def of(cls, predictor: Predictor) -> ExaminedModel:
        if not isinstance(predictor, ClassifierPredictor):
            return cls(predictor, None, None)
        return cls(predictor, ProbedModel.of(predictor.classifier), predictor.tokenizer)


@dataclass(frozen=True)
class ModelOutputs:
    """What one model makes of some rows: its ``predictions``, and how its tokens lie in the texts (``reads``).

    There are no maps where the model has no gradients, and no ``reads`` where its tokenizer has no offsets.
    """

    model: ExaminedModel
    predictions: Predictions
    reads: Sequence[TokenizedText] = ()

    @property
    def in_words(self) -> bool:
        """Whether its map can be summed to words."""
        return bool(self.predictions.maps and self.reads)

    def word_sums(self, maps: Maps) -> list[np.ndarray]:
        return [read.raw_words(scores) for read, scores in zip(self.reads, maps, strict=True)]
