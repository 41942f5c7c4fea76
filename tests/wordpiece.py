"""A tiny WordPiece tokenizer, built in memory."""

from __future__ import annotations

from typing import Any

import transformers as tr
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "fox", "brown", "of", "[END]")


def tokenizer(words: tuple[str, ...] = WORDS, *, lowercase: bool = True, sep: str = "[SEP]") -> Any:
    ids = {word: k for k, word in enumerate(words)}
    inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing((sep, ids[sep]), ("[CLS]", ids["[CLS]"]))
    return tr.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token=sep,
        mask_token="[MASK]",
    )  # fmt: skip
