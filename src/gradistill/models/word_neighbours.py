"""The nearest other words of a vocabulary in a model's embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDS_AT_ONCE = 1024


def nearest_words(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Iterable[str],
    vocabulary: Iterable[str],
) -> dict[str, str]:
    """For each of ``words`` the word of ``vocabulary`` that is most similar to it.

    A word's vector is the mean of its tokens' rows in the model's token embedding; similarity is the cosine. Words that
    differ only in letter case or in characters that are no letters or digits count as one and are not each other's
    neighbours. A word without any neighbour is its own. Replacing words by neighbours in a model's embedding space
    follows Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), who take them from GloVe.

    Example: ``nearest_words(teacher, tokenizer, ["good"], word_pool(texts))``
    """
    wanted, known = sorted(set(words)), sorted(set(vocabulary))
    if not wanted or not known:
        return {word: word for word in wanted}
    bare = np.array([_bare(word) for word in known])
    theirs = _vectors(model, tokenizer, known)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), WORDS_AT_ONCE):
        some = wanted[start : start + WORDS_AT_ONCE]
        similar = _vectors(model, tokenizer, some) @ theirs.T
        for word, row in zip(some, similar, strict=True):
            row[torch.as_tensor(bare == _bare(word))] = -torch.inf
            best = int(row.argmax())
            found[word] = known[best] if row[best].isfinite() else word
    return found


def _bare(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def _vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
) -> Float[Tensor, "word hidden"]:
    inputs: Any = model.get_input_embeddings()
    table: Tensor = inputs.weight.detach()
    ids: Any = tokenizer(list(words), add_special_tokens=False, verbose=False)["input_ids"]
    vectors = torch.stack([table[own].mean(0) if own else torch.zeros_like(table[0]) for own in ids])
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
