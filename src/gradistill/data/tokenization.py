"""Rows of text as rows of token ids, unpadded and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Bool, Int
from transformers import BatchEncoding, PreTrainedTokenizerBase

from gradistill.data.arrow_tables import as_dataset
from gradistill.data.cut import Cut
from gradistill.data.prompt_template import template_of, tokenized_prompts
from gradistill.data.raw_words import count_words, row_texts, token_word_ranges, unit_starts
from gradistill.data.tagged_words import tagged_words
from gradistill.data.tasks import Task
from gradistill.errors import DataError, RecipeError

_AT_ONCE = 4000
"""Rows given to the tokenizer in one call: enough for its threads, and little memory."""
_NARROW = {name: pa.list_(pa.int32()) for name in ("input_ids", "word_ids")} | {
    name: pa.list_(pa.int8()) for name in ("attention_mask", "special_tokens_mask", "token_type_ids")
}
"""Arrow types of columns with small numbers."""


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: ``dataset`` holds token ids. ``truncated`` rows lost tokens.

    ``longest`` is the greatest length before truncation, in tokens. ``windowed`` of the ``texts`` take several rows
    (``data.windows``); without windows each text is a row.
    """

    dataset: Dataset
    truncated: int
    longest: int
    max_length: int = 128
    words_unread: int = 0
    windowed: int = 0
    texts: int | None = None

    @property
    def cut(self) -> Cut:
        """The same figures and the number of rows as a ``Cut``, which can be printed and added up."""
        rows = len(self.dataset) if self.texts is None else self.texts
        return Cut(self.max_length, self.truncated, rows, self.longest, self.words_unread, self.windowed)


def encode(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    max_length: int = 128,
    words: bool | PreTrainedTokenizerBase = False,
    keep_tokenless: bool = False,
) -> Encoded:
    """Token ids of every row of a prepared split, cut to ``max_length`` tokens.

    Parameters:
        ``rows``: one split of ``load_splits``.
        ``tokenizer``: a fast tokenizer of transformers.
        ``task``: the task of the rows, ``splits.task``.
        ``max_length``: the most tokens of a row, special ones included.
        ``words``: whether to add ``word_ids``, the number of each token's word in the raw text (−1 for none).
            Objectives on texts with replaced words need them. Without them every token but special ones counts as a
            word. If this is another tokenizer, they number units that neither tokenizer splits (``unit_starts``),
            mostly words; tokens of a unit that is cut off belong to none.
        ``keep_tokenless``: whether to keep rows of which the tokenizer makes no token, instead of refusing them.

    Returns the data set with ``input_ids``, ``attention_mask``, ``special_tokens_mask``, ``token_type_ids`` if the
    tokenizer makes them, ``labels``, ``index`` and ``length``, and how many texts were cut. A pair loses tokens from
    its longer text first. Where words have labels (``task.token_labels``) there are always ``word_ids``, and ``labels``
    is a list: the label of each word at its first token, −100 at all others.

    Raises RecipeError if ``max_length`` leaves no room for a token of the text, and DataError for no rows, and for
    rows of which the tokenizer makes no token.

    Example: ``rows = encode(splits.rows["train"], tokenizer, splits.task, max_length=128).dataset``
    """
    refuse_no_room(tokenizer, len(task.text_columns), max_length)
    if not len(rows):
        raise DataError(
            "There are no rows to split into tokens.",
            expected="one row or more",
            remedy="give a split with rows",
        )
    parts, blank, cut = list[pa.Table](), list[int](), Cut(max_length)
    for start in range(0, len(rows), _AT_ONCE):  # Arrow takes a tenth of the memory of lists
        piece = rows.select(range(start, min(start + _AT_ONCE, len(rows)))) if len(rows) > _AT_ONCE else rows
        if task.token_labels:
            columns, lost = tagged_words(
                piece[task.text_columns[0]][:], piece["label"][:], tokenizer, max_length
            )
        else:
            columns, lost = _tokens(piece, tokenizer, task, max_length)
            columns["labels"] = piece["label"][:]
            if words is True:
                columns["word_ids"] = _word_ids(piece, tokenizer, task, max_length)
            elif words:
                columns["word_ids"] = _unit_ids(piece, (tokenizer, words), task, max_length)
        blank += [start + k for k, mask in enumerate(columns["special_tokens_mask"]) if all(mask)]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        columns["index"] = piece["index"][:]
        parts.append(pa.table({name: pa.array(cells, _NARROW.get(name)) for name, cells in columns.items()}))
        cut += lost
    if blank and not keep_tokenless:
        raise _no_tokens(blank, rows, task)
    return Encoded(as_dataset(pa.concat_tables(parts)), cut.truncated, cut.longest, max_length, cut.words)


def _tokens(
    piece: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> tuple[dict[str, Any], Cut]:
    """The tokenizer's columns of some rows, and how much is cut."""
    texts = [piece[name][:] for name in task.text_columns]
    columns: dict[str, Any] = dict(tokenized(tokenizer, texts, None))
    lengths = [len(ids) for ids in columns["input_ids"]]
    if long := [row for row, length in enumerate(lengths) if length > max_length]:
        cut = tokenized(tokenizer, [[column[row] for row in long] for column in texts], max_length)
        for name, values in cut.items():
            for row, value in zip(long, values, strict=True):
                columns[name][row] = value
    columns.pop("offset_mapping", None)
    return columns, Cut(max_length, len(long), len(lengths), max(lengths))


def refuse_no_room(tokenizer: PreTrainedTokenizerBase, texts: int, max_length: int) -> None:
    """Raise RecipeError if ``max_length`` leaves no room for one token of each text of a row."""
    template = template_of(tokenizer)
    room = (
        tokenizer.num_special_tokens_to_add(pair=texts == 2)
        if template is None
        else template.tokens(tokenizer)
    )
    if max_length < room + texts:
        raise RecipeError(
            f"max_length {max_length} leaves no room for text: {room} tokens are special ones"
            f"{' or of the prompt' if template else ''}.",
            expected=f"at least {room + texts}",
            remedy="raise max_length (128 suits most tasks)",
        )


@dataclass(frozen=True)
class TokenPlaces:
    """The character offsets of each token of a row, special ones included, in the order of ``encode``.

    ``segments`` holds the number of each token's text, None for a token of no text.
    """

    offsets: list[tuple[int, int]]
    segments: list[int | None]


def token_places(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, *, max_length: int | None = 128
) -> list[TokenPlaces]:
    """The character offsets of the tokens of each row of a prepared split, cut as by ``encode``.

    With ``max_length`` None nothing is cut. Raises RecipeError for a tokenizer without offsets (not a fast one).
    """
    if not tokenizer.is_fast:
        raise RecipeError(
            f"{type(tokenizer).__name__} has no character offsets of its tokens",
            expected="a fast tokenizer",
            remedy="save the model with its tokenizer.json",
        )
    row_places = []
    for texts in _pieces(rows, task):
        encoded = tokenized(tokenizer, texts, max_length, offsets=True)
        every: Any = encoded["offset_mapping"]
        for row, offsets in enumerate(every):
            places = [(int(start), int(end)) for start, end in offsets]
            row_places.append(TokenPlaces(places, encoded.sequence_ids(row)))
    return row_places


def _word_ids(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int
) -> list[list[int]]:
    return [ranges[:, 0].tolist() for ranges in _word_ranges(rows, tokenizer, task, max_length)]


def _unit_ids(
    rows: Dataset, tokenizers: tuple[PreTrainedTokenizerBase, ...], task: Task, max_length: int
) -> list[list[int]]:
    """The unit of each token of the first tokenizer, −1 for none. No tokenizer splits a unit."""
    read = _word_ranges(rows, tokenizers[0], task, max_length)
    uncut = zip(*(_word_ranges(rows, tokenizer, task, None) for tokenizer in tokenizers), strict=True)
    unit_ids = []
    for texts, left, whole in zip(row_texts(rows, task), read, uncut, strict=True):
        words = count_words(texts)
        begins = np.bincount(unit_starts(words, whole), minlength=words)
        unit_of = np.append(np.cumsum(begins) - 1, -1)  # the last is that of word −1
        unit_ids.append(_without_cut_words(unit_of[left[:, 0]], unit_of[whole[0][:, 0]]).tolist())
    return unit_ids


def _word_ranges(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task, max_length: int | None
) -> list[Int[np.ndarray, "token 2"]]:
    """The words of each token (``token_word_ranges``)."""
    places = token_places(rows, tokenizer, task, max_length=max_length)
    return [
        token_word_ranges(texts, place.offsets, place.segments)
        for texts, place in zip(row_texts(rows, task), places, strict=True)
    ]


def _without_cut_words(
    words: Int[np.ndarray, " token"], before: Int[np.ndarray, " whole"]
) -> Int[np.ndarray, " token"]:
    """The words of a text's tokens, −1 for tokens of a word that had more tokens ``before`` truncation."""
    left, all_of_them = (
        np.bincount(numbers + 1, minlength=int(before.max()) + 2) for numbers in (words, before)
    )
    return np.where((left == all_of_them)[words + 1], words, -1)


def _pieces(rows: Dataset, task: Task) -> Iterator[list[list[str]]]:
    for start in range(0, len(rows), _AT_ONCE):
        piece = rows[start : start + _AT_ONCE]
        yield [piece[name] for name in task.text_columns]


def tokenized(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[list[str]],
    max_length: int | None,
    *,
    offsets: bool = False,
) -> BatchEncoding:
    """Token ids of one or two columns of ``texts``, unpadded, cut to ``max_length`` if it is given.

    With ``offsets`` also the character offsets of each token, which a fast tokenizer returns. If the tokenizer has a
    template (``prompt_template``), the texts are put into it.
    """
    if (template := template_of(tokenizer)) is not None:
        return tokenized_prompts(tokenizer, template, texts, max_length)
    return tokenizer(
        texts[0],
        text_pair=texts[1] if len(texts) == 2 else None,
        truncation="longest_first" if max_length is not None else False,
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=offsets,
        # Uncut texts may be longer than the model's limit; transformers would warn about that.
        verbose=False,
    )


@dataclass(frozen=True)
class TextLosses:
    """For each text or pair, whether it is ``cut``, and whether it is ``blank``: no token but special ones.

    ``longest`` is the greatest length before truncation, ``largest`` the largest token id.
    """

    cut: Bool[np.ndarray, " text"]
    blank: Bool[np.ndarray, " text"]
    longest: int
    largest: int


def text_losses(
    tokenizer: PreTrainedTokenizerBase, columns: Sequence[list[str]], max_length: int
) -> TextLosses:
    """The texts that a model with ``max_length`` tokens does not read in full, of one or two columns of texts.

    Example: ``text_losses(tokenizer, [["a fine film"]], 128).cut``
    """
    whole = tokenized(tokenizer, columns, None)
    lengths = np.array([len(ids) for ids in whole["input_ids"]])
    blank = np.array([all(mask) for mask in whole["special_tokens_mask"]])
    largest = max(max(ids, default=0) for ids in whole["input_ids"])
    return TextLosses(lengths > max_length, blank, int(lengths.max()), largest)


def _no_tokens(places: Sequence[int], rows: Dataset, task: Task) -> DataError:
    """The error for rows without a token of their own (such as invisible characters): nothing could be attributed."""
    row = rows[places[0]]
    texts = " | ".join(ascii(row[name]) for name in task.text_columns)
    return DataError(
        f"The tokenizer makes no token of {len(places)} rows; the first has index {row['index']}: {texts}",
        expected="texts with at least one visible character",
        remedy="remove these rows",
    )
