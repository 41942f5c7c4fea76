"""Token ids of the data, to be drawn from where tokens of a text are replaced at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

TOKEN_POOL_ROWS = 2000
"""Rows whose tokens are enough: about 50,000 of them."""


def token_pool(rows: Any) -> Int[Tensor, " pool"] | None:
    """The tokens of ``TOKEN_POOL_ROWS`` rows at even distances, as often as they occur, without special ones.

    None where the rows are no sequence, have no ``special_tokens_mask``, or no such token. The same rows give the same
    pool.

    Example: ``pool = token_pool(encode(rows, tokenizer, task).dataset)``
    """
    if not hasattr(rows, "__getitem__") or not hasattr(rows, "__len__") or not len(rows):
        return None
    places = np.linspace(0, len(rows) - 1, min(TOKEN_POOL_ROWS, len(rows)), dtype=int).tolist()
    some = [rows[place] for place in places]
    if "special_tokens_mask" not in some[0]:
        return None
    own = [
        token_id
        for row in some
        for token_id, special in zip(row["input_ids"], row["special_tokens_mask"], strict=True)
        if not special
    ]
    return torch.tensor(own) if own else None


def word_tokens(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Int[Tensor, " pool"] | None:
    """The tokens of words that stand one after the other, without special ones; None where there is no token."""
    of_words: Any = tokenizer
    found = of_words(" ".join(words), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    own = [token_id for token_id in found if token_id not in special]
    return torch.tensor(own) if own else None
