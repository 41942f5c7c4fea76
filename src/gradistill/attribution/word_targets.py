"""Targets where each word of a text has a label: those of some words, which are drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradistill.attribution.targets import DRAWN, Target
from gradistill.batch import RandomDraws

WORD_SETS = 4
"""Sets of drawn words of a row, of which an epoch has one and which then come round again."""


@dataclass(frozen=True)
class WordTarget(Target):
    """The target of the labels of ``words`` drawn words of each row, with respect to all tokens.

    A word's logits are those of its first token. ``every_set``, as a store keeps them, is of the words of all sets, one
    set behind the other. Views stand word by word.
    """

    words: int = 1
    every_set: bool = False

    @property
    def plain(self) -> Target:
        """The target of one word, whose logits stand for those of a text."""
        return Target(self.kind, self.view)

    def sets(self, drawn: RandomDraws | None) -> range:
        """The sets of words that are explained."""
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
        own = stored.unflatten(1, (WORD_SETS, self.words, -1))[:, number]
        if self.view in DRAWN:
            of_word = None if drawn is None else drawn.rows(_repeated(len(own), self.words, own))
            own = self.plain.from_whole(own.flatten(0, 1), of_word).unflatten(0, (-1, self.words))
        return own.flatten(1, 2)


def _repeated(rows: int, times: int, like: Tensor) -> Tensor:
    """The number of each row, so many times."""
    return torch.arange(rows, device=like.device).repeat_interleave(times)
