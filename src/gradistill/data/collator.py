"""Encoded rows as one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gradistill.batch import UNLABELLED
from gradistill.errors import DataError, ModelError


@dataclass(frozen=True)
class Collator:
    """Pads encoded rows to the longest of the batch, or to ``pad_to`` tokens, on one side (``padding_side``).

    The width is rounded up to ``pad_to_multiple_of``. Labels become int64 class ids or float32 scores. A list of ids
    holds one label for each token, and is padded too. Columns that ``encode`` does not make are left out.
    ``token_pool`` holds token ids of the data, for methods that draw from them (``data.token_pool``). Raises
    ModelError if the tokenizer has no pad token. A call raises DataError if a row is longer than ``pad_to``.
    """

    tokenizer: PreTrainedTokenizerBase
    pad_to_multiple_of: int | None = None
    pad_to: int | None = None
    token_pool: Int[Tensor, " pool"] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tokenizer.pad_token_id is None:
            raise ModelError(
                "The tokenizer has no pad token, so texts of different length cannot share a batch.",
                expected="a tokenizer with pad_token",
                remedy="set it, for example tokenizer.pad_token = tokenizer.eos_token, and set the model's "
                "config.pad_token_id to the same token",
            )

    @property
    def mask_token_id(self) -> int:
        """The token id of an erased word (``erased_token_id``)."""
        token_id = erased_token_id(self.tokenizer)
        assert token_id is not None  # there is a pad token
        return token_id

    @cached_property
    def _side(self) -> Literal["left", "right"]:
        return padding_side(self.tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: padded columns (int64), and ``labels``, ``index``, ``length`` where the rows have them."""
        fillers = {
            "input_ids": self.tokenizer.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            "special_tokens_mask": 1,
            "word_ids": -1,
        }
        width = self._width(max(len(feature["input_ids"]) for feature in features))
        batch = {
            name: self._padded([feature[name] for feature in features], filler, width)
            for name, filler in fillers.items()
            if name in features[0]
        }
        for name in ("labels", "index", "length"):
            if name in features[0]:
                if _is_ragged(features[0][name]):
                    width = batch["input_ids"].shape[1]
                    batch[name] = self._padded([feature[name] for feature in features], UNLABELLED, width)
                    continue
                values = torch.as_tensor([feature[name] for feature in features])
                batch[name] = values.float() if values.is_floating_point() else values.long()
        return batch

    def _width(self, longest: int) -> int:
        if self.pad_to is not None and longest > self.pad_to:
            raise DataError(
                f"A row has {longest} tokens, but batches are padded to {self.pad_to}.",
                expected="rows no longer than pad_to",
                remedy="encode with a max_length of at most pad_to",
            )
        width = longest if self.pad_to is None else self.pad_to
        step = self.pad_to_multiple_of or 1
        return -(-width // step) * step

    def _padded(self, rows: Sequence[Sequence[int]], filler: int, width: int) -> Tensor:
        padded = torch.full((len(rows), width), filler, dtype=torch.long)
        for i, row in enumerate(rows):
            start = width - len(row) if self._side == "left" else 0
            padded[i, start : start + len(row)] = torch.as_tensor(row, dtype=torch.long)
        return padded


def padding_side(tokenizer: Any) -> Literal["left", "right"]:
    """The side on which batches are padded: the right, even if the tokenizer pads on the left.

    Some models have absolute positions, or a head that reads the first position. With padding on the left, their
    predictions would depend on the rest of the batch. Heads of decoders locate the last token themselves. The left side
    stays where a text ends with [CLS], which the model reads at the last position (XLNet).
    """
    if tokenizer.padding_side == "right" or tokenizer.cls_token_id is None:
        return "right"
    ids = tokenizer("a")["input_ids"]
    return "left" if len(ids) > 1 and ids[-1] == tokenizer.cls_token_id else "right"


def _is_ragged(label: Any) -> bool:
    """Whether a row's label is a list of ids, one for each of its tokens."""
    return isinstance(label, list | tuple) and all(isinstance(part, int) for part in label)


def erased_token_id(tokenizer: Any) -> int | None:
    """The token id of an erased word: the mask token, else the unknown token, a blank, or the pad token.

    Without a mask token, it is never a token that begins or ends a text. The pad token comes last: heads of decoders
    skip it, so they would read another position of a text whose last word is erased.
    """
    mask, unknown, padding, *ends = (
        getattr(tokenizer, f"{role}_token_id", None) for role in ("mask", "unk", "pad", "eos", "bos")
    )
    if mask is not None:
        return mask
    others = [token for token in (unknown, *_blank(tokenizer)) if token not in (None, padding, *ends)]
    return next(iter(others), padding)


def _blank(tokenizer: Any) -> list[int]:
    """The token ids of a blank; empty if the tokenizer has none, or is not one of transformers."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return []
    try:
        return tokenizer(" ", add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]
    except (
        Exception
    ):  # tokenizers raises nothing narrower for a vocabulary without a blank and an unknown token
        return []


def mask_token_id_of(collate: Any) -> int | None:
    """The token id of an erased word, from any collator or its tokenizer; None if neither gives one."""
    if (token_id := getattr(collate, "mask_token_id", None)) is not None:
        return token_id
    tokenizer = getattr(collate, "tokenizer", None)
    return None if tokenizer is None else erased_token_id(tokenizer)
