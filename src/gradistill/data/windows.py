"""Overlapping windows of texts that are too long for a model, and a text's logits from those of its windows.

A window is a piece of the raw text, from word to word. So objectives, changed copies and exports need no code for
windows: they read them as texts. A text that fits is a single window. A word with more tokens than a window is divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset
from scipy.special import log_softmax, logsumexp
from transformers import PreTrainedTokenizerBase

from gradistill.data.arrow_tables import as_dataset
from gradistill.data.changed_copies import Copy
from gradistill.data.raw_words import word_spans
from gradistill.data.tasks import Task
from gradistill.data.tokenization import Encoded, encode, tokenized

Pool = Literal["mean", "max"]

OVERLAP = 64
"""The most tokens that two windows share, unless a quarter of the length is less."""
TEXT = "text_place"
"""The column of encoded windows that holds the number of their text."""

_AT_ONCE = 1000


@dataclass(frozen=True)
class Windows:
    """How texts with more tokens than the length are read: in windows that share up to ``overlap`` tokens.

    ``pool`` combines the probabilities (in a regression the scores) of the windows.

    Example: ``Windows("mean", 32)``
    """

    pool: Pool
    overlap: int

    def as_dict(self) -> dict[str, Any]:
        """The entries of ``metrics.json`` and ``export.json``."""
        return {"windows": self.pool, "window_overlap": self.overlap}

    @classmethod
    def of(cls, record: Any) -> Windows | None:
        """The windows that ``as_dict`` wrote into a record; None if there are none."""
        pool, overlap = (record.get(name) for name in ("windows", "window_overlap"))
        return cls(pool, overlap) if pool in ("mean", "max") and isinstance(overlap, int) else None


def spans_of_windows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, overlap: int
) -> list[list[tuple[int, int]]]:
    """Start and end of the windows of each text, in characters. ``max_length`` counts special tokens too.

    A window starts at the first word from which it shares at most ``overlap`` tokens with the window before.
    """
    all_spans: list[list[tuple[int, int]]] = []
    for start in range(0, len(texts), _AT_ONCE):
        part = list(texts[start : start + _AT_ONCE])
        encoded = tokenized(tokenizer, [part], None, offsets=True)
        for row, text in enumerate(part):
            if len(encoded["input_ids"][row]) <= max_length:
                all_spans.append([(0, len(text))])
                continue
            special: Any = encoded["special_tokens_mask"][row]
            places: Any = encoded["offset_mapping"][row]
            offsets = [place for place, of_none in zip(places, special, strict=True) if not of_none]
            room = max_length - sum(special)
            spans = _divided(text, offsets, room, overlap)
            # A piece may have more tokens than it had in its text, as its first word has no space before it.
            while room > 1 and (excess := _longest(text, spans, tokenizer) - max_length) > 0:
                room = max(1, room - excess)
                spans = _divided(text, offsets, room, min(overlap, room - 1))
            all_spans.append(spans)
    return all_spans


def _longest(text: str, spans: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> int:
    pieces = tokenized(tokenizer, [[text[start:end] for start, end in spans]], None)
    return max(len(ids) for ids in pieces["input_ids"])


def _divided(text: str, places: Sequence[tuple[int, int]], room: int, overlap: int) -> list[tuple[int, int]]:
    """The windows of a text whose tokens have the offsets ``places``, each with at most ``room`` tokens.

    Windows of blanks are left out. So are windows that lie within the one before, as a short overlap and a long word
    would make.
    """
    starts = np.array([start for start, _ in word_spans(text)])
    word = np.searchsorted(starts, [max(start, end - 1) for start, end in places], side="right")
    begins = np.flatnonzero(np.diff(word, prepend=-1) > 0)  # tokens that begin a word
    spans, first, read, count = [], 0, 0, len(places)
    while True:
        last = min(first + room, count)
        if last < count and len(inside := begins[(begins > first) & (begins <= last)]):
            last = int(inside[-1])
        start, end = places[first][0], places[last - 1][1]
        if last > read and text[start:end].strip():
            spans.append((start, end))
        if last == count:
            return spans or [(start, end)]
        read = max(read, last)
        least = max(last - overlap, first + 1)
        later = begins[(begins >= least) & (begins <= last)]
        first = int(later[0]) if len(later) else least


def window_copies(copy: Copy, spans: Sequence[tuple[int, int]]) -> list[Copy]:
    """The windows of a copy of one text. Words that are masked in the copy are masked in the windows."""
    if len(spans) == 1:
        return [copy]
    (text,), copies = copy.texts, []
    words = np.array(word_spans(text))
    for start, end in spans:
        inside = (words[:, 1] > start) & (words[:, 0] < end)
        copies.append(Copy((text[start:end],), None if copy.kept is None else copy.kept[inside]))
    return copies


def pooled(
    logits: np.ndarray, counts: Sequence[int], windows: Windows, *, multi_label: bool = False
) -> np.ndarray:
    """The logits ``(…, text, label)`` of texts from those of their windows, ``(…, window, label)``.

    One column is a score: the result is its mean or maximum. For classes it is the logarithm of the mean or maximal
    probability, the latter scaled to the sum 1; for several labels a row, the log-odds of that probability. A text with
    one window keeps its logits.
    """
    if not len(counts):
        return logits
    ends = np.cumsum(counts)
    parts = [
        part if part.shape[-2] == 1 else _pooled(part, windows.pool, multi_label)
        for part in np.split(logits, ends[:-1], axis=-2)
    ]
    return np.concatenate(parts, axis=-2).astype(logits.dtype, copy=False)


def _pooled(logits: np.ndarray, pool: Pool, multi_label: bool) -> np.ndarray:
    if pool == "max" and (multi_label or logits.shape[-1] == 1):
        return logits.max(-2, keepdims=True)
    if logits.shape[-1] == 1 and not multi_label:
        return logits.mean(-2, keepdims=True)
    wide = logits.astype(np.float64)
    if multi_label:  # the mean's odds: the sums of both probabilities have one divisor
        yes, no = (np.asarray(logsumexp(-np.logaddexp(0, s * wide), axis=-2, keepdims=True)) for s in (-1, 1))
        return yes - no
    logarithms = log_softmax(wide, axis=-1)
    if pool == "mean":
        return logsumexp(logarithms, axis=-2, keepdims=True) - np.log(logits.shape[-2])
    return log_softmax(logarithms.max(-2, keepdims=True), axis=-1)


def encode_windows(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    windows: Windows,
    *,
    max_length: int,
    words: bool = False,
) -> Encoded:
    """``encode`` with a row for each window of a text, in the order of the texts.

    ``text_place`` holds the number of the window's text. The first window of a text has the ``index`` of its row; other
    windows have numbers after those of all rows. A window has the label of its text.
    """
    (name,) = task.text_columns
    texts = rows[name][:]
    spans = spans_of_windows(texts, tokenizer, max_length, windows.overlap)
    places = [place for place, text_spans in enumerate(spans) for _ in text_spans]
    pieces = [texts[place][start:end] for place, text_spans in enumerate(spans) for start, end in text_spans]
    first = np.diff(places, prepend=-1) > 0
    numbers = np.array(rows["index"][:], dtype=np.int64)[places]
    numbers[~first] = numbers.max(initial=-1) + 1 + np.arange((~first).sum())
    columns = {name: pieces, "label": [rows["label"][place] for place in places], "index": numbers.tolist()}
    encoded = encode(as_dataset(pa.table(columns)), tokenizer, task, max_length=max_length, words=words)
    whole = tokenized(
        tokenizer, [[texts[k] for k, text_spans in enumerate(spans) if len(text_spans) > 1] or [""]], None
    )
    longest = max(encoded.longest, *(len(ids) for ids in whole["input_ids"]))
    dataset = encoded.dataset.add_column(TEXT, places)  # pyright: ignore[reportCallIssue]
    several = sum(len(text_spans) > 1 for text_spans in spans)
    return replace(encoded, dataset=dataset, longest=longest, windowed=several, texts=len(texts))


def window_counts(rows: Dataset) -> list[int] | None:
    """The number of windows of each text of encoded rows; None if each row is a text."""
    if TEXT not in rows.column_names:
        return None
    return np.bincount(np.asarray(rows[TEXT][:])).tolist()


def text_labels(rows: Dataset) -> np.ndarray:
    """The label of each text of encoded rows."""
    labels, counts = np.asarray(rows["labels"][:]), window_counts(rows)
    return labels if counts is None else labels[np.cumsum([0, *counts[:-1]])]
