"""A teacher in memory with another tokenizer than the student's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.predictions import Predictions, predict_rows
from gradistill.auditing.predictor import ClassifierPredictor, Predictor
from gradistill.commands.answer_sources import (
    RowsToAnswer,
    Values,
    predicted_values,
)
from gradistill.data import Collator, Task, encode
from gradistill.data.batching import row_batches
from gradistill.data.prompt_template import template_of
from gradistill.io import digest
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.facts import ModelFacts
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.teacher_loading import is_low_precision
from gradistill.signals import Signal, WordScores, compute_signals
from gradistill.signals.word_attributions import share_outside_words
from gradistill.signals.word_replacement import word_ids_of
from gradistill.store.fingerprint import model_hash, tokenization_hash


@dataclass(frozen=True, eq=False)
class LiveSource:
    """A classifier with its own tokenizer, whose texts are cut at ``max_length`` tokens.

    Its maps are over the words that the student's tokenizer keeps apart too.
    """

    reader: LoadedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    student_tokenizer: PreTrainedTokenizerBase
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        prompted = template_of(self.tokenizer) is not None
        return "a model that reads texts in a prompt" if prompted else "a model with another tokenizer"

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def predictor(self) -> Predictor:
        return ClassifierPredictor(self.reader.probed, self.tokenizer, self.max_length)

    def facts(self, task: Task) -> ModelFacts:
        known = {name: getattr(self.reader.probe, name) for name in ModelFacts.__dataclass_fields__}
        return replace(
            ModelFacts(**known), reads_raw_texts=True, outputs_only=is_low_precision(self.reader.model)
        )

    def hashes(self) -> dict[str, str]:
        template = template_of(self.tokenizer)
        prompt = (
            {} if template is None else {"teacher_template": digest([template.literals, template.places])}
        )
        hashes = {
            "teacher": model_hash(self.reader.model),
            "teacher_tokenizer": tokenization_hash(self.tokenizer),
        }
        return hashes | prompt

    def values(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        values = predicted_values(self.predictor, asked, signals)
        if rest := [signal for signal in signals if signal not in values]:
            values |= self._of_words(asked, rest)
        return values

    def _of_words(self, asked: RowsToAnswer, signals: Sequence[Signal]) -> Values:
        encoded = self._encoded(asked.rows, asked.task)
        numbers, values_by_signal, shares = asked.numbers, {signal: {} for signal in signals}, []
        scored = [signal for signal in signals if isinstance(signal, WordScores)]
        computed = [signal for signal in signals if signal not in scored] + [s.token_scores for s in scored]
        model, device = self.reader.model, self.reader.probed.device
        with frozen_eval(model):
            for batch in row_batches(encoded, Collator(self.tokenizer), device):
                probe = self.reader.probed.verified(batch.batch)
                values = dict(compute_signals(model, probe, batch.batch, computed, create_graph=False))
                words = word_ids_of(batch.batch)
                values |= {signal: signal.of_words(values[signal.token_scores], words) for signal in scored}
                counts = (words.max(1).values + 1).tolist()
                for signal in signals:
                    for place, count, array in zip(
                        batch.places, counts, values[signal].cpu().numpy(), strict=True
                    ):
                        values_by_signal[signal][numbers[place]] = array[..., : max(count, 1)]
                if scored:
                    tokens = values[scored[0].token_scores]
                    shares.append(share_outside_words(tokens, words, batch.batch.mask))
        if shares:
            self.notes["attribution_outside_words"] = round(float(torch.cat(shares).mean()), 4)
        return values_by_signal

    def predictions(self, rows: Dataset, task: Task, split: str) -> Predictions:
        """Predictions with signed word maps (``word_maps``); without maps for a model in a low-precision dtype."""
        encoded = self._encoded(rows, task)
        predictions = predict_rows(self.reader.probed, encoded, Collator(self.tokenizer))
        return (
            replace(predictions, maps=(), signed=word_maps(predictions.signed, encoded))
            if predictions.signed
            else predictions
        )

    def _encoded(self, rows: Dataset, task: Task) -> Dataset:
        return encode(
            rows, self.tokenizer, task, max_length=self.max_length, words=self.student_tokenizer
        ).dataset


def word_maps(signed: Sequence[np.ndarray], encoded: Dataset) -> tuple[np.ndarray, ...]:
    """Signed scores of tokens, without special ones, summed to words; NaN for a word that is not read whole.

    ``encoded`` are the rows with ``word_ids`` (``encode`` with the other model's tokenizer as ``words``).
    """
    maps = []
    for scores, words, special in zip(
        signed, encoded["word_ids"][:], encoded["special_tokens_mask"][:], strict=True
    ):
        word_of_token = np.asarray(words)[np.asarray(special) == 0]
        sums = np.full(int(word_of_token.max(initial=-1)) + 1, np.nan)
        for word in np.unique(word_of_token[word_of_token >= 0]):
            sums[word] = scores[word_of_token == word].sum(dtype=np.float64)
        maps.append(sums)
    return tuple(maps)
