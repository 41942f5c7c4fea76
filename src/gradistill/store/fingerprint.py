"""What a store was made for, as hashes: two stores are the same if and only if these are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.attribution.word_targets import WordTarget
from gradistill.data.collator import erased_token_id
from gradistill.io import digest
from gradistill.models.device_map import weights_of
from gradistill.models.model_source import NAME_OR_PATH
from gradistill.package_versions import package_versions
from gradistill.signals.base import Signal, TargetSignal
from gradistill.store.columns import Column

FORMAT = 1
"""Version of the files' layout. Raised whenever an older reader could not read, or would misread, a store."""

_NO_SETTINGS = (NAME_OR_PATH, "transformers_version", "architectures")
"""Of a configuration: where the model lies and who wrote it, not what it computes."""

_READ = ("input_ids", "attention_mask", "token_type_ids", "labels", "index")


def made_for(
    teacher: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    columns: Sequence[Column],
    *,
    max_length: int,
) -> dict[str, Any]:
    """Everything that the signals depend on, each thing under the name that a refusal calls it by."""
    return {
        "format": FORMAT,
        "teacher": of_model(teacher),
        "tokenizer": of_tokenizer(tokenizer),
        "data": of_rows(rows),
        "max_length": max_length,
        "signals": [column.as_dict() for column in columns],
        **(
            {"words": of_words(rows, tokenizer)}
            if any(_depends_on_words(column.signal) for column in columns)
            else {}
        ),
        "versions": package_versions("torch", "transformers"),
    }


def _depends_on_words(signal: Signal) -> bool:
    """Whether it replaces words, or explains some of them."""
    return signal.replaces_words or (
        isinstance(signal, TargetSignal) and isinstance(signal.target, WordTarget)
    )


def of_model(model: nn.Module) -> str:
    """Of the configuration, and of every parameter and buffer, names and types included."""
    config: Any = getattr(model, "config", None)
    settings = {k: v for k, v in config.to_dict().items() if k not in _NO_SETTINGS} if config else {}
    found = hashlib.sha256(f"{type(model).__name__} {digest(settings)}".encode())
    for name, tensor in sorted(weights_of(model).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    special = {role: str(token) for role, token in tokenizer.special_tokens_map.items()}
    return digest([sorted(tokenizer.get_vocab().items()), special])


def of_reading(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that a text's tokens depend on: normalisation, division into words and the side that is cut too, which
    ``of_tokenizer`` leaves out, since a store has the tokens themselves."""
    parts: list[Any] = [of_tokenizer(tokenizer), type(tokenizer).__name__, tokenizer.truncation_side]
    inner: Any = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        backend = json.loads(inner.to_str())
        parts.append({key: part for key, part in backend.items() if key not in ("truncation", "padding")})
    return digest(parts)


def of_words(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> str:
    """Of the word of each token, where the rows know it, and of what stands for an erased one: only where that is no
    mask token, so that stores of encoders keep their hash."""
    words = rows["word_ids"][:] if "word_ids" in rows.column_names else None
    return digest(words if tokenizer.mask_token_id is not None else [words, erased_token_id(tokenizer)])


def of_rows(rows: Dataset) -> str:
    """Of what the model reads, and the labels and numbers of the rows, in their order."""
    found = hashlib.sha256()
    for name in _READ:
        if name in rows.column_names:
            found.update(name.encode())
            for value in _values(rows, name):
                found.update(value)
    return found.hexdigest()


def _values(rows: Dataset, name: str, at_once: int = 1000) -> Iterable[bytes]:
    for start in range(0, len(rows), at_once):
        for value in rows[start : start + at_once][name]:
            array = np.asarray(value)
            yield f"{array.dtype.kind}{array.shape}".encode() + array.tobytes()
