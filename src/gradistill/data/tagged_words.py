"""Rows of words as rows of token ids: the words split into sub-words, a word's label at the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

from gradistill.batch import UNLABELLED
from gradistill.errors import RecipeError


@dataclass
class TaggedWords:
    """The columns of encoded rows of words, filled piece by piece with ``add``; how many rows were cut.

    ``words_unread`` counts the words that no token stands for: those cut off, and those of invisible characters.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    columns: dict[str, list[Any]] = field(default_factory=dict)
    truncated: int = 0
    longest: int = 0
    words_unread: int = 0

    def add(self, words: Sequence[list[str]], tags: Sequence[Sequence[int]]) -> None:
        """Rows of ``words``; no ``tags`` at all are those of a row that has none. Every other token, and every one of a
        row without tags, has the label −100."""
        encoded = self._tokenized(words, None)
        whole: dict[str, list[Any]] = {name: list(values) for name, values in encoded.items()}
        numbers = [_numbers(encoded, row) for row in range(len(words))]
        lengths = [len(ids) for ids in whole["input_ids"]]
        if long := [row for row, length in enumerate(lengths) if length > self.max_length]:
            cut = self._tokenized([words[row] for row in long], self.max_length)
            for place, row in enumerate(long):
                numbers[row] = _numbers(cut, place)
                for name, values in cut.items():
                    whole[name][row] = values[place]
        self.truncated += len(long)
        self.longest = max(self.longest, *lengths)
        self.words_unread += sum(len(row) - len({*of} - {-1}) for row, of in zip(words, numbers, strict=True))
        whole["word_ids"] = numbers
        whole["labels"] = [_labels(of, row) for of, row in zip(numbers, tags, strict=True)]
        for name, values in whole.items():
            self.columns.setdefault(name, []).extend(values)

    def _tokenized(self, words: Sequence[list[str]], max_length: int | None) -> BatchEncoding:
        try:
            return self.tokenizer(
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
                f"{type(self.tokenizer).__name__} cannot split words apart: {error}",
                expected="a tokenizer that puts a blank in front of each word",
                remedy="save it so: AutoTokenizer.from_pretrained(model, add_prefix_space=True).save_pretrained(model)",
            ) from None


def _numbers(encoded: BatchEncoding, row: int) -> list[int]:
    """The number of each token's word, −1 for special tokens."""
    return [-1 if number is None else number for number in encoded.word_ids(row)]


def _labels(words: Sequence[int], tags: Sequence[int]) -> list[int]:
    first = [word >= 0 and word != before for word, before in zip(words, [-1, *words[:-1]], strict=True)]
    return [tags[w] if f and len(tags) else UNLABELLED for w, f in zip(words, first, strict=True)]
