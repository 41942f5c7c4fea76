"""The nearest other words in a model's embedding space: of a given vocabulary, or of the tokenizer's own words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.data.unspaced_scripts import CHARACTER
from gradistill.models.device_map import weights_of

WORDS_AT_ONCE = 1024

NEAR = 8
"""Near words of each word. TinyBERT takes 15."""

_SPARE = 24
"""Candidates beyond them: forms of the word itself, and single letters."""


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


def near_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Iterable[str], count: int = NEAR
) -> dict[str, tuple[str, ...]]:
    """For each of ``words`` that is one token, the ``count`` other words of the tokenizer that are most similar to it.

    Similarity is the cosine of rows of the model's token embedding. Only tokens that are whole words of letters and
    digits count. A word of several tokens has no row of its own, and the mean of theirs is near to nothing that has its
    meaning: it is left out. So is one without any neighbour. Words that differ in letter case only are no neighbours,
    and a single letter is none of a longer word. The result depends on no other of the ``words``.

    Example: ``near_words(teacher, tokenizer, ["good", "Tuesday"])["good"]`` is ``("excellent", "bad", "great", …)``
    """
    own = _whole_words(tokenizer)
    known = np.array(sorted(own), dtype=np.int64)
    wanted = sorted(set(words))
    tokens = dict(zip(wanted, _after_space(tokenizer, wanted), strict=True))
    asked = {word: ids[0] for word, ids in tokens.items() if len(ids) == 1 and ids[0] in own}
    table = torch.nn.functional.normalize(_embedding(model)[known].float(), dim=-1)
    places = {int(token): place for place, token in enumerate(known)}
    near: dict[int, tuple[str, ...]] = {}
    numbers = sorted(set(asked.values()))
    for start in range(0, len(numbers), WORDS_AT_ONCE):
        some = torch.tensor([places[token] for token in numbers[start : start + WORDS_AT_ONCE]])
        _, found = (table[some] @ table.T).topk(min(count + _SPARE, len(known)))
        # In float64: their order is the same whatever the number of threads.
        exact = (table[found].double() * table[some].double()[:, None]).sum(-1).numpy()
        for token, candidates, similar in zip(numbers[start:], found.numpy(), exact, strict=False):
            order = np.lexsort((candidates, -similar))
            near[token] = _others(own[token], [own[int(known[k])] for k in candidates[order]], count)
    return {word: near[token] for word, token in asked.items() if near[token]}


def _others(word: str, candidates: Sequence[str], count: int) -> tuple[str, ...]:
    """The first candidates that are other words than ``word`` and each other."""
    found: dict[str, str] = {}
    for other in candidates:
        letter = len(other) == 1 < len(word) and other.isalpha()
        if not letter and other.casefold() != word.casefold():
            found.setdefault(other.casefold(), other)
    return tuple(found.values())[:count]


def _whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are whole words: those that a text with that word alone, after white space, is read as."""
    special = set(tokenizer.all_special_ids)
    texts: dict[int, str] = {}
    for token in sorted(set(tokenizer.get_vocab().values()) - special):
        text: Any = tokenizer.decode([token])
        if (word := text.strip()).isalnum():
            texts[token] = word
    read = _after_space(tokenizer, list(texts.values()))
    return {token: word for (token, word), ids in zip(texts.items(), read, strict=True) if ids == [token]}


def _after_space(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as it stands within a text, after a space. Where a script has none, a space that is a
    token of its own is no part of the word; elsewhere it shows that the rest is a piece of one."""
    if not words:
        return []
    encoded: Any = tokenizer([f" {word}" for word in words], add_special_tokens=False, verbose=False)
    found: list[list[int]] = encoded["input_ids"]
    firsts = {
        ids[0] for word, ids in zip(words, found, strict=True) if CHARACTER.match(word) and len(ids) > 1
    }
    blank = {token for token in firsts if not str(tokenizer.decode([token])).strip()}
    return [
        ids[1:] if CHARACTER.match(word) and ids[:1] and ids[0] in blank else ids
        for word, ids in zip(words, found, strict=True)
    ]


def _bare(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def _embedding(model: PreTrainedModel) -> Float[Tensor, "token width"]:
    """The token embedding, in main memory; one that accelerate keeps elsewhere is read back."""
    inputs: Any = model.get_input_embeddings()
    weight: Tensor = inputs.weight
    if weight.is_meta:
        name = next(name for name, parameter in model.named_parameters() if parameter is weight)
        weight = weights_of(model)[name]
    return weight.detach().cpu()


def _vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]
) -> Float[Tensor, "word hidden"]:
    table = _embedding(model)
    ids: Any = tokenizer(list(words), add_special_tokens=False, verbose=False)["input_ids"]
    vectors = torch.stack([table[own].mean(0) if own else torch.zeros_like(table[0]) for own in ids])
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
