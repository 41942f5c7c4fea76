"""Pools of token ids of the data, for replacing tokens of a text at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

TOKEN_POOL_ROWS = 2000
"""Number of rows whose tokens are enough: about 50,000 tokens."""


def token_pool(rows: Any) -> Int[Tensor, " pool"] | None:
    """The tokens of ``TOKEN_POOL_ROWS`` rows at even distances, as often as they occur, without special ones.

    None if the rows are no sequence, or have no ``special_tokens_mask`` or no such token. The same rows give the same
    pool.

    Example: ``pool = token_pool(encode(rows, tokenizer, task).dataset)``
    """
    if not hasattr(rows, "__getitem__") or not hasattr(rows, "__len__") or not len(rows):
        return None
    places = np.linspace(0, len(rows) - 1, min(TOKEN_POOL_ROWS, len(rows)), dtype=int).tolist()
    sample = [rows[place] for place in places]
    if "special_tokens_mask" not in sample[0]:
        return None
    token_ids = [
        token_id
        for row in sample
        for token_id, special in zip(row["input_ids"], row["special_tokens_mask"], strict=True)
        if not special
    ]
    return torch.tensor(token_ids) if token_ids else None


def word_tokens(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, " pool"] | None:
    """The tokens of the words, joined by blanks, without special tokens; None if there is no token."""
    tokenize: Any = tokenizer
    encoded = tokenize(" ".join(words), add_special_tokens=False, truncation=False, verbose=False)[
        "input_ids"
    ]
    special = set(tokenizer.all_special_ids)
    token_ids = [token_id for token_id in encoded if token_id not in special]
    return torch.tensor(token_ids) if token_ids else None
