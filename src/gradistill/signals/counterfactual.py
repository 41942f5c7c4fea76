"""The smallest edit of a text that changes the teacher's label: searched on the teacher, predicted by both models.

Words are replaced in the order in which the teacher's gradient predicts that they lower its label's log-odds F. When
word i is replaced, F changes to first order by ``⟨∂F/∂E_i, E′_i − E_i⟩``. E is the embedding output, E′ that of the
text with all words replaced (Ebrahimi et al. 2018, HotFlip, arXiv 1712.06751, eq. 3). Edits of 1, 2, 3, 4, 6, 8 … words
are tried, up to half of the words. The smallest edit is taken that changes the label: another label's logit is higher
by ``margin``. If none does, and in a regression, the edit with the lowest F is taken. Small edits that change a
prediction follow Ross et al. 2021 (MiCE, arXiv 2012.13985). The search of an audit tries more edits
(``auditing/flips.py``).
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
from gradistill.signals.word_replacement import mask_id_and_pool, row_generator, word_ids_of


@dataclass(frozen=True)
class CounterfactualEdit(Signal):
    """Base class of the signals of a search for edits, which runs on the teacher alone.

    ``replacement``: what replaces a word, the mask token or tokens drawn from the data. ``margin``: how far another
    label's logit must be above the old label's. ``seed``: random seed of the drawn tokens.
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
        """Token ids of the edited texts, and this model's logits for them. The search runs once for a forward pass."""
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
        ids, words = batch.inputs["input_ids"].cpu().numpy(), word_ids_of(batch).cpu().numpy()
        mask, pool = mask_id_and_pool(batch, self.replacement)
        others = ids.copy()
        for row, of_row in enumerate(words):
            positions = np.flatnonzero(of_row >= 0)
            drawn = row_generator(self.seed, 0, ids[row][positions]).integers(len(pool), size=len(positions))
            others[row][positions] = mask if self.replacement == "mask" else pool[drawn]
        return torch.from_numpy(others).to(batch.inputs["input_ids"])


@dataclass(frozen=True)
class CounterfactualTokens(CounterfactualEdit):
    """Token ids of each text after its edit, ``(batch, 1, token)``, as floats that a store keeps exactly."""

    title: ClassVar[str] = "tokens of edited texts"

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch 1 token"]:
        return self.edits_and_logits(forward)[0].float().unsqueeze(1)

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((1,), per_token=True, vectors=False)


@dataclass(frozen=True)
class CounterfactualLogits(CounterfactualEdit):
    """The teacher's logits of each text after its edit, ``(batch, label)``."""

    title: ClassVar[str] = "logits of edited texts"

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch label"]:
        return self.edits_and_logits(forward)[1]

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((model.labels,), vectors=False)


@dataclass(frozen=True)
class EditedLogits(Signal):
    """A student's logits of each text after the teacher's edit, ``(batch, label)``. The batch holds the edit."""

    title: ClassVar[str] = "logits of edited texts"
    replaces_words: ClassVar[bool] = True
    trains_on: ClassVar[str | None] = CHANGED_WORDS

    def needs(self) -> Needs:
        return Needs()

    def compute(self, forward: ForwardPass) -> Float[Tensor, "batch label"]:
        edited = forward.batch.edited_ids
        if edited is None:
            raise TrainingError(
                "The batch has no edits that change the teacher's label.",
                expected="the signal CounterfactualTokens of a teacher",
                remedy="pass a teacher, or a store that holds this signal",
            )
        return forward.with_tokens(edited, torch.arange(len(edited), device=edited.device))

    def layout(self, model: ModelFacts) -> Layout:
        return Layout((model.labels,), vectors=False)


def edited_ids_of(teacher: Mapping[Signal, Tensor], batch: Batch) -> Int[Tensor, "batch token"] | None:
    """The token ids of edited texts from a teacher's signals, or None if the teacher has no such signal."""
    for signal, values in teacher.items():
        if isinstance(signal, CounterfactualTokens):
            ids = batch.inputs["input_ids"]
            return torch.where(batch.mask, values[:, 0].to(ids), ids)  # a store keeps no padding
    return None


def _expected_changes(
    forward: ForwardPass, others: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch token"]:
    """The first-order change of F when each token is replaced by the one in ``others``."""
    gradients = forward.gradients(EXPLAINED_TARGET)[:, 0].detach()
    with torch.no_grad():
        return (gradients * (forward.embedding_of(others) - forward.embedding)).sum(-1)


def _edits(
    batch: Batch, others: Int[Tensor, "batch token"], changes: Float[Tensor, "batch token"]
) -> tuple[Int[Tensor, "edit token"], Int[Tensor, " edit"]]:
    """Token ids of all edits to try, those of the fewest words first, and the index of each edit's example."""
    words, ids = word_ids_of(batch), batch.inputs["input_ids"]
    count = int(words.max()) + 1
    present = torch.zeros(len(words), count + 1, dtype=torch.bool, device=words.device)
    present.scatter_(1, words + 1, True)
    by_word = changes.new_zeros(len(words), count + 1).scatter_add_(1, words + 1, changes)
    by_word.masked_fill_(~present, torch.inf)[:, 0] = torch.inf  # tokens of no word are kept
    rank = by_word.argsort(dim=1, stable=True).argsort(dim=1).gather(1, words + 1)
    most = (present[:, 1:].sum(1) // 2).clamp(min=1)
    edits, examples = [], []
    for size in _sizes(count):
        rows = ((size <= most) & present[:, 1:].any(1)).nonzero()[:, 0]
        replaced = (rank[rows] < size) & (words[rows] >= 0)
        edits.append(torch.where(replaced, others[rows], ids[rows]))
        examples.append(rows)
    return (torch.cat(edits), torch.cat(examples)) if edits else (ids[:0], words.new_zeros(0))


def _sizes(words: int) -> Sequence[int]:
    """The sizes of edits to try: 1, 2, 3, 4, 6, 8, 12, 16 … words, up to half of ``words``."""
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
    """For each example the index of its first edit that changes the label, else of the edit with the lowest F.

    An example's first entry is the unchanged text, which is chosen only if there are no edits. With several labels a
    row the top label changes where its logit is at most −``margin``, if it was predicted at all.
    """
    chosen: list[Any] = []
    for example in range(int(examples.max()) + 1):
        entries = (examples == example).nonzero()[:, 0]
        outputs = logits[entries]
        if len(entries) == 1:
            chosen.append(entries[0])
            continue
        label = int(outputs[0].argmax())
        rest = outputs[1:].clone()
        rest[:, label] = -torch.inf
        kept = outputs[1:, label]
        changed, others = kept.new_zeros(0), torch.zeros_like(kept)
        if multi_label:
            changed = (-kept >= margin).nonzero()[:, 0] if outputs[0, label] > 0 else changed
        elif outputs.shape[1] > 1:
            changed, others = (rest.amax(-1) - kept >= margin).nonzero()[:, 0], rest.logsumexp(-1)
        chosen.append(entries[1 + (int(changed[0]) if len(changed) else int((kept - others).argmin()))])
    return torch.stack(chosen)
