"""Configuration and tokenizer of an export, as transformers, transformers.js and ``tokenizers`` read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.errors import ModelError
from gradistill.models.loading import label_names

TOKENIZER = "tokenizer.json"
SPECIAL_TOKENS = "special_tokens_map.json"


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError for a tokenizer that has no ``tokenizer.json``."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is a slow tokenizer: it cannot be written as {TOKENIZER}",
            expected=f"a fast tokenizer: programs that run an ONNX model without transformers read {TOKENIZER}",
            remedy=f"save the student with its {TOKENIZER}",
        )


def write_model_files(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, max_length: int
) -> None:
    """Write ``config.json`` with the labels, ``tokenizer.json``, ``tokenizer_config.json`` and
    ``special_tokens_map.json``.

    ``max_length`` becomes the tokenizer's ``model_max_length``, so that truncation is as in training. The tokenizer is
    changed.
    """
    config: Any = model.config
    config.id2label = label_names(model)
    config.save_pretrained(folder)
    tokenizer.model_max_length = max_length
    inner: Any = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        inner.no_truncation()
        inner.no_padding()
    tokenizer.save_pretrained(folder)
    # transformers 5 keeps these in tokenizer_config.json only; transformers.js and older versions read this file.
    special = {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    (folder / SPECIAL_TOKENS).write_text(
        json.dumps(special, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
