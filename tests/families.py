"""Tiny models of every supported architecture family, built from configurations: 3 blocks, 16 wide."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tr

VOCABULARY = 64
PAD = 0

_BERT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
}
_ENDS = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
_DECODER = {**_BERT, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}

FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (tr.BertConfig, _BERT),
    "roberta": (tr.RobertaConfig, _BERT),
    "xlm_roberta": (tr.XLMRobertaConfig, _BERT),
    "camembert": (tr.CamembertConfig, _BERT),
    "distilbert": (
        tr.DistilBertConfig,
        {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "pad_token_id": PAD},
    ),
    "electra": (tr.ElectraConfig, {**_BERT, "embedding_size": 8}),
    "deberta_v2": (
        tr.DebertaV2Config,
        {**_BERT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    ),
    "modernbert": (tr.ModernBertConfig, {**_BERT, **_ENDS}),
    "albert": (tr.AlbertConfig, {**_BERT, "embedding_size": 8}),
    "mpnet": (tr.MPNetConfig, _BERT),
    "roformer": (tr.RoFormerConfig, _BERT),
    "mobilebert": (
        tr.MobileBertConfig,
        {**_BERT, "embedding_size": 16, "intra_bottleneck_size": 16, "use_bottleneck": True},
    ),
    "funnel": (
        tr.FunnelConfig,
        {"vocab_size": VOCABULARY, "block_sizes": [1, 1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32},
    ),
    "nomic_bert": (tr.NomicBertConfig, _BERT),
    "eurobert": (tr.EuroBertConfig, {**_BERT, **_ENDS, "num_key_value_heads": 2}),
    "llama": (tr.LlamaConfig, _DECODER),
    "qwen2": (tr.Qwen2Config, _DECODER),
    "qwen3": (tr.Qwen3Config, {**_DECODER, "head_dim": 8}),
    "gpt2": (
        tr.GPT2Config,
        {
            "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64,
            "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2,
        },
    ),
    "gemma3": (tr.Gemma3TextConfig, {**_DECODER, "head_dim": 8}),
}  # fmt: skip

HIDDEN_ATTENTION = {"deberta_v2", "mpnet", "roformer", "funnel"}
"""Families whose attention is code of their own, beside transformers' AttentionInterface."""


def build(
    family: str, *, labels: int = 3, seed: int = 0, attention: str | None = None, **changes: Any
) -> Any:
    """A randomly initialised classifier in eval mode; ``changes`` go to its configuration."""
    config_class, fields = FAMILIES[family]
    torch.manual_seed(seed)
    config = config_class(**{**fields, "num_labels": labels, **changes})
    config.problem_type = "regression" if labels == 1 else "single_label_classification"
    chosen = {} if attention is None else {"attn_implementation": attention}
    if family == "gemma3":
        return tr.Gemma3TextForSequenceClassification._from_config(config, **chosen).eval()
    return tr.AutoModelForSequenceClassification.from_config(config, **chosen).eval()


def collated(labels: int = 3, *, rows: int = 3, tokens: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """A batch of random texts of different lengths, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (rows, tokens), generator=generator)
    lengths = torch.tensor([tokens - 2 * k for k in range(rows)]).clamp(min=2)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    gold = torch.randn(rows, generator=generator) if labels == 1 else torch.arange(rows) % labels
    return {
        "input_ids": ids * mask + PAD * (1 - mask),
        "attention_mask": mask,
        "labels": gold,
        "index": torch.arange(rows),
    }
