"""One model, one batch, one explained label: what it said, and how to ask again about changed inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gradistill.attribution.targets import Target
from gradistill.errors import ModelError
from gradistill.models.probe import Probe
from gradistill.signals.asking import Question
from gradistill.signals.speak import from_embeddings, widened
from gradistill.types import Batch

TARGET = Target("log_odds", "teacher")
"""What is explained: the log-odds of one label of each row, the prediction in a regression."""


@dataclass(frozen=True)
class Heard:
    """A batch after its forward pass. ``labels`` are explained: those given, else those that the model predicts.

    ``embedding`` is the embedding output. The first ``gradient`` comes from the same forward pass. To be used inside
    ``still(model)``; ``Heard.about`` is the way to make one.
    """

    model: nn.Module
    probe: Probe
    batch: Batch
    tapped: Float[Tensor, "batch token hidden"]
    said: Float[Tensor, "batch label"]
    labels: Int[Tensor, " batch"]
    blank: int | None

    @classmethod
    def about(
        cls, model: nn.Module, question: Question, labels: Sequence[int] | np.ndarray | None = None
    ) -> Heard:
        """``labels`` has one entry for each of all rows that are asked about, not of this batch alone."""
        batch, probe = question.batch, question.probe
        with torch.enable_grad(), probe.tapped(model) as taps, probe.trimmed(model, batch.mask):
            said = widened(model(**batch.inputs).logits)
        if labels is None:
            chosen = said.detach().argmax(-1)
        else:
            chosen = torch.as_tensor([int(labels[place]) for place in question.places], device=said.device)
        return cls(model, probe, batch, taps[-1], said, chosen, question.blank)

    @property
    def logits(self) -> Float[Tensor, "batch label"]:
        return self.said.detach()

    @property
    def embedding(self) -> Float[Tensor, "batch token hidden"]:
        return self.tapped.detach()

    @property
    def at(self) -> Tensor | None:
        return TARGET.resolve(self.logits, None, self.labels)

    @cached_property
    def gradient(self) -> Float[Tensor, "batch token hidden"]:
        """``∇_E F`` of the explained scalar at the input itself."""
        (gradient,) = torch.autograd.grad(TARGET.values(self.said, self.at).sum(), self.tapped)
        return gradient

    def run(
        self, rows: Float[Tensor, "row token hidden"], places: Int[Tensor, " row"]
    ) -> Float[Tensor, "row label"]:
        """Logits from other embedding outputs of the examples at ``places``."""
        return from_embeddings(self.model, self.probe, self.batch.rows(places), rows, 1)

    def gradient_at(
        self, rows: Float[Tensor, "row token hidden"], places: Int[Tensor, " row"]
    ) -> Float[Tensor, "row token hidden"]:
        """``∇_E F`` at other embedding outputs of the examples at ``places``."""
        rows = rows.detach().requires_grad_()
        with torch.enable_grad():
            values = TARGET.values(self.run(rows, places), None if self.at is None else self.at[places])
            (gradient,) = torch.autograd.grad(values.sum(), rows)
        return gradient

    def without(
        self, erased: Bool[Tensor, "row token"], places: Int[Tensor, " row"]
    ) -> Float[Tensor, "row label"]:
        """Logits of the examples at ``places`` whose ``erased`` tokens give way to the blank; no gradient.

        Token ids are replaced as they are, nothing is decoded. Raises ModelError where the blank is not known.
        """
        if self.blank is None:
            raise ModelError(
                "nothing says which token id stands for a word that is taken away",
                expected="a collator with a blank",
                remedy="use gradistill.data.Collator",
            )
        found = []
        with torch.no_grad():
            some = zip(erased.split(self.rows_at_once), places.split(self.rows_at_once), strict=True)
            for gone, where in some:
                batch = self.batch.rows(where)
                ids = batch.inputs["input_ids"].masked_fill(gone, self.blank)
                batch = replace(batch, inputs={**batch.inputs, "input_ids": ids})
                with self.probe.trimmed(self.model, batch.mask):
                    found.append(widened(self.model(**batch.inputs).logits))
        return torch.cat(found)

    @property
    def rows_at_once(self) -> int:
        """How many rows of this length make a forward pass of about 2048 tokens."""
        return max(1, 2048 // self.batch.mask.shape[1])
