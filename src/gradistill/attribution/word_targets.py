"""Targets in token classification: targets of drawn words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradistill.attribution.targets import DRAWN, Target
from gradistill.batch import RandomDraws

WORD_SETS = 4
"""Number of sets of drawn words of a row; epoch e uses set e modulo this number."""


@dataclass(frozen=True)
class WordTarget(Target):
    """The target of the labels of ``words`` drawn words of each row, with respect to all tokens.

    A word's logits are the logits of its first token. ``every_set``, the stored form, covers the words of all sets, the
    sets concatenated. Views are ordered by word.
    """

    words: int = 1
    every_set: bool = False

    @property
    def plain(self) -> Target:
        """The target of one word, with the word's logits as the text's logits."""
        return Target(self.kind, self.view)

    def sets(self, drawn: RandomDraws | None) -> range:
        """The numbers of the sets of words that are explained."""
        if self.every_set:
            return range(WORD_SETS)
        first = (0 if drawn is None else drawn.epoch) % WORD_SETS
        return range(first, first + 1)

    def views(self, labels: int) -> int:
        return super().views(labels) * self.words * (WORD_SETS if self.every_set else 1)

    @property
    def whole(self) -> Target:
        return replace(self, view="all" if self.view in DRAWN else self.view, every_set=True)

    def from_whole(self, stored: Tensor, drawn: RandomDraws | None) -> Tensor:
        (number,) = self.sets(drawn)
        by_word = stored.unflatten(1, (WORD_SETS, self.words, -1))[:, number]
        if self.view in DRAWN:
            of_word = None if drawn is None else drawn.rows(_repeated(len(by_word), self.words, by_word))
            by_word = self.plain.from_whole(by_word.flatten(0, 1), of_word).unflatten(0, (-1, self.words))
        return by_word.flatten(1, 2)


def _repeated(rows: int, times: int, like: Tensor) -> Tensor:
    """The index of each row, repeated ``times`` times."""
    return torch.arange(rows, device=like.device).repeat_interleave(times)
