"""The fingerprint of a store: hashes of everything that its signals depend on. Equal stores have equal fingerprints."""

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
"""Version of the files' layout. It increases when an older version cannot read a store, or would misread it."""

_NO_SETTINGS = (NAME_OR_PATH, "transformers_version", "architectures")
"""Keys of a configuration that do not affect what the model computes."""

_READ = ("input_ids", "attention_mask", "token_type_ids", "labels", "index")


def made_for(
    teacher: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    columns: Sequence[Column],
    *,
    max_length: int,
) -> dict[str, Any]:
    """Everything that the signals depend on, by the names that error messages use."""
    return {
        "format": FORMAT,
        "teacher": model_hash(teacher),
        "tokenizer": tokenizer_hash(tokenizer),
        "data": rows_hash(rows),
        "max_length": max_length,
        "signals": [column.as_dict() for column in columns],
        **(
            {"words": word_ids_hash(rows, tokenizer)}
            if any(_depends_on_words(column.signal) for column in columns)
            else {}
        ),
        "versions": package_versions("torch", "transformers"),
    }


def _depends_on_words(signal: Signal) -> bool:
    """Whether a signal replaces words, or explains words of a token classifier."""
    return signal.replaces_words or (
        isinstance(signal, TargetSignal) and isinstance(signal.target, WordTarget)
    )


def model_hash(model: nn.Module) -> str:
    """A hash of the model's configuration, and of every parameter and buffer with its name and dtype."""
    config: Any = getattr(model, "config", None)
    settings = {k: v for k, v in config.to_dict().items() if k not in _NO_SETTINGS} if config else {}
    sha = hashlib.sha256(f"{type(model).__name__} {digest(settings)}".encode())
    for name, tensor in sorted(weights_of(model).items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    special = {role: str(token) for role, token in tokenizer.special_tokens_map.items()}
    return digest([sorted(tokenizer.get_vocab().items()), special])


def tokenization_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything that the tokens of a text depend on. It includes normalisation, pre-tokenization and the
    truncation side, which ``tokenizer_hash`` leaves out, since a store has the tokens themselves."""
    parts: list[Any] = [tokenizer_hash(tokenizer), type(tokenizer).__name__, tokenizer.truncation_side]
    inner: Any = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        backend = json.loads(inner.to_str())
        parts.append({key: part for key, part in backend.items() if key not in ("truncation", "padding")})
    return digest(parts)


def word_ids_hash(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the word ids of the rows. Models without a mask token add the id that replaces an erased word; with a
    mask token it is left out, so that stores of encoders keep their hash."""
    words = rows["word_ids"][:] if "word_ids" in rows.column_names else None
    return digest(words if tokenizer.mask_token_id is not None else [words, erased_token_id(tokenizer)])


def rows_hash(rows: Dataset) -> str:
    """A hash of the rows in their order: the model's inputs, the labels and the row indices."""
    sha = hashlib.sha256()
    for name in _READ:
        if name in rows.column_names:
            sha.update(name.encode())
            for value in _values(rows, name):
                sha.update(value)
    return sha.hexdigest()


def _values(rows: Dataset, name: str, at_once: int = 1000) -> Iterable[bytes]:
    for start in range(0, len(rows), at_once):
        for value in rows[start : start + at_once][name]:
            array = np.asarray(value)
            yield f"{array.dtype.kind}{array.shape}".encode() + array.tobytes()
