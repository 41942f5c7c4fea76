"""Baselines of Integrated Gradients: zero embeddings, or the same text without its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.errors import DataError, RecipeError, nearest
from gradistill.models.tracing import unwrapped
from gradistill.signals.forward_pass import ForwardPass
from gradistill.signals.word_replacement import row_generator

Baseline = Literal["zero", "padding", "mask", "tokens"]
"""``zero`` embeddings (Sundararajan et al. 2017), or words replaced by padding, masks or ``tokens`` of the data
(expected gradients, Erion et al. 2021, arXiv 1906.10670)."""


IN_ONE_TEXT = ("padding", "mask", "zero")
"""Baselines that need no other texts."""


def check_baseline(baseline: str, known: Sequence[str] = get_args(Baseline)) -> None:
    """Raise RecipeError for a baseline that is not among ``known``."""
    if baseline not in known:
        raise RecipeError(
            f"{baseline!r} is no baseline of Integrated Gradients",
            expected="a known baseline",
            remedy=nearest(baseline, known),
        )


def baseline_embeddings(
    forward: ForwardPass, baseline: Baseline, *, draws: int, seed: int
) -> Iterator[Float[Tensor, "batch token hidden"]]:
    """Yield the embedding output at each start of a path: one, or ``draws`` of them for the baseline ``tokens``.

    Special tokens and padding stay. Draws depend on ``seed`` and on the row's tokens alone. Raises DataError for a
    batch without word ids or without replacement tokens.
    """
    if baseline == "zero":
        yield torch.zeros_like(forward.embedding)
        return
    batch = forward.batch
    known = {"mask": batch.mask_token_id, "tokens": batch.token_pool}.get(baseline, 0)
    if known is None or batch.word_ids is None:
        raise DataError(
            f"The baseline {baseline!r} needs word ids and replacement tokens, which the rows or their collator lack.",
            expected="rows with special_tokens_mask or word_ids, and a collator with a tokenizer",
            remedy="make the rows by gradistill.encode, and batches by gradistill.Collator(tokenizer)",
        )
    ids, words = batch.inputs["input_ids"], batch.word_ids >= 0
    for number in range(draws if baseline == "tokens" else 1):
        if baseline == "padding":
            wordless = ids.masked_fill(words, _network(forward).config.pad_token_id or 0)
        elif baseline == "mask":
            wordless = ids.masked_fill(words, known)
        else:
            wordless = _drawn_tokens(forward, words, seed, number)
        with torch.no_grad():
            yield forward.embedding_of(wordless).detach()


def _network(forward: ForwardPass) -> Any:
    return unwrapped(forward.model)


def _drawn_tokens(
    forward: ForwardPass, words: Bool[Tensor, "batch token"], seed: int, number: int
) -> Int[Tensor, "batch token"]:
    """The token ids of the batch with words replaced by tokens of the data, drawn by their frequency."""
    ids, pool = forward.batch.inputs["input_ids"], forward.batch.token_pool
    assert pool is not None
    readable = _network(forward).get_input_embeddings().num_embeddings
    pool = pool[pool < readable].cpu().numpy()
    changed = ids.cpu().numpy().copy()
    for row, replaced, real in zip(
        changed, words.cpu().numpy(), forward.batch.mask.cpu().numpy(), strict=True
    ):
        generator = row_generator(seed, number, row[real])
        row[replaced] = pool[generator.integers(len(pool), size=np.count_nonzero(replaced))]
    return torch.as_tensor(changed).to(ids)
