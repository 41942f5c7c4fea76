"""The types that every package uses: the batch and the names of its dimensions.

Signatures give shapes as jaxtyping strings with one fixed set of words:
``batch`` examples, ``token`` positions (special tokens included), ``hidden`` the width of the
embedding output, ``label`` classes (1 for regression), ``view`` scalars that are differentiated,
``layer`` mapped layer pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NOT_MODEL_INPUTS = frozenset({"labels", "index", "special_tokens_mask", "length", "word_ids"})
"""Keys of a collated batch that are not passed to the model's forward."""


MOST_SEED = 2**32 - 1
"""The largest seed that numpy, torch and random all accept."""

UNLABELLED = -100
"""Class id of a row without a label (torch's ``ignore_index``); in a regression its score is NaN."""


@dataclass(frozen=True)
class RandomDraws:
    """Random draws for each example of a batch.

    ``place`` is its place, counted from 0, in a random order of the batch: a random subset of n rows is those with
    ``place`` below n. ``label`` is a uniformly drawn label, for the view ``sampled``. ``signs`` are +1 or −1, one for
    each label: the direction of the view ``projected``. ``epoch`` is counted from 0.
    """

    place: Int[Tensor, " batch"]
    label: Int[Tensor, " batch"]
    signs: Float[Tensor, "batch label"]
    epoch: int = 0

    @property
    def labels(self) -> int:
        return self.signs.shape[1]

    def rows(self, at: Int[Tensor, " row"]) -> RandomDraws:
        return RandomDraws(self.place[at], self.label[at], self.signs[at], self.epoch)


@runtime_checkable
class TextReader(Protocol):
    """The raw texts of the rows by their numbers, words to replace others, and how a model reads copies."""

    @property
    def texts(self) -> Mapping[int, tuple[str, ...]]: ...

    @property
    def pool(self) -> Sequence[str]: ...

    def inputs(self, copies: Sequence[Any]) -> Mapping[str, Tensor]:
        """The padded columns of changed copies of texts."""
        ...


@dataclass(frozen=True)
class Batch:
    """One collated batch, split into the model's inputs and other facts about the rows.

    ``inputs`` goes to the model's forward unchanged. ``labels`` are class ids (int64), scores (float), or see below.
    ``index`` is the row number in the prepared split, by which stored teacher signals are found.
    ``tokens_per_example`` is the mean number of real tokens over all examples of one optimizer step (accumulated
    batches, all processes). Dividing a sum over tokens by it before the average over examples gives the average over
    tokens. If it is not set, the mean of this batch is used. ``words_per_example`` is likewise the mean number of
    words. ``labels_per_example`` is likewise the share of rows that have a label (a class id other than −100, a score
    that is not NaN): dividing by it gives the average over labelled rows.
    ``drawn`` is set in training, for estimates from a part of the batch. ``teacher_labels`` are the labels that the
    teacher predicts, or others to explain. ``mask_token_id`` is the token id of an erased word. ``token_pool`` holds
    token ids of the data, as often as they occur there, for random replacements of words. ``word_ids`` is the number of
    each token's word in the raw text, −1 for tokens of none. ``edited_ids`` are the token ids of each text after the
    edit that changes the teacher's label (``signals/counterfactual.py``). ``multi_label``: each label is a separate yes
    or no; ``labels`` are then 0 or 1 for each (float, NaN in rows without labels). ``token_labels``: each word has a
    label, at its first token; ``labels`` are then ``(batch, token)``, −100 elsewhere, and logits ``(batch, token,
    label)``. ``reader`` has the raw texts of the rows, for objectives on copies of whole texts.
    """

    inputs: Mapping[str, Tensor]
    mask: Bool[Tensor, "batch token"]
    labels: Tensor | None = None
    index: Int[Tensor, " batch"] | None = None
    tokens_per_example: Float[Tensor, ""] | None = None
    words_per_example: Float[Tensor, ""] | None = None
    labels_per_example: Float[Tensor, ""] | None = None
    drawn: RandomDraws | None = None
    teacher_labels: Int[Tensor, "batch ..."] | None = None
    mask_token_id: int | None = None
    token_pool: Int[Tensor, " pool"] | None = None
    word_ids: Int[Tensor, "batch token"] | None = None
    edited_ids: Int[Tensor, "batch token"] | None = None
    multi_label: bool = False
    token_labels: bool = False
    reader: TextReader | None = None

    @classmethod
    def of(cls, collated: Mapping[str, Any], **known: Any) -> Batch:
        """Split a collated mapping; ``known`` are further fields. Without an attention mask every token is real."""
        inputs = {k: v for k, v in collated.items() if k not in NOT_MODEL_INPUTS}
        tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"][..., 0]
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(tokens).bool() if mask is None else mask.bool()
        if "word_ids" in collated:
            known["word_ids"] = collated["word_ids"]
        elif "special_tokens_mask" in collated:
            known["word_ids"] = _numbered(mask & ~collated["special_tokens_mask"].bool())
        return cls(inputs, mask, collated.get("labels"), collated.get("index"), **known)

    @property
    def word_numbers(self) -> Int[Tensor, "batch token"]:
        """The number of each token's word, −1 for tokens of none. Without ``word_ids`` every token is a word."""
        return _numbered(self.mask) if self.word_ids is None else self.word_ids

    @property
    def first_tokens(self) -> Bool[Tensor, "batch token"]:
        """The first token of each word."""
        words = self.word_numbers
        before = torch.nn.functional.pad(words[:, :-1], (1, 0), value=-1)
        return (words >= 0) & (words != before)

    def over_words(
        self, values: Float[Tensor, "batch token"], known: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, " batch"]:
        """The mean over the ``known`` tokens of each row; 0 if there are none."""
        return torch.where(known, values, 0.0).sum(1) / known.sum(1).clamp(min=1)

    def over_explained(self, values: Float[Tensor, "batch view"], words: int) -> Float[Tensor, " batch"]:
        """The sum over the views of each row.

        Where each word has a label, it is the mean over the explained words of their sums. The views are then those of
        ``words`` words; a shorter text has all of its words, followed by views of nothing, which do not count.
        """
        if not self.token_labels:
            return values.sum(1)
        of_word = values.unflatten(1, (words, -1)).sum(2)
        explained = torch.arange(words, device=values.device) < self.first_tokens.sum(1, keepdim=True)
        return self.over_words(of_word, explained)

    def per_token(self, summed_over_tokens: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Values whose mean over examples is the mean over tokens of what was summed."""
        if self.tokens_per_example is None:
            return summed_over_tokens * len(self) / self.mask.sum()
        return summed_over_tokens / self.tokens_per_example.to(summed_over_tokens.dtype)

    def per_word(self, summed_over_words: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Values whose mean over examples is the mean over words of what was summed.

        The mean is over all words of the student's texts, even if some are not in the sum.
        """
        words = self.words_per_example
        if words is None:
            words = self.first_tokens.sum() / len(self)
        floor = 1e-9  # a batch may have no word
        return summed_over_words / words.to(summed_over_words.dtype).clamp(min=floor)

    def labelled(self) -> Bool[Tensor, " batch"]:
        """Which rows have a label."""
        if self.labels is None:
            return torch.zeros_like(self.mask[:, 0])
        gold = self.labels.reshape(len(self), -1)
        return (~gold.isnan() if gold.is_floating_point() else gold != UNLABELLED).any(1)

    def per_label(self, values: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Values whose mean over examples is the mean over labelled rows; those of the others are 0."""
        share = self.labels_per_example
        if share is None:
            share = self.labelled().sum() / len(self)
        return values / share.to(values).clamp(min=1e-9)  # where no row has a label, all are 0

    def __len__(self) -> int:
        return self.mask.shape[0]

    def rows(self, at: Int[Tensor, " row"]) -> Batch:
        """The examples at these indices, in this order, repeated if an index is.

        Means over the whole optimizer step are kept; those that are not set become the means of this batch.
        """
        return Batch(
            inputs={k: v[at] for k, v in self.inputs.items()},
            mask=self.mask[at],
            labels=None if self.labels is None else self.labels[at],
            index=None if self.index is None else self.index[at],
            tokens_per_example=self.mask.sum() / len(self)
            if self.tokens_per_example is None
            else self.tokens_per_example,
            words_per_example=self.first_tokens.sum() / len(self)
            if self.words_per_example is None
            else self.words_per_example,
            labels_per_example=self.labelled().sum() / len(self)
            if self.labels_per_example is None
            else self.labels_per_example,
            drawn=None if self.drawn is None else self.drawn.rows(at),
            teacher_labels=None if self.teacher_labels is None else self.teacher_labels[at],
            mask_token_id=self.mask_token_id,
            token_pool=self.token_pool,
            word_ids=None if self.word_ids is None else self.word_ids[at],
            edited_ids=None if self.edited_ids is None else self.edited_ids[at],
            multi_label=self.multi_label,
            token_labels=self.token_labels,
            reader=self.reader,
        )


def _numbered(own: Bool[Tensor, "batch token"]) -> Int[Tensor, "batch token"]:
    """The tokens of each row counted from 0, −1 for those that are not ``own``."""
    return torch.where(own, own.cumsum(1) - 1, -1)
