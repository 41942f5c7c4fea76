"""The nearest other words in a model's embedding space, from a given vocabulary or from the tokenizer's own words."""

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
"""Number of additional candidates: forms of the word itself and single letters are left out."""


def nearest_words(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Iterable[str],
    vocabulary: Iterable[str],
) -> dict[str, str]:
    """For each of ``words`` the word of ``vocabulary`` that is most similar to it.

    A word's vector is the mean of its tokens' rows in the model's token embedding; similarity is the cosine. Words that
    differ only in letter case or in characters that are no letters or digits count as one and are not each other's
    neighbours. A word without any neighbour is mapped to itself. Replacing words by neighbours in a model's embedding
    space follows Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), who take them from GloVe.

    Example: ``nearest_words(teacher, tokenizer, ["good"], word_pool(texts))``
    """
    wanted, known = sorted(set(words)), sorted(set(vocabulary))
    if not wanted or not known:
        return {word: word for word in wanted}
    bare = np.array([_bare(word) for word in known])
    theirs = _vectors(model, tokenizer, known)
    neighbours: dict[str, str] = {}
    for start in range(0, len(wanted), WORDS_AT_ONCE):
        part = wanted[start : start + WORDS_AT_ONCE]
        similar = _vectors(model, tokenizer, part) @ theirs.T
        for word, row in zip(part, similar, strict=True):
            row[torch.as_tensor(bare == _bare(word))] = -torch.inf
            best = int(row.argmax())
            neighbours[word] = known[best] if row[best].isfinite() else word
    return neighbours


def near_words(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Iterable[str], count: int = NEAR
) -> dict[str, tuple[str, ...]]:
    """For each of ``words`` that is one token, the ``count`` other words of the tokenizer that are most similar to it.

    Similarity is the cosine of rows of the model's token embedding. Only tokens that are whole words of letters and
    digits count. A word of several tokens is left out: it has no row of its own, and the mean of its tokens' rows is
    not near words of its meaning. So is a word without any neighbour. Words that differ in letter case only are no
    neighbours, and a single letter is no neighbour of a longer word. The result of a word does not depend on the other
    ``words``.

    Example: ``near_words(teacher, tokenizer, ["good", "Tuesday"])["good"]`` is ``("excellent", "bad", "great", …)``
    """
    whole_words = _whole_words(tokenizer)
    known = np.array(sorted(whole_words), dtype=np.int64)
    wanted = sorted(set(words))
    tokens = dict(zip(wanted, _after_space(tokenizer, wanted), strict=True))
    single_tokens = {word: ids[0] for word, ids in tokens.items() if len(ids) == 1 and ids[0] in whole_words}
    table = torch.nn.functional.normalize(_embedding(model)[known].float(), dim=-1)
    places = {int(token): place for place, token in enumerate(known)}
    near: dict[int, tuple[str, ...]] = {}
    numbers = sorted(set(single_tokens.values()))
    for start in range(0, len(numbers), WORDS_AT_ONCE):
        part = torch.tensor([places[token] for token in numbers[start : start + WORDS_AT_ONCE]])
        _, nearest = (table[part] @ table.T).topk(min(count + _SPARE, len(known)))
        # In float64: their order is the same whatever the number of threads.
        exact = (table[nearest].double() * table[part].double()[:, None]).sum(-1).numpy()
        for token, candidates, similar in zip(numbers[start:], nearest.numpy(), exact, strict=False):
            order = np.lexsort((candidates, -similar))
            near[token] = _others(
                whole_words[token], [whole_words[int(known[k])] for k in candidates[order]], count
            )
    return {word: near[token] for word, token in single_tokens.items() if near[token]}


def _others(word: str, candidates: Sequence[str], count: int) -> tuple[str, ...]:
    """The first ``count`` candidates that are other words than ``word``, each of them once."""
    others: dict[str, str] = {}
    for other in candidates:
        letter = len(other) == 1 < len(word) and other.isalpha()
        if not letter and other.casefold() != word.casefold():
            others.setdefault(other.casefold(), other)
    return tuple(others.values())[:count]


def _whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are whole words: the tokenizer gives this one token for the word alone, after white space."""
    special = set(tokenizer.all_special_ids)
    texts: dict[int, str] = {}
    for token in sorted(set(tokenizer.get_vocab().values()) - special):
        text: Any = tokenizer.decode([token])
        if (word := text.strip()).isalnum():
            texts[token] = word
    read = _after_space(tokenizer, list(texts.values()))
    return {token: word for (token, word), ids in zip(texts.items(), read, strict=True) if ids == [token]}


def _after_space(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[list[int]]:
    """The tokens of each word as within a text, after a space.

    In scripts without spaces, a separate token of the space is removed. In other scripts it stays, and shows that the
    rest is a piece of a word.
    """
    if not words:
        return []
    encoded: Any = tokenizer([f" {word}" for word in words], add_special_tokens=False, verbose=False)
    token_ids: list[list[int]] = encoded["input_ids"]
    firsts = {
        ids[0] for word, ids in zip(words, token_ids, strict=True) if CHARACTER.match(word) and len(ids) > 1
    }
    blank = {token for token in firsts if not str(tokenizer.decode([token])).strip()}
    return [
        ids[1:] if CHARACTER.match(word) and ids[:1] and ids[0] in blank else ids
        for word, ids in zip(words, token_ids, strict=True)
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
    vectors = torch.stack(
        [table[token_ids].mean(0) if token_ids else torch.zeros_like(table[0]) for token_ids in ids]
    )
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
