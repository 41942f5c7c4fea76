"""The limits of every family against the model itself: what it says it can read it reads, and nothing beyond."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tr
from datasets import Dataset

from families import FAMILIES, VOCABULARY, build
from gradistill.errors import ModelError
from gradistill.models.input_limits import Limits, check_readable
from wordpiece import WORDS, tokenizer

UNLIMITED = {
    "modernbert", "funnel", "nomic_bert", "eurobert", "llama", "qwen2", "qwen3", "gemma3",
}  # fmt: skip
"""Families with relative or rotary positions."""


def reads(model: Any, tokens: int, **columns: torch.Tensor) -> bool:
    ids = torch.randint(5, VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **columns}
    try:
        with torch.no_grad():
            model(**inputs)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_reads_as_many_tokens_as_its_limit_and_no_more(family: str) -> None:
    model = build(family)
    limits = Limits.find(model)
    assert limits.tokens == VOCABULARY
    assert (limits.positions is None) == (family in UNLIMITED)
    if limits.positions is None:
        assert reads(model, 3 * 64)
    else:
        assert reads(model, limits.positions)
        assert not reads(model, limits.positions + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_knows_as_many_token_ids_and_types_as_its_limits(family: str) -> None:
    model = build(family)
    limits = Limits.find(model)
    assert not reads(model, 1, input_ids=torch.tensor([[limits.tokens]]), attention_mask=torch.ones(1, 1))
    if limits.types is not None:
        some = torch.tensor([[limits.types - 1, 0, 0, 0]])
        assert reads(model, 4, token_type_ids=some)
        assert not reads(model, 4, token_type_ids=some + 1)


@pytest.mark.parametrize("window", [8, [8, 8, 8]])
def test_longformer_pads_to_its_window_and_keeps_its_limit(window: Any) -> None:
    config = tr.LongformerConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, pad_token_id=1, attention_window=window,
    )  # fmt: skip
    model = tr.AutoModelForSequenceClassification.from_config(config).eval()
    assert Limits.find(model).positions == 64
    assert reads(model, 63)
    assert not reads(model, 65)


def rows(**columns: Any) -> Dataset:
    return Dataset.from_dict({**columns, "index": list(range(40, 40 + len(columns["input_ids"])))})


def test_rows_within_the_limits_pass() -> None:
    check_readable(
        build("bert"),
        rows(input_ids=[[2] * 64, [2, 63, 3]], token_type_ids=[[0] * 64, [0, 1, 1]]),
        tokenizer(),
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input_ids": [[2, 3], [2] * 65]}, "teacher reads at most 64 tokens of a text, and row 41 has 65"),
        ({"input_ids": [[2, 3], [2, 64]]}, "Row 41 holds the token id 64.*embedding matrix has 64 rows"),
        (
            {"input_ids": [[2, 3], [2, 3]], "token_type_ids": [[0, 0], [0, 2]]},
            "Row 41 holds the token type 2, and the teacher has 2",
        ),
    ],
)
def test_rows_beyond_a_limit_are_refused_with_the_numbers(columns: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        check_readable(build("bert"), rows(**columns), tokenizer(), owner="teacher")


def test_a_row_in_a_later_block_is_found() -> None:
    ids = [[2, 3]] * 1500 + [[2, 99]]
    with pytest.raises(ModelError, match="Row 1540 holds the token id 99"):
        check_readable(build("bert"), rows(input_ids=ids), tokenizer())


def test_padding_and_masks_must_have_a_row_too() -> None:
    model = build("bert", vocab_size=16)
    pieces = tokenizer((*WORDS, *(f"w{k}" for k in range(10))))
    pieces.add_special_tokens({"pad_token": "[LATE]"})
    assert pieces.pad_token_id >= 16
    with pytest.raises(ModelError, match=r"The tokenizer pads with the token id 21 \('\[LATE\]'\)"):
        check_readable(model, rows(input_ids=[[2, 3]]), pieces)
