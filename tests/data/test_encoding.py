"""Token ids and padded batches, with a small tokenizer made here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from byte_level import byte_level
from gradistill.batch import Batch
from gradistill.data import Collator, encode
from gradistill.data.collator import mask_token_id_of
from gradistill.data.tasks import Task
from gradistill.errors import DataError, ModelError, RecipeError
from wordpiece import tokenizer as wordpiece

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
ONE = Task("one", ("text",), ("x", "y"), ("accuracy",), "accuracy")
TWO = Task("two", ("text", "other"), None, ("spearman",), "spearman")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def rows_of(labels: list, **texts: list[str]) -> Dataset:
    return Dataset.from_dict({**texts, "label": labels, "index": list(range(len(labels)))})


def test_no_rows_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="no rows to split into tokens"):
        encode(rows_of([], text=[]), tokenizer, ONE)


def test_tokens_of_several_characters_share_units_with_another_tokenizer() -> None:
    """The score of such a token went to its first character, so that maps of two tokenizers did not fit each other."""
    text = "すごくいい映画です ok"
    special, parts = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), [*dict.fromkeys(text)]
    joined, single = (
        wordpiece((*special, *more, "ok", *parts, *(f"##{part}" for part in parts)), lowercase=False)
        for more in (("すごく", "##いい", "です"), ())
    )
    rows = rows_of([0], text=[text])

    def units(own: Any, other: Any, length: int = 64) -> list[int]:
        return encode(rows, own, ONE, max_length=length, words=other).dataset["word_ids"][0]

    assert units(joined, single) == [-1, 0, 1, 2, 3, 4, 5, -1]
    assert units(single, joined) == [-1, 0, 0, 0, 1, 1, 2, 3, 4, 4, 5, -1]
    assert units(joined, joined) == [-1, 0, 1, 2, 3, 4, 5, -1]
    assert units(single, single) == [-1, *range(10), -1]
    assert units(single, joined, 6) == [-1, 0, 0, 0, -1, -1]  # of the second unit a half is left
    assert units(single, joined, 10) == [-1, 0, 0, 0, 1, 1, 2, 3, -1, -1]
    assert encode(rows, joined, ONE, words=True).dataset["word_ids"][0] == [-1, 0, 3, 5, 6, 7, 9, -1]


@pytest.mark.parametrize("words", [False, True, "units"])
def test_pieces_are_the_whole(
    words: Any, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = byte_level() if words == "units" else words
    rows = rows_of([1.5, 2, 0, 4, 3], text=["a b", "c zebra e", "f", "g h a b", "c"], other=["d"] * 5)
    whole = encode(rows, tokenizer, TWO, max_length=6, words=words)
    monkeypatch.setattr("gradistill.data.tokenization._AT_ONCE", 2)
    pieces = encode(rows, tokenizer, TWO, max_length=6, words=words)
    assert pieces.cut == whole.cut
    assert pieces.dataset.features == whole.dataset.features
    assert pieces.dataset[:] == whole.dataset[:]
    bare = rows_of([0, 0, 0], text=["a", "b", "\u200b"])
    with pytest.raises(DataError, match=r"no token of 1 rows; the first has index 2: '.u200b'"):
        encode(bare, tokenizer, ONE)


def test_one_text(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(rows_of([1, 0], text=["a b", "c zebra e"]), tokenizer, ONE)
    assert (encoded.truncated, encoded.longest) == (0, 5)
    data = encoded.dataset
    assert data["input_ids"][:] == [[2, 4, 5, 3], [2, 6, 1, 8, 3]]
    assert data["attention_mask"][:] == [[1] * 4, [1] * 5]
    # A word that is not known is still a word of the text.
    assert data["special_tokens_mask"][:] == [[1, 0, 0, 1], [1, 0, 0, 0, 1]]
    assert (data["labels"][:], data["index"][:], data["length"][:]) == ([1, 0], [0, 1], [4, 5])
    assert data.cache_files == []


def test_a_pair_loses_tokens_from_its_longer_text(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of([0.5, 4.5], text=["a b c d e", "a"], other=["f g", "b"])
    encoded = encode(rows, tokenizer, TWO, max_length=7)
    assert (encoded.truncated, encoded.longest) == (1, 10)
    assert encoded.dataset["input_ids"][:] == [[2, 4, 5, 3, 9, 10, 3], [2, 4, 3, 5, 3]]
    assert encoded.dataset["token_type_ids"][:] == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert encoded.dataset["special_tokens_mask"][0] == [1, 0, 0, 1, 0, 0, 1]
    assert encoded.dataset["labels"][:] == [0.5, 4.5]


def test_many_rows_keep_their_order(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [" ".join("abcdefgh"[: 1 + i % 8]) for i in range(2345)]
    encoded = encode(rows_of([0] * 2345, text=texts), tokenizer, ONE, max_length=6)
    assert encoded.dataset["length"][:] == [min(6, 3 + i % 8) for i in range(2345)]
    assert encoded.truncated == sum(3 + i % 8 > 6 for i in range(2345))


def test_nothing_is_written(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(rows_of([0], text=["a"]), tokenizer, ONE)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_text(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        RecipeError, match=r"max_length 4 leaves no room for text: 3 tokens are special(.|\n)*at least 5"
    ):
        encode(rows_of([0.5], text=["a"], other=["b"]), tokenizer, TWO, max_length=4)


def test_a_text_without_tokens_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"no token of 1 rows; the first has index 1: '\\u200b'"):
        encode(rows_of([0, 1], text=["a", "\u200b"]), tokenizer, ONE)


@pytest.mark.parametrize(
    ("own_side", "ends_with_cls", "ids"),
    [
        ("right", False, [2, 4, 3, 0, 0]),
        ("left", False, [2, 4, 3, 0, 0]),
        ("right", True, [4, 3, 2, 0, 0]),
        ("left", True, [0, 0, 4, 3, 2]),
    ],
)
def test_padding_is_on_the_right_unless_texts_end_with_cls(
    tokenizer: PreTrainedTokenizerFast, own_side: str, ends_with_cls: bool, ids: list[int]
) -> None:
    tokenizer.padding_side = own_side
    if ends_with_cls:  # as XLNet has it
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A [SEP] [CLS]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    data = encode(rows_of([1, 0], text=["a", "b c d"]), tokenizer, ONE).dataset
    batch = Collator(tokenizer)([data[0], data[1]])
    assert batch["input_ids"].tolist() == [ids, [5, 6, 7, 3, 2] if ends_with_cls else [2, 5, 6, 7, 3]]
    real = [1 if i else 0 for i in ids]
    assert batch["attention_mask"][0].tolist() == real
    assert batch["special_tokens_mask"][0].tolist() == [0 if i == 4 else 1 for i in ids]
    assert batch["token_type_ids"].tolist() == [[0] * 5, [0] * 5]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["index"].tolist() == [0, 1]
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_padding_is_what_the_tokenizer_does(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of([0.5, 1.5], text=["a b c d", "e"], other=["f", "g h"])
    batch = Collator(tokenizer)(list(encode(rows, tokenizer, TWO).dataset))
    want = tokenizer(
        rows["text"][:], rows["other"][:], padding=True, return_tensors="pt", return_special_tokens_mask=True
    )
    for name in ("input_ids", "attention_mask", "token_type_ids", "special_tokens_mask"):
        assert torch.equal(batch[name], want[name])


def test_scores_are_float32_and_a_batch_can_be_made(tokenizer: PreTrainedTokenizerFast) -> None:
    data = encode(rows_of([0.5], text=["a"], other=["b"]), tokenizer, TWO).dataset
    collated = Collator(tokenizer)([data[0]])
    assert collated["labels"].dtype == torch.float32
    batch = Batch.of(collated)
    assert set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}


@pytest.mark.parametrize(
    ("multiple", "fixed", "width"), [(None, None, 4), (8, None, 8), (None, 10, 10), (8, 10, 16), (4, None, 4)]
)
def test_widths(
    tokenizer: PreTrainedTokenizerFast, multiple: int | None, fixed: int | None, width: int
) -> None:
    data = encode(rows_of([1], text=["a b"]), tokenizer, ONE).dataset
    batch = Collator(tokenizer, pad_to_multiple_of=multiple, pad_to=fixed)([data[0]])
    assert batch["input_ids"].shape == (1, width)


@pytest.mark.parametrize(
    ("tokens", "erased"),
    [
        ({}, "<mask>"),
        ({"mask_token": None}, "<unk>"),
        ({"mask_token": None, "unk_token": None}, "Ġ"),
        ({"mask_token": None, "unk_token": "<pad>"}, "Ġ"),
        ({"mask_token": None, "unk_token": "</s>"}, "Ġ"),
    ],
    ids=["mask", "unknown", "blank", "unknown is padding", "unknown is the end"],
)
def test_an_erased_word_is_no_padding(tokens: dict[str, Any], erased: str) -> None:
    """Heads of decoders pass over padding: with the last word erased they read another place of the text."""
    tokenizer = byte_level()
    for role, token in tokens.items():
        setattr(tokenizer, role, token)
    wanted = tokenizer.convert_tokens_to_ids(erased)
    assert (
        Collator(tokenizer).mask_token_id == mask_token_id_of(SimpleNamespace(tokenizer=tokenizer)) == wanted
    )
    assert wanted != tokenizer.pad_token_id


def test_what_is_no_tokenizer_has_padding_for_an_erased_word() -> None:
    """A user's own collator may call a function its tokenizer."""

    def odd(text: str, images: object = None) -> None: ...

    assert mask_token_id_of(SimpleNamespace(tokenizer=odd)) is None
    odd.pad_token_id = 7  # pyright: ignore[reportFunctionMemberAccess]
    assert mask_token_id_of(SimpleNamespace(tokenizer=odd)) == 7
    inner = Tokenizer(models.Unigram([("a", -1.0), ("<pad>", -2.0)], unk_id=None))
    pieces = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")
    assert Collator(pieces).mask_token_id == pieces.pad_token_id


def test_a_row_longer_than_the_fixed_width(tokenizer: PreTrainedTokenizerFast) -> None:
    data = encode(rows_of([1], text=["a b"]), tokenizer, ONE).dataset
    with pytest.raises(DataError, match="4 tokens, but batches are padded to 3"):
        Collator(tokenizer, pad_to=3)([data[0]])


def test_a_tokenizer_without_a_pad_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match=r"no pad token(.|\n)*tokenizer.pad_token ="):
        Collator(tokenizer)
