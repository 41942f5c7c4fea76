"""What a signal is: a quantity of one model and one batch, and how a store keeps it.

One file a signal. Each defines what the forward pass must record (``needs``), how the signal is computed from it
(``compute``) and how a store keeps it (``layout``). Teacher and student use the same code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.attribution.word_targets import WordTarget
from gradistill.batch import Batch
from gradistill.models.facts import ModelFacts
from gradistill.signals.explained_words import passes_of_words
from gradistill.signals.forward_pass import ForwardPass, Needs

CHANGED_WORDS, GRADIENTS = "changed words", "gradients"
"""What figures of an audit rest on: predictions of texts with other words, and gradients at the input."""


class Layout(NamedTuple):
    """The numbers of one example, or of one token where ``per_token`` is set.

    ``vectors``: the last axis is a vector, which a store may write in a narrower type, scaled by its largest entry.
    """

    shape: tuple[int, ...]
    per_token: bool = False
    vectors: bool = True


@dataclass(frozen=True)
class Signal(ABC):
    """A frozen dataclass: equal fields, equal signal. ``title`` is what people call it.

    ``replaces_words``: whether it is of texts with words replaced, for which a batch must know its words and what may
    stand in for them. ``cross_tokenizer``: whether it is of whole texts or their words, so that models with different
    tokenizers and widths can be compared by it. ``of_tokens``: whether it has a meaning where each token has a label.
    ``trains_on``: what a student learns to share through this signal that figures of an audit rest on too, such as
    ``CHANGED_WORDS``; those figures favour it.
    ``tokens_first``: whether tokens are the first axis of what it has for each of them, and not the second.
    """

    title: ClassVar[str]
    replaces_words: ClassVar[bool] = False
    trains_on: ClassVar[str | None] = None
    cross_tokenizer: ClassVar[bool] = False
    of_tokens: ClassVar[bool] = False
    tokens_first: ClassVar[bool] = False

    @property
    def of_outputs(self) -> bool:
        """Whether it can be had from a model that is only a function of whole texts."""
        return self.cross_tokenizer and self.needs() == Needs()

    @abstractmethod
    def needs(self) -> Needs:
        """What the forward pass must record."""

    @abstractmethod
    def compute(self, forward: ForwardPass) -> Tensor:
        """The signal of every example of the batch."""

    @abstractmethod
    def layout(self, model: ModelFacts) -> Layout:
        """What a store keeps of an example, or of a token."""

    def stored_as(self) -> Signal:
        """The signal whose column holds this one."""
        return self

    def from_stored(self, stored: Tensor, batch: Batch) -> Tensor:
        """This signal from the values of ``stored_as()``."""
        return stored

    @property
    def second_order(self) -> bool:
        """Whether a student that is trained to share it is differentiated twice."""
        return bool(self.needs().targets)

    @property
    def column_name(self) -> str:
        """The name of its column in a store: stores of earlier versions have it too."""
        fields: dict[str, Any] = asdict(self)
        target = fields.pop("target", {})
        parts = [type(self).__name__, *target.values(), *fields.values()]
        return "/".join("-".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in parts)


@dataclass(frozen=True)
class TargetSignal(Signal):
    """A signal that differentiates a target of the logits."""

    trains_on: ClassVar[str | None] = GRADIENTS

    target: Target

    def needs(self) -> Needs:
        return Needs(targets=(self.target,))

    @abstractmethod
    def of_text(self, forward: ForwardPass) -> Tensor:
        """The signal, ``(batch, view, …)``, of a model with one label a text, or of one word of each text."""

    def compute(self, forward: ForwardPass) -> Tensor:
        """Of a ``WordTarget`` that of each drawn word, one behind the other."""
        if not isinstance(self.target, WordTarget):
            return self.of_text(forward)
        of_word = replace(self, target=self.target.plain)
        return torch.cat([of_word.of_text(one) for one in passes_of_words(forward, self.target)], dim=1)

    def stored_as(self) -> Signal:
        """All views, of all words that are drawn: a label that is drawn at every step can be any."""
        return replace(self, target=self.target.whole)

    def from_stored(self, stored: Tensor, batch: Batch) -> Tensor:
        return stored if self.stored_as() == self else self.target.from_whole(stored, batch.drawn)
