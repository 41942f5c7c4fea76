"""Trim the vocabulary of a classifier and its tokenizer to the tokens that occur in some texts.

A WordPiece tokenizer repeatedly takes the longest token of its vocabulary that fits. Without tokens that never occur in
the texts it therefore splits these texts as before. Other texts may be split into smaller pieces. Single characters are
kept, so that no known word becomes unknown.

With a ``size`` further tokens are kept, those with low ids first: a vocabulary that was counted on texts is in the
order of frequency. Placeholders such as ``[unused7]`` come last.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gradistill.errors import ModelError

AT_ONCE = 2000
"""The number of texts that are tokenized at a time."""

_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


@dataclass(frozen=True)
class TrimmedModel:
    """A copy of a model with a smaller vocabulary; ``kept`` holds the former token id of each new one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept: Sequence[int]
    before: int

    def as_dict(self) -> dict[str, int]:
        """Tokens before and after."""
        return {"tokens": len(self.kept), "tokens_before": self.before}


def trim_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int | None = None
) -> TrimmedModel:
    """A copy of a classifier with only the tokens of ``texts``, single characters and special tokens. With a ``size``
    the vocabulary is filled up with further tokens.

    Raises ModelError for a tokenizer other than WordPiece, if the texts are not split as before, and if they need more
    tokens than ``size``.

    Example: ``trim_vocabulary(model, tokenizer, training_texts).tokenizer``
    """
    state = _state(tokenizer)
    table: Any = model.get_input_embeddings()
    kept = _kept(tokenizer, state, texts, len(table.weight))
    if size is not None:
        kept = _filled(kept, state, size, len(table.weight))
    new_ids = {old: new for new, old in enumerate(kept)}
    trimmed = TrimmedModel(
        _with_rows(model, kept, new_ids),
        _with_tokens(tokenizer, state, new_ids),
        kept,
        len(state["model"]["vocab"]),
    )
    _check_same(tokenizer, trimmed, texts)
    return trimmed


def _state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The content of ``tokenizer.json``. Raises ModelError for a tokenizer other than WordPiece."""
    inner: Any = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(inner.to_str()) if inner is not None else {}
    kind = state.get("model", {}).get("type", type(tokenizer).__name__)
    if kind != "WordPiece":
        raise ModelError(
            f"the vocabulary of {type(tokenizer).__name__} ({kind}) cannot be trimmed",
            expected="a WordPiece tokenizer, such as BERT's: its behaviour without a token is known",
            remedy="leave --trim-vocabulary out",
        )
    state["truncation"] = state["padding"] = None
    return state


def _kept(
    tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any], texts: Sequence[str], rows: int
) -> list[int]:
    """The ids of the tokens to keep, in order."""
    prefix = state["model"].get("continuing_subword_prefix") or ""
    kept = {part["id"] for part in state["added_tokens"]} | set(tokenizer.all_special_ids)
    kept |= {k for token, k in state["model"]["vocab"].items() if len(token.removeprefix(prefix)) == 1}
    for start in range(0, len(texts), AT_ONCE):
        encoded = tokenizer(
            list(texts[start : start + AT_ONCE]), add_special_tokens=False, truncation=False, verbose=False
        )
        kept.update(k for ids in encoded["input_ids"] for k in ids)  # pyright: ignore[reportAttributeAccessIssue]
    return sorted(k for k in kept if k < rows)


def _filled(kept: Sequence[int], state: Mapping[str, Any], size: int, rows: int) -> list[int]:
    """The ids to keep, filled up to ``size`` with others: low ids first, placeholders last."""
    if len(kept) > size:
        raise ModelError(
            f"the texts need {len(kept):,} tokens, with single characters and special ones, and the size is {size:,}",
            expected=f"a vocabulary of {len(kept):,} tokens or more",
            remedy="set a larger --vocabulary-size",
        )
    others = {k: token for token, k in state["model"]["vocab"].items() if k < rows}
    for k in kept:
        others.pop(k, None)
    ordered = sorted(others, key=lambda k: (others[k].startswith("["), k))
    return sorted([*kept, *ordered[: size - len(kept)]])


def frequent_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], most: int) -> list[int]:
    """The ids of the ``most`` most frequent tokens in texts, special ones included.

    Example: ``frequent_tokens(tokenizer, ["a fine film"], 1000)``
    """
    counts = Counter[int]()
    for start in range(0, len(texts), AT_ONCE):
        encoded: Any = tokenizer(list(texts[start : start + AT_ONCE]), truncation=False, verbose=False)[
            "input_ids"
        ]
        for ids in encoded:
            counts.update(ids)
    return [token for token, _ in counts.most_common(most)]


def _with_rows(model: PreTrainedModel, kept: Sequence[int], new_ids: Mapping[int, int]) -> PreTrainedModel:
    smaller = copy.deepcopy(model)
    table: Any = smaller.get_input_embeddings()
    table.weight = nn.Parameter(table.weight.detach()[torch.as_tensor(kept)].clone())
    table.num_embeddings = len(kept)
    if table.padding_idx is not None:
        table.padding_idx = new_ids.get(table.padding_idx)
    smaller.config.vocab_size = len(kept)
    for name in _IDS:
        if isinstance(old := getattr(smaller.config, name, None), int):
            setattr(smaller.config, name, new_ids.get(old))
    return smaller


def _with_tokens(
    tokenizer: PreTrainedTokenizerBase, state: dict[str, Any], new_ids: Mapping[int, int]
) -> PreTrainedTokenizerBase:
    """The tokenizer with the tokens that have new ids."""
    smaller = copy.deepcopy(state)
    vocabulary = smaller["model"]["vocab"]
    smaller["model"]["vocab"] = {token: new_ids[k] for token, k in vocabulary.items() if k in new_ids}
    smaller["added_tokens"] = [
        part | {"id": new_ids[part["id"]]}
        for part in smaller["added_tokens"]
        if part["id"] in new_ids  # a token without a row in the model is removed
    ]
    _renumber(smaller.get("post_processor"), new_ids)
    with TemporaryDirectory(prefix="gradistill-") as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "vocab.txt").unlink(missing_ok=True)
        (Path(folder) / "tokenizer.json").write_text(
            json.dumps(smaller, ensure_ascii=False), encoding="utf-8"
        )
        trimmed = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    trimmed.name_or_path = tokenizer.name_or_path
    return trimmed


def _renumber(processor: Any, new_ids: Mapping[int, int]) -> None:
    """Give the special tokens that a post-processor adds their new ids."""
    if not processor:
        return
    for part in (
        processor.get("special_tokens", {}).values() if processor["type"] == "TemplateProcessing" else ()
    ):
        part["ids"] = [new_ids[k] for k in part["ids"]]
    for role in ("sep", "cls"):  # BertProcessing and RobertaProcessing hold pairs of token and id
        if isinstance(pair := processor.get(role), list):
            processor[role] = [pair[0], new_ids[pair[1]]]
    for inner in processor.get("processors", ()):
        _renumber(inner, new_ids)


def _check_same(tokenizer: PreTrainedTokenizerBase, trimmed: TrimmedModel, texts: Sequence[str]) -> None:
    """Raise ModelError if a text is not split as before."""
    for start in range(0, len(texts), AT_ONCE):
        part = list(texts[start : start + AT_ONCE])
        before: Any = tokenizer(part, truncation=False, verbose=False)["input_ids"]
        after: Any = trimmed.tokenizer(part, truncation=False, verbose=False)["input_ids"]
        for text, old, new in zip(part, before, after, strict=True):
            if [trimmed.kept[k] for k in new] != old:
                raise ModelError(
                    f"without the tokens that do not occur, {text[:60]!r} is split otherwise than before",
                    expected="the same tokens for every text",
                    remedy="leave --trim-vocabulary out, and report the tokenizer",
                )
