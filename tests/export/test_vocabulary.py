"""A smaller vocabulary: exact on its texts, pieces outside, nothing unknown that was known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from families import build
from gradistill.data import Collator
from gradistill.errors import ModelError
from gradistill.export.vocabulary import frequent_tokens, trim_vocabulary
from small import SPECIAL
from wordpiece import tokenizer

LETTERS = tuple("abdefilmnrstuy")
TOKENS = (
    "[unused0]", *SPECIAL, "film", "fine", "##ly", "dull", *LETTERS,
    *(f"##{letter}" for letter in LETTERS), "##in", "fi",
)  # fmt: skip
TEXTS = ["a fine film", "finely"]


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    tokens = tokenizer(TOKENS)
    model = build("bert", initializer_range=0.3, pad_token_id=tokens.pad_token_id)
    return model, tokens


def logits(model: Any, tokens: Any, texts: list[str]) -> torch.Tensor:
    rows = tokens(texts)["input_ids"]
    batch = Collator(tokens)([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows])
    with torch.no_grad():
        return model(**batch).logits


def test_texts_of_the_vocabulary_are_predicted_as_before(pair: tuple[Any, Any]) -> None:
    found = trim_vocabulary(*pair, TEXTS)
    assert found.as_dict() == {"tokens": len(found.kept), "tokens_before": len(TOKENS)}
    gone = {"[unused0]", "dull", "##in", "fi"}
    assert set(found.tokenizer.get_vocab()) == set(TOKENS) - gone
    assert (
        found.model.config.vocab_size == found.model.get_input_embeddings().num_embeddings == len(found.kept)
    )
    assert found.model.config.pad_token_id == found.tokenizer.pad_token_id == pair[1].pad_token_id - 1
    assert torch.equal(logits(found.model, found.tokenizer, TEXTS), logits(*pair, TEXTS))
    assert pair[0].config.vocab_size == 64, "the model itself stays"


def test_other_texts_fall_into_pieces(pair: tuple[Any, Any]) -> None:
    found = trim_vocabulary(*pair, TEXTS)
    pieces = found.tokenizer.tokenize("dull")
    assert pieces == ["d", "##u", "##l", "##l"]
    assert pair[1].tokenize("dull") == ["dull"]
    assert found.tokenizer.tokenize("xylophone") == pair[1].tokenize("xylophone") == ["[UNK]"]


def test_a_size_is_filled_with_the_lowest_ids_and_placeholders_last(pair: tuple[Any, Any]) -> None:
    least = len(trim_vocabulary(*pair, TEXTS).kept)
    gone = {"dull", "##in", "fi"}  # in this order; [unused0] has the lowest id
    found = trim_vocabulary(*pair, TEXTS, least + 2)
    assert set(TOKENS) - set(found.tokenizer.get_vocab()) == {"[unused0]", "fi"}
    whole = trim_vocabulary(*pair, TEXTS, len(TOKENS) + 5)
    assert set(whole.tokenizer.get_vocab()) == set(TOKENS) > gone
    with pytest.raises(ModelError, match=f"need {least} tokens"):
        trim_vocabulary(*pair, TEXTS, least - 1)


def test_an_added_token_without_a_row_in_the_model_is_left_out() -> None:
    tokens = tokenizer(TOKENS)
    tokens.add_tokens(["<user>"])
    model = build("bert", vocab_size=len(TOKENS), pad_token_id=tokens.pad_token_id)
    found = trim_vocabulary(model, tokens, TEXTS)
    assert "<user>" not in found.tokenizer.get_vocab()
    assert torch.equal(logits(found.model, found.tokenizer, TEXTS), logits(model, tokens, TEXTS))


def test_frequent_tokens_are_counted_with_the_special_ones(pair: tuple[Any, Any]) -> None:
    tokens = pair[1]
    found = frequent_tokens(tokens, ["film film", "film fine"], 3)
    assert set(found) == {tokens.cls_token_id, tokens.sep_token_id, tokens.convert_tokens_to_ids("film")}


def test_other_tokenizers_are_refused(pair: tuple[Any, Any]) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokens = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), pad_token="a")
    with pytest.raises(ModelError, match=r"\(BPE\) cannot be trimmed"):
        trim_vocabulary(pair[0], tokens, TEXTS)
