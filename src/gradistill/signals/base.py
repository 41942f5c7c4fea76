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
"""Kinds of audit figures: measured on predictions for texts with changed words, or on gradients at the input."""


class Layout(NamedTuple):
    """The shape of the values of one example, or of one token where ``per_token`` is set.

    ``vectors``: the last axis is a vector. A store may write it in a smaller type, scaled by its largest entry.
    """

    shape: tuple[int, ...]
    per_token: bool = False
    vectors: bool = True


@dataclass(frozen=True)
class Signal(ABC):
    """Base class of signals: a frozen dataclass, so that equal fields are an equal signal. ``title``: its usual name.

    ``replaces_words``: computed on texts with replaced words; a batch must then hold word ids and replacement tokens.
    ``cross_tokenizer``: about whole texts or words, so that models with different tokenizers or widths are comparable.
    ``of_tokens``: defined for token classification.
    ``trains_on``: the kind of audit figure that this signal trains on, such as ``CHANGED_WORDS``; such figures get a †.
    ``tokens_first``: in a signal with values for each token, tokens are the first axis after the batch, not the second.
    """

    title: ClassVar[str]
    replaces_words: ClassVar[bool] = False
    trains_on: ClassVar[str | None] = None
    cross_tokenizer: ClassVar[bool] = False
    of_tokens: ClassVar[bool] = False
    tokens_first: ClassVar[bool] = False

    @property
    def of_outputs(self) -> bool:
        """Whether it can be computed from a model that is only a function of whole texts."""
        return self.cross_tokenizer and self.needs() == Needs()

    @abstractmethod
    def needs(self) -> Needs:
        """What the forward pass must record."""

    @abstractmethod
    def compute(self, forward: ForwardPass) -> Tensor:
        """The signal of every example of the batch."""

    @abstractmethod
    def layout(self, model: ModelFacts) -> Layout:
        """The shape of the values that a store keeps for an example, or for a token."""

    def stored_as(self) -> Signal:
        """The signal that a store keeps, from which this one is cut."""
        return self

    def from_stored(self, stored: Tensor, batch: Batch) -> Tensor:
        """This signal from the values of ``stored_as()``."""
        return stored

    @property
    def second_order(self) -> bool:
        """Whether training a student on this signal differentiates the student twice."""
        return bool(self.needs().targets)

    @property
    def column_name(self) -> str:
        """The name of the signal's column in a store. It must not change: earlier stores use it."""
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
        """The signal, ``(batch, view, …)``, for one label of each text, or for one word's label."""

    def compute(self, forward: ForwardPass) -> Tensor:
        """The signal. For a ``WordTarget``: the signals of all drawn words, concatenated along the view axis."""
        if not isinstance(self.target, WordTarget):
            return self.of_text(forward)
        of_word = replace(self, target=self.target.plain)
        return torch.cat([of_word.of_text(one) for one in passes_of_words(forward, self.target)], dim=1)

    def stored_as(self) -> Signal:
        """The signal of all views and all drawn words: a view that is drawn in every step can be any of them."""
        return replace(self, target=self.target.whole)

    def from_stored(self, stored: Tensor, batch: Batch) -> Tensor:
        return stored if self.stored_as() == self else self.target.from_whole(stored, batch.drawn)
