"""The word ids and replacement tokens that a batch needs so that words of its texts can be replaced."""

from __future__ import annotations

from typing import Literal
from zlib import crc32

import numpy as np
from jaxtyping import Int
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import DataError

Replacement = Literal["mask", "tokens", "either"]


def mask_id_and_pool(batch: Batch, replacement: Replacement) -> tuple[int, Int[np.ndarray, " pool"]]:
    """The mask token's id, and the tokens to draw from (the mask token alone if the batch has none).

    Raises DataError if the batch lacks what ``replacement`` needs.
    """
    mask, pool = batch.mask_token_id, batch.token_pool
    if mask is None and replacement != "tokens":
        raise DataError(
            f"Copies with replacement {replacement!r} need a mask token, and the collator has none.",
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


def word_ids_of(batch: Batch) -> Int[Tensor, "batch token"]:
    """The word index of each token, −1 for tokens of no word. Raises DataError for a batch without word ids."""
    if batch.word_ids is None:
        raise DataError(
            "The rows have neither word ids nor a mask of special tokens, so no word can be replaced.",
            expected="a column word_ids or special_tokens_mask",
            remedy="make the rows by gradistill.encode, or by the tokenizer with return_special_tokens_mask=True",
        )
    return batch.word_ids


def own_words(
    word_ids: Int[np.ndarray, " token"],
) -> tuple[Int[np.ndarray, " own"], int, Int[np.ndarray, " own"]]:
    """For one row: the positions of tokens of words, the number of distinct words, and each such token's word.

    Words are counted from 0, without gaps: a text that was cut has lost some of its words.
    """
    positions = np.flatnonzero(word_ids >= 0)
    words, word_of_token = np.unique(word_ids[positions], return_inverse=True)
    return positions, len(words), word_of_token


def row_generator(seed: int, number: int, token_ids: Int[np.ndarray, " token"]) -> np.random.Generator:
    """A generator seeded by ``seed``, ``number`` and the row's token ids, independent of batch and padding."""
    return np.random.default_rng([seed, number, crc32(token_ids.astype(np.int64).tobytes())])
