"""The edit of a text that turns the teacher: found on the teacher, and predicted by both models.

Words are replaced in the order in which the teacher's gradient expects them to carry its label: the change of the
label's log-odds F when word i is replaced is to first order ``⟨∂F/∂E_i, E′_i − E_i⟩``, E the embedding output and E′
that of the text with all words replaced (Ebrahimi et al. 2018, HotFlip, arXiv 1712.06751, eq. 3). Of these edits, of 1,
2, 3, 4, 6, 8 … words and at most half of them, the smallest one is taken that turns the teacher: another label is ahead
by ``margin``. Where none does, and in a regression, it is the one with the lowest F. Small edits that turn a model are
those of Ross et al. 2021 (MiCE, arXiv 2012.13985); that of an audit tries more (``auditing/flips.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import TrainingError
from gradistill.models.facts import ModelFacts
from gradistill.signals.base import CHANGED_WORDS, Layout, Signal
from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass, Needs
from gradistill.signals.word_replacement import known_words, row_generator, stand_ins


@dataclass(frozen=True)
class CounterfactualEdit(Signal):
    """The search; its signals, of the teacher alone, are what it finds.

    ``replacement``: what stands in for a word, the mask token or tokens drawn from the data. ``margin``: how far ahead
    another label must be, in logits. ``seed``: what tokens are drawn by.
    """

    replaces_words: ClassVar[bool] = True

    replacement: Literal["mask", "tokens"] = "mask"
    margin: float = 1.0
    seed: int = 0

    def needs(self) -> Needs:
        return Needs(targets=(EXPLAINED_TARGET,))

    def edits_and_logits(
        self, forward: ForwardPass
    ) -> tuple[Int[Tensor, "batch token"], Float[Tensor, "batch label"]]:
        """Token ids of the edited texts, and this model's logits of them. The search runs once a forward pass."""
        key = (self.replacement, self.margin, self.seed)
        if key not in forward.memo:
            forward.memo[key] = self._search(forward)
        return forward.memo[key]

    def _search(self, forward: ForwardPass) -> tuple[Tensor, Tensor]:
        others = self._replaced(forward.batch)
        every = torch.arange(len(others), device=others.device)
        changes = _expected_changes(forward, others)
        with torch.no_grad():
            edits, examples = _edits(forward.batch, others, changes)
            logits = torch.cat([forward.logits.detach(), forward.with_tokens(edits, examples)])
        ids = torch.cat([forward.batch.inputs["input_ids"], edits])
        numbers = torch.cat([every, examples])
        best = _smallest_that_turns(logits, numbers, self.margin, multi_label=forward.probe.multi_label)
        return ids[best], logits[best]

    def _replaced(self, batch: Batch) -> Int[Tensor, "batch token"]:
        """Token ids of the texts with every word replaced."""
        ids, words = batch.inputs["input_ids"].cpu().numpy(), known_words(batch).cpu().numpy()
        mask, pool = stand_ins(batch, self.replacement)
        others = ids.copy()
        for row, of_row in enumerate(words):
            own = np.flatnonzero(of_row >= 0)
            drawn = row_generator(self.seed, 0, ids[row][own]).integers(len(pool), size=len(own))
            others[row][own] = mask if self.replacement == "mask" else pool[drawn]
        return torch.from_numpy(others).to(batch.inputs["input_ids"])


@dataclass(frozen=True)
class CounterfactualTokens(CounterfactualEdit):
    """Token ids of each text after its edit, ``(batch, 1, token)``, as numbers that a store keeps exactly."""

    title: ClassVar[str] = "tokens of edited texts"

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch 1 token"]:
        return self.edits_and_logits(forward)[0].float().unsqueeze(1)

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((1,), per_token=True, vectors=False)


@dataclass(frozen=True)
class CounterfactualLogits(CounterfactualEdit):
    """The teacher's own logits of each text after its edit, ``(batch, label)``."""

    title: ClassVar[str] = "logits of edited texts"

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch label"]:
        return self.edits_and_logits(forward)[1]

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((model.labels,), vectors=False)


@dataclass(frozen=True)
class EditedLogits(Signal):
    """A student's logits of each text after the teacher's edit, ``(batch, label)``; the batch knows the edit."""

    title: ClassVar[str] = "logits of edited texts"
    replaces_words: ClassVar[bool] = True
    trains_on: ClassVar[str | None] = CHANGED_WORDS

    def needs(self) -> Needs:
        return Needs()

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch label"]:
        edited = forward.batch.edited_ids
        if edited is None:
            raise TrainingError(
                "A batch does not know the edits that turn the teacher.",
                expected="the signal CounterfactualTokens of a teacher",
                remedy="pass a teacher, or a store that holds it",
            )
        return forward.with_tokens(edited, torch.arange(len(edited), device=edited.device))

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((model.labels,), vectors=False)


def edited_ids_of(teacher: Mapping[Signal, Tensor], batch: Batch) -> Int[Tensor, "batch token"] | None:
    """The token ids of edited texts among a teacher's signals; None where they are not there."""
    for signal, values in teacher.items():
        if isinstance(signal, CounterfactualTokens):
            ids = batch.inputs["input_ids"]
            return torch.where(batch.mask, values[:, 0].to(ids), ids)  # a store keeps no padding
    return None


def _expected_changes(
    forward: ForwardPass, others: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch token"]:
    """The first-order change of F when a token is replaced by that of ``others``."""
    gradients = forward.gradients(EXPLAINED_TARGET)[:, 0].detach()
    with torch.no_grad():
        return (gradients * (forward.embedding_of(others) - forward.embedding)).sum(-1)


def _edits(
    batch: Batch, others: Int[Tensor, "batch token"], changes: Float[Tensor, "batch token"]
) -> tuple[Int[Tensor, "edit token"], Int[Tensor, " edit"]]:
    """Token ids of all edits that are tried, and the example of each: first those of the fewest words."""
    words, ids = known_words(batch), batch.inputs["input_ids"]
    count = int(words.max()) + 1
    there = torch.zeros(len(words), count + 1, dtype=torch.bool, device=words.device)
    there.scatter_(1, words + 1, True)
    by_word = changes.new_zeros(len(words), count + 1).scatter_add_(1, words + 1, changes)
    by_word.masked_fill_(~there, torch.inf)[:, 0] = torch.inf  # tokens of no word stay
    place = by_word.argsort(dim=1, stable=True).argsort(dim=1).gather(1, words + 1)
    most = (there[:, 1:].sum(1) // 2).clamp(min=1)
    edits, examples = [], []
    for size in _sizes(count):
        some = ((size <= most) & there[:, 1:].any(1)).nonzero()[:, 0]
        goes = (place[some] < size) & (words[some] >= 0)
        edits.append(torch.where(goes, others[some], ids[some]))
        examples.append(some)
    return (torch.cat(edits), torch.cat(examples)) if edits else (ids[:0], words.new_zeros(0))


def _sizes(words: int) -> Sequence[int]:
    """1, 2, 3, 4, 6, 8, 12, 16 … words, at most half of them."""
    doubling = [1 << k for k in range(words.bit_length())]
    return sorted(
        {size for k in doubling for size in (k, k * 3 // 2) if size <= max(1, words // 2) and words}
    )


def _smallest_that_turns(
    logits: Float[Tensor, "edit label"],
    examples: Int[Tensor, " edit"],
    margin: float,
    *,
    multi_label: bool = False,
) -> Int[Tensor, " batch"]:
    """For each example the number of its first edit that turns it, else of that with the lowest F. Each example's
    first entry is the text as it is, which counts only where it has no other. Of several labels a row the top one is
    turned, if it is there at all, where its logit is below −``margin``."""
    found: list[Any] = []
    for example in range(int(examples.max()) + 1):
        own = (examples == example).nonzero()[:, 0]
        of_own = logits[own]
        if len(own) == 1:
            found.append(own[0])
            continue
        before = int(of_own[0].argmax())
        rest = of_own[1:].clone()
        rest[:, before] = -torch.inf
        kept = of_own[1:, before]
        turned, others = kept.new_zeros(0), torch.zeros_like(kept)
        if multi_label:
            turned = (-kept >= margin).nonzero()[:, 0] if of_own[0, before] > 0 else turned
        elif of_own.shape[1] > 1:
            turned, others = (rest.amax(-1) - kept >= margin).nonzero()[:, 0], rest.logsumexp(-1)
        found.append(own[1 + (int(turned[0]) if len(turned) else int((kept - others).argmin()))])
    return torch.stack(found)
