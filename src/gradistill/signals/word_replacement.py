"""What a batch must know so that words of its texts can be replaced, and by what."""

from __future__ import annotations

from typing import Literal
from zlib import crc32

import numpy as np
from jaxtyping import Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import DataError

Replacement = Literal["mask", "tokens", "either"]


def stand_ins(batch: Batch, replacement: Replacement) -> tuple[int, Int[np.ndarray, " pool"]]:
    """The mask's id, and the tokens to draw from: the mask alone where nothing else stands in for words.

    Raises DataError where the batch does not know them.
    """
    mask, pool = batch.mask_token_id, batch.token_pool
    if mask is None and replacement != "tokens":
        raise DataError(
            f"Copies with replacement {replacement!r} need a mask token, and the collator knows none.",
            expected="a collator with a tokenizer",
            remedy="pass data_collator=gradistill.Collator(tokenizer), or set replacement: tokens",
        )
    if pool is None and replacement != "mask":
        raise DataError(
            f"Copies with replacement {replacement!r} need tokens of the training rows to draw from.",
            expected="a data set with a length, with input_ids and special_tokens_mask",
            remedy="make the rows by gradistill.encode, or set replacement: mask",
        )
    mask = 0 if mask is None else mask
    return mask, np.array([mask]) if pool is None else pool.cpu().numpy()


def known_words(batch: Batch) -> Int[Tensor, "batch token"]:
    """The number of each token's word, −1 for tokens of none. Raises DataError where no words are known."""
    if batch.word_ids is None:
        raise DataError(
            "The rows know neither their words nor which of their tokens are special ones, so no word can be replaced.",
            expected="a column word_ids or special_tokens_mask",
            remedy="make the rows by gradistill.encode, or by the tokenizer with return_special_tokens_mask=True",
        )
    return batch.word_ids


def own_words(
    word_ids: Int[np.ndarray, " token"],
) -> tuple[Int[np.ndarray, " own"], int, Int[np.ndarray, " own"]]:
    """Of one row: the places of tokens that belong to words, how many words are left, and which of them, counted from
    0, each such token belongs to. A text that was cut has lost some."""
    own = np.flatnonzero(word_ids >= 0)
    there, places = np.unique(word_ids[own], return_inverse=True)
    return own, len(there), places


def row_generator(seed: int, number: int, token_ids: Int[np.ndarray, " token"]) -> np.random.Generator:
    """That of a row, known by its own tokens: other rows of a batch, and padding, decide nothing."""
    return np.random.default_rng([seed, number, crc32(token_ids.astype(np.int64).tobytes())])
