"""Changed copies of raw texts as token ids of a model, with its mask token for masked words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gradistill.data.changed_copies import Copy
from gradistill.data.collator import Collator
from gradistill.data.raw_words import Texts, mask_tokens, token_word_ranges
from gradistill.data.tokenization import tokenized
from gradistill.errors import GradistillError


@dataclass(frozen=True, eq=False)
class CopyReader:
    """The raw ``texts`` of rows by their numbers, and how one model reads copies of them (``batch.TextReader``).

    ``pool`` holds words of the data, which replace others. Texts are cut at ``max_length`` tokens.
    """

    texts: Mapping[int, Texts]
    pool: Sequence[str]
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def inputs(self, copies: Sequence[Copy]) -> Mapping[str, Tensor]:
        """The padded columns of the copies."""
        return Collator(self.tokenizer)(encoded_copies(copies, self.tokenizer, self.max_length))


@dataclass(frozen=True)
class ReadingCollator(Collator):
    """A ``Collator`` for objectives that need the raw texts of the rows: its ``reader`` has them."""

    reader: CopyReader | None = None


def encoded_copies(
    copies: Sequence[Copy], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Mapping[str, Any]]:
    """The columns of every copy: token ids, with the mask token for masked words. Each text is tokenized once.

    Raises GradistillError for masked words if the tokenizer has no character offsets.
    """
    masked = any(copy.kept is not None for copy in copies)
    if masked and not tokenizer.is_fast:
        raise GradistillError(
            f"{type(tokenizer).__name__} has no character offsets, so words cannot be masked.",
            expected="a fast tokenizer",
            remedy="replace words by others instead, or save the model with its tokenizer.json",
        )
    texts: dict[Texts, int] = {}
    for copy in copies:
        texts.setdefault(copy.texts, len(texts))
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenized(tokenizer, columns, max_length, offsets=masked)
    names = [name for name in encoded if name not in ("offset_mapping", "special_tokens_mask")]
    mask_token_id = Collator(tokenizer).mask_token_id
    ranges: dict[int, np.ndarray] = {}
    rows: list[Mapping[str, Any]] = []
    for copy in copies:
        place = texts[copy.texts]
        row = {name: encoded[name][place] for name in names}
        if copy.kept is not None:
            if place not in ranges:
                ranges[place] = token_word_ranges(
                    copy.texts, encoded["offset_mapping"][place], encoded.sequence_ids(place)
                )
            ids = mask_tokens(np.asarray(row["input_ids"]), ranges[place], copy.kept[None], mask_token_id)
            row["input_ids"] = ids[0].tolist()
        rows.append(row)
    return rows
