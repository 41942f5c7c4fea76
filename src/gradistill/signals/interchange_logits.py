"""A model's predictions for a text with some hidden states of another text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.data.changed_copies import COARSE, coalitions_by_rate
from gradistill.signals.drawn_logits import DrawnLogits
from gradistill.signals.forward_pass import ForwardPass, Needs
from gradistill.signals.word_replacement import mask_id_and_pool, own_words, word_ids_of


@dataclass(frozen=True)
class InterchangeLogits(DrawnLogits):
    """Logits of each text in which the hidden states of some words come from a run of another text.

    The other text has equal length; the tokens of its words are drawn from the data. Each copy draws one of ``layers``,
    and from the range ``keep`` the share of words that keep their own states. Two models with equally many layers draw
    the same index into the list.
    """

    title: ClassVar[str] = "logits after interchange"
    replaces_words: ClassVar[bool] = True

    layers: tuple[int, ...] = (1,)
    keep: tuple[float, float] = COARSE

    def needs(self) -> Needs:
        return Needs()

    def logits_of(self, forward: ForwardPass, sets: Sequence[int]) -> Float[Tensor, "batch copy label"]:
        sources, taken, layers = self.draws(forward.batch, sets)
        rows, copies = sources.shape[:2]
        examples = torch.arange(rows, device=sources.device).repeat_interleave(copies)
        places = {
            layer: taken.flatten(0, 1) & (layers.flatten() == number)[:, None]
            for number, layer in enumerate(self.layers)
        }
        return forward.with_states_of(sources.flatten(0, 1), examples, places).unflatten(0, (rows, copies))

    def draws(
        self, batch: Batch, sets: Sequence[int]
    ) -> tuple[Int[Tensor, "batch copy token"], Bool[Tensor, "batch copy token"], Int[Tensor, "batch copy"]]:
        """Token ids of the other texts, a mask of the tokens whose states they replace, and indices into ``layers``.

        Raises DataError for a batch without word ids or without tokens to draw from.
        """
        ids, words = batch.inputs["input_ids"].cpu().numpy(), word_ids_of(batch).cpu().numpy()
        _, pool = mask_id_and_pool(batch, "tokens")
        copies = len(sets) * self.copies
        sources = np.repeat(ids[:, None], copies, axis=1)
        taken = np.zeros(sources.shape, dtype=bool)
        layers = np.zeros(sources.shape[:2], dtype=np.int64)
        for row, of_row in enumerate(words):
            positions, count, word_of_token = own_words(of_row)
            for place, number in enumerate(sets):
                of_set = slice(place * self.copies, (place + 1) * self.copies)
                generator = self.generator(ids[row][positions], number)
                kept = coalitions_by_rate(count, self.copies, self.keep, generator)
                layers[row, of_set] = generator.integers(len(self.layers), size=self.copies)
                sources[row, of_set, positions] = pool[
                    generator.integers(len(pool), size=(len(positions), self.copies))
                ]
                taken[row, of_set, positions] = ~kept[:, word_of_token].T
        device = batch.inputs["input_ids"].device
        return (
            torch.from_numpy(sources).to(batch.inputs["input_ids"]),
            torch.from_numpy(taken).to(device),
            torch.from_numpy(layers).to(device),
        )
