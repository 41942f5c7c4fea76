"""Attributions summed over the words of the raw text, which models with different tokenizers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.attribution.quadrature import Rule
from gradistill.errors import StoreError
from gradistill.models.facts import ModelFacts
from gradistill.signals.attribution_scores import AttributionScores
from gradistill.signals.base import Layout, Signal, TargetSignal
from gradistill.signals.forward_pass import ForwardPass, Needs
from gradistill.signals.word_replacement import word_ids_of


@dataclass(frozen=True)
class WordScores(TargetSignal):
    """Scores of words, ``(batch, view, word)``: sums of the signed attributions of each word's tokens.

    Attributions are Integrated Gradients, summed over the embedding's entries; one right Riemann step is gradient ×
    input. Without ``signed`` the score is the sum's absolute value. (Norms of tokens do not add up to norms of words,
    so they cannot be compared across tokenizers.) Tokens of no word are left out: special tokens, and words that are
    cut off. A word without tokens scores 0; ``WordsRead`` is the mask of words with tokens.
    """

    title: ClassVar[str] = "attributions of words"
    cross_tokenizer: ClassVar[bool] = True

    steps: int = 1
    rule: Rule = "right_riemann"
    signed: bool = False

    def of_text(self, forward: ForwardPass) -> Float[Tensor, "batch view word"]:
        return self.of_words(self.token_scores.compute(forward), word_ids_of(forward.batch))

    @property
    def token_scores(self) -> AttributionScores:
        """The signed scores of the tokens."""
        return AttributionScores(self.target, self.steps, self.rule, signed=True)

    def of_words(
        self, scores: Float[Tensor, "batch view token"], words: Int[Tensor, "batch token"]
    ) -> Float[Tensor, "batch view word"]:
        """Word scores from token scores (``token_scores``); ``words``: each token's word index, −1 for none."""
        sums = summed_by_word(scores, words)
        return sums if self.signed else sums.abs()

    def layout(self, model: ModelFacts) -> Layout:
        raise _not_stored()


@dataclass(frozen=True)
class WordsRead(Signal):
    """``(batch, word)``: 1 for each word of the raw text that the model reads whole, else 0."""

    title: ClassVar[str] = "words that are read"
    cross_tokenizer: ClassVar[bool] = True

    def needs(self) -> Needs:
        return Needs()

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch word"]:
        words = word_ids_of(forward.batch)
        tokens = (words >= 0).to(forward.logits).unsqueeze(1)
        return (summed_by_word(tokens, words)[:, 0] > 0).to(tokens)

    def layout(self, model: ModelFacts) -> Layout:
        raise _not_stored()


def summed_by_word(
    scores: Float[Tensor, "batch view token"], words: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch view word"]:
    """The sums of token scores over the tokens of each word; ``words``: each token's word index, −1 for none."""
    count = max(int(words.max()) + 1, 1)
    sums = scores.new_zeros(*scores.shape[:2], count + 1)
    return sums.scatter_add(2, (words + 1).unsqueeze(1).expand_as(scores), scores)[..., 1:]


def share_outside_words(
    scores: Float[Tensor, "batch view token"],
    words: Int[Tensor, "batch token"],
    mask: Bool[Tensor, "batch token"],
) -> Float[Tensor, " batch"]:
    """The share of Σ|score| on real tokens that belong to no word, over all views; 0 where all scores are 0."""
    sizes = scores.abs().masked_fill(~mask.unsqueeze(1), 0.0)
    outside = sizes.masked_fill((words >= 0).unsqueeze(1), 0.0).sum((1, 2))
    whole = sizes.sum((1, 2))
    return torch.where(whole > 0, outside / torch.where(whole > 0, whole, 1.0), 0.0)


def _not_stored() -> StoreError:
    return StoreError(
        "Signals of words are kept in memory, not in a store.",
        expected="a teacher with the student's tokenizer for stored signals",
        remedy="distil without --signals",
    )
