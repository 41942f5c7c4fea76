"""Near words of a tokenizer's own vocabulary, against a loop over all pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tr
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from families import build
from gradistill.models.loading import load_classifier
from gradistill.models.teacher_loading import TeacherLoading
from gradistill.models.word_neighbours import near_words
from wordpiece import tokenizer

PARTS = {"bert.embeddings": "disk", "bert.encoder": "cpu", "bert.pooler": "cpu", "classifier": "cpu"}
PIECES = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "good",
    "Good",
    "##ness",
    "film",
    "of",
    "a",
    "s",
    "3",
    "é",
    "!",
)


def cosine(model: Any, one: int, two: int) -> float:
    table = model.get_input_embeddings().weight.detach().double()
    return float(table[one] @ table[two] / (table[one].norm() * table[two].norm()))


@pytest.mark.parametrize("count", [1, 3, 99])
def test_against_a_loop(count: int) -> None:
    model, pieces = build("bert"), tokenizer(PIECES, lowercase=False)
    found = near_words(model, pieces, ["good", "film", "goodness", "nothing", "!", "a", "of"], count)
    ids = {word: k for k, word in enumerate(PIECES)}
    whole = ["good", "Good", "film", "of", "a", "s", "3", "é"]

    def naive(word: str) -> tuple[str, ...]:
        others = [
            other
            for other in whole
            if other.casefold() != word.casefold() and not (len(word) > 1 and other in ("a", "s", "é"))
        ]
        ranked = sorted(others, key=lambda other: -cosine(model, ids[word], ids[other]))
        if "good" in ranked and "Good" in ranked:  # forms of one word: the nearer one
            ranked.remove(max(("good", "Good"), key=ranked.index))
        return tuple(ranked[:count])

    assert found == {word: naive(word) for word in ("good", "film", "a", "of")}


def test_a_word_in_capitals_is_the_token_that_is_read() -> None:
    model, pieces = build("bert"), tokenizer(PIECES)
    assert near_words(model, pieces, ["GOOD"])["GOOD"] == near_words(model, pieces, ["good"])["good"]


def test_words_stand_behind_a_space_where_that_makes_other_tokens() -> None:
    words = [
        "<s>",
        "<pad>",
        "Ġ",
        "Ġgood",
        "good",
        "Ġfilm",
        "Ġfine",
        "f",
        "i",
        "l",
        "m",
        "g",
        "o",
        "d",
        "n",
        "e",
    ]
    ids = {word: k for k, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    pieces = tr.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>")
    found = near_words(build("bert"), pieces, ["good", "film"])
    assert set(found["good"]) == {"film", "fine"}
    assert set(found["film"]) == {"good", "fine"}


def test_a_space_that_is_a_token_of_its_own_is_none_of_the_word() -> None:
    """SentencePiece reads a character of Japanese so, and no word of such a text had near ones."""
    words = ["<pad>", "<unk>", "▁", "映", "画", "電", "▁good", "▁film", "good", "▁映", "ing", "ation"]
    inner = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=1))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    pieces = tr.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
    found = near_words(build("bert"), pieces, ["画", "映画", "good", "ing"])
    assert set(found) == {"画", "good"}  # a piece of an English word is none
    assert set(found["画"]) == {"映", "電", "good", "film"}


def test_nothing_is_near_in_a_vocabulary_without_words() -> None:
    assert near_words(build("bert"), tokenizer(PIECES[:5]), ["good"]) == {}
    assert near_words(build("bert"), tokenizer((*PIECES[:5], "good")), ["good"]) == {}


def test_the_words_asked_for_and_threads_make_no_difference(small: Any) -> None:
    model, _ = load_classifier(small.teachers["two"])
    pieces = tr.AutoTokenizer.from_pretrained(small.teachers["two"])
    every = near_words(model, pieces, ["film", "fine", "awful"])
    assert near_words(model, pieces, ["film"]) == {"film": every["film"]}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert near_words(model, pieces, ["film", "fine", "awful"]) == every
    finally:
        torch.set_num_threads(before)


def test_an_embedding_on_disk_is_read_back(small: Any) -> None:
    pieces = tr.AutoTokenizer.from_pretrained(small.teachers["two"])
    whole, _ = load_classifier(small.teachers["two"])
    parts, _ = load_classifier(small.teachers["two"], loading=TeacherLoading(device_map=PARTS))
    embedding: Any = parts.get_input_embeddings()
    assert embedding.weight.is_meta
    assert near_words(parts, pieces, ["film"]) == near_words(whole, pieces, ["film"])
