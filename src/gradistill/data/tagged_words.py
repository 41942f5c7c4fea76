"""Rows of words as rows of token ids: words are split into sub-words, and the first one has the word's label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from gradistill.batch import UNLABELLED
from gradistill.data.cut import Cut
from gradistill.errors import RecipeError


def tagged_words(
    words: Sequence[list[str]],
    tags: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> tuple[dict[str, list[Any]], Cut]:
    """The columns of encoded rows of ``words``, and how much is cut.

    The first token of a word has the word's label, every other token −100. A row with an empty list of ``tags`` has
    −100 throughout. Words without a token are those cut off, and those of invisible characters. If a tokenizer cuts on
    the left and a word loses its first token, its other tokens belong to no word.
    """
    encoded = _tokenized(tokenizer, words, None)
    columns: dict[str, list[Any]] = {name: list(values) for name, values in encoded.items()}
    numbers = [_numbers(encoded, row) for row in range(len(words))]
    lengths = [len(ids) for ids in columns["input_ids"]]
    if long := [row for row, length in enumerate(lengths) if length > max_length]:
        cut = _tokenized(tokenizer, [words[row] for row in long], max_length)
        for place, row in enumerate(long):
            read, whole = _numbers(cut, place), numbers[row]
            cut_left = tokenizer.truncation_side == "left"
            numbers[row] = _without_partial_word(read, whole) if cut_left else read
            for name, values in cut.items():
                columns[name][row] = values[place]
    unread = sum(
        len(row) - len({*word_numbers} - {-1}) for row, word_numbers in zip(words, numbers, strict=True)
    )
    columns["word_ids"] = numbers
    columns["labels"] = [_labels(word_numbers, row) for word_numbers, row in zip(numbers, tags, strict=True)]
    return columns, Cut(max_length, len(long), len(words), max(lengths), unread)


def _tokenized(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[list[str]], max_length: int | None
) -> BatchEncoding:
    try:
        return tokenizer(
            list(words),
            is_split_into_words=True,
            truncation=max_length is not None,
            max_length=max_length,
            padding=False,
            return_attention_mask=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
    except AssertionError as error:  # a tokenizer of bytes that starts a text without a blank
        raise RecipeError(
            f"{type(tokenizer).__name__} cannot tokenize lists of words: {error}",
            expected="a tokenizer that puts a blank in front of each word",
            remedy="save it so: AutoTokenizer.from_pretrained(model, add_prefix_space=True).save_pretrained(model)",
        ) from None


def _numbers(encoded: BatchEncoding, row: int) -> list[int]:
    """The number of each token's word, −1 for special tokens."""
    return [-1 if number is None else number for number in encoded.word_ids(row)]


def _without_partial_word(numbers: list[int], whole: list[int]) -> list[int]:
    """The word numbers of a row that was cut on the left, −1 for tokens of a word that has lost its first token."""
    first = next((number for number in numbers if number >= 0), -1)
    if numbers.count(first) == whole.count(first):
        return numbers
    return [-1 if number == first else number for number in numbers]


def _labels(words: Sequence[int], tags: Sequence[int]) -> list[int]:
    first = [word >= 0 and word != before for word, before in zip(words, [-1, *words[:-1]], strict=True)]
    return [tags[w] if f and len(tags) else UNLABELLED for w, f in zip(words, first, strict=True)]
