"""A model's predictions for copies of a text in which some words are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.data.changed_copies import COARSE, coalitions_by_rate
from gradistill.signals.base import CHANGED_WORDS
from gradistill.signals.drawn_logits import DrawnLogits
from gradistill.signals.forward_pass import ForwardPass, Needs
from gradistill.signals.word_replacement import Replacement, mask_id_and_pool, own_words, word_ids_of

Sizes = Literal["rate", "shapley"]


@dataclass(frozen=True)
class CopyLogits(DrawnLogits):
    """Logits of copies of every example in which some words are replaced.

    Each copy keeps some words of the raw text and replaces the tokens of the others: by the mask token, by tokens drawn
    from the data, or by ``either`` of the two, chosen for each copy. With ``sizes="rate"`` each copy draws a rate from
    the range ``keep`` and keeps every word with that probability. With ``"shapley"`` the number s of kept words is
    drawn with the weights of the Shapley kernel, ``1 / (s · (n − s))``. At least one word is replaced; with
    ``"shapley"`` at least one is kept.
    """

    title: ClassVar[str] = "logits of changed copies"
    replaces_words: ClassVar[bool] = True
    trains_on: ClassVar[str | None] = CHANGED_WORDS

    keep: tuple[float, float] = COARSE
    sizes: Sizes = "rate"
    replacement: Replacement = "mask"

    def needs(self) -> Needs:
        return Needs()

    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        changed = self.token_ids(forward.batch, sets)
        rows, copies = changed.shape[:2]
        examples = torch.arange(rows, device=changed.device).repeat_interleave(copies)
        return forward.with_tokens(changed.flatten(0, 1), examples).unflatten(0, (rows, copies))

    def token_ids(self, batch: Batch, sets: Sequence[int]) -> Int[Tensor, "batch copy token"]:
        """The token ids of the copies in ``sets``.

        Raises DataError for a batch without word ids or without replacement tokens.
        """
        ids, numbers = batch.inputs["input_ids"].cpu().numpy(), word_ids_of(batch).cpu().numpy()
        filler, pool = mask_id_and_pool(batch, self.replacement)
        changed = [
            self._copies_of(row_ids, words, one, filler, pool)
            for row_ids, words in zip(ids, numbers, strict=True)
            for one in sets
        ]
        stacked = torch.from_numpy(np.stack(changed)).unflatten(0, (len(ids), len(sets))).flatten(1, 2)
        return stacked.to(batch.inputs["input_ids"])

    def _copies_of(
        self,
        token_ids: Int[np.ndarray, " token"],
        words: Int[np.ndarray, " token"],
        number: int,
        filler: int,
        pool: Int[np.ndarray, " pool"],
    ) -> Int[np.ndarray, "copy token"]:
        """The copies of one row in set ``number``. Draws depend on the row's tokens only, not on padding."""
        positions, count, word_of_token = own_words(words)
        generator = self.generator(token_ids[positions], number)
        kept = self.coalitions(count, generator)
        others = pool[generator.integers(len(pool), size=(self.copies, len(positions)))]
        if self.replacement != "tokens":
            masks = (generator.random((self.copies, 1)) < 0.5) | (self.replacement == "mask")
            others = np.where(masks, filler, others)
        copies = np.repeat(token_ids[None], self.copies, axis=0)
        copies[:, positions] = np.where(kept[:, word_of_token], token_ids[positions], others)
        return copies

    def coalitions(self, words: int, generator: np.random.Generator) -> Bool[np.ndarray, "copy word"]:
        """A mask of the words that each copy keeps."""
        if self.sizes == "shapley" and words > 1:
            sizes = np.arange(1, words)
            weights = 1 / (sizes * (words - sizes))
            drawn = generator.choice(sizes, size=(self.copies, 1), p=weights / weights.sum())
            return generator.random((self.copies, words)).argsort(axis=1).argsort(axis=1) < drawn
        return coalitions_by_rate(words, self.copies, self.keep, generator)
