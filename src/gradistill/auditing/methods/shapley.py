"""Shapley values of words (Lundberg and Lee 2017): each word's effect on the prediction, averaged over all orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradistill.attribution.shapley_weights import ShapleyDesign, shapley_design
from gradistill.errors import check_whole_numbers
from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class Shapley:
    """``|φ_i|`` of the words of the raw text, split equally among a word's tokens; ``signed`` returns ``φ_i``.

    Words outside a coalition are masked. Values are exact below 8 words. Otherwise permutations are sampled in
    antithetic ``pairs``, which take ``2 · pairs · (words − 1) + 2`` forward passes for a row. In a batch without word
    ids every token counts as a word.
    """

    name: ClassVar[str] = "shapley"
    title: ClassVar[str] = "Shapley values"
    source: ClassVar[str] = "Lundberg and Lee 2017, arXiv 1705.07874; sampling: Mitchell et al. 2022, JMLR 23"

    pairs: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole_numbers(self, pairs=1, seed=0)

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        return self.signed(forward).abs()

    def signed(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        """The signed values: positive if a word supports the label."""
        scores = torch.zeros(
            forward.batch.mask.shape, dtype=forward.logits.dtype, device=forward.logits.device
        )
        for row, words in enumerate(forward.batch.word_numbers.cpu().numpy()):
            count = int(words.max(initial=-1)) + 1
            if count:
                design = shapley_design(count, pairs=self.pairs, seed=self.seed)
                values = design.weights @ self._values(forward, row, words, design)
                tokens = np.flatnonzero(words >= 0)
                share = values[words[tokens]] / np.bincount(words[tokens], minlength=count)[words[tokens]]
                scores[row, tokens.tolist()] = torch.as_tensor(share).to(scores)
        return scores

    def _values(
        self, forward: ForwardPass, row: int, words: Int[np.ndarray, " token"], design: ShapleyDesign
    ) -> Float[np.ndarray, " coalition"]:
        """The log-odds of the explained label for every coalition of a row."""
        erased = (words >= 0) & ~design.kept[:, np.maximum(words, 0)]
        examples = torch.full((len(erased),), row, device=forward.logits.device)
        logits = forward.erase(torch.as_tensor(erased, device=forward.logits.device), examples)
        label_ids = forward.label_ids[EXPLAINED_TARGET]
        labels = None if label_ids is None else label_ids[examples]
        return forward.values_of(EXPLAINED_TARGET, logits, labels)[:, 0].cpu().double().numpy()
