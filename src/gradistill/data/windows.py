"""Texts longer than a model reads, in windows that overlap: which pieces they are, and what follows for the text.

A window is a piece of the raw text, from word to word, so whatever reads texts reads windows: objectives, changed
copies and exports know nothing of them. A text that fits is its own only window. A word with more tokens than a window
holds is divided.
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
"""Tokens that two windows share at most, unless a quarter of the length is less."""
TEXT = "text_place"
"""The column of encoded windows that holds the place of their text."""

_AT_ONCE = 1000


@dataclass(frozen=True)
class Windows:
    """How texts are read that have more tokens than the length: by ``pool`` of the probabilities (in a regression the
    scores) of windows that share up to ``overlap`` tokens.

    Example: ``Windows("mean", 32)``
    """

    pool: Pool
    overlap: int

    def as_dict(self) -> dict[str, Any]:
        """The form in ``metrics.json`` and ``export.json``."""
        return {"windows": self.pool, "window_overlap": self.overlap}

    @classmethod
    def of(cls, record: Any) -> Windows | None:
        """What ``as_dict`` wrote; None where there is nothing of it."""
        pool, overlap = (record.get(name) for name in ("windows", "window_overlap"))
        return cls(pool, overlap) if pool in ("mean", "max") and isinstance(overlap, int) else None


def spans_of_windows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, overlap: int
) -> list[list[tuple[int, int]]]:
    """Start and end of the windows of each text, in characters. ``max_length`` counts special tokens too.

    The next window starts at the first word of which no more than ``overlap`` tokens were read already.
    """
    found: list[list[tuple[int, int]]] = []
    for start in range(0, len(texts), _AT_ONCE):
        some = list(texts[start : start + _AT_ONCE])
        encoded = tokenized(tokenizer, [some], None, offsets=True)
        for row, text in enumerate(some):
            if len(encoded["input_ids"][row]) <= max_length:
                found.append([(0, len(text))])
                continue
            special: Any = encoded["special_tokens_mask"][row]
            places: Any = encoded["offset_mapping"][row]
            own = [place for place, of_none in zip(places, special, strict=True) if not of_none]
            room = max_length - sum(special)
            spans = _divided(text, own, room, overlap)
            # A piece may have more tokens than it had in its text, as its first word has no space before it.
            while room > 1 and (excess := _longest(text, spans, tokenizer) - max_length) > 0:
                room = max(1, room - excess)
                spans = _divided(text, own, room, min(overlap, room - 1))
            found.append(spans)
    return found


def _longest(text: str, spans: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> int:
    pieces = tokenized(tokenizer, [[text[start:end] for start, end in spans]], None)
    return max(len(ids) for ids in pieces["input_ids"])


def _divided(text: str, places: Sequence[tuple[int, int]], room: int, overlap: int) -> list[tuple[int, int]]:
    """The windows of a text whose tokens lie at ``places``, with ``room`` for so many: none that lies in the one before
    it, as those between a short overlap and a long word would, and none of blanks."""
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
    """The windows of a copy of one text; words that are masked in it are masked in them."""
    if len(spans) == 1:
        return [copy]
    (text,), found = copy.texts, []
    words = np.array(word_spans(text))
    for start, end in spans:
        inside = (words[:, 1] > start) & (words[:, 0] < end)
        found.append(Copy((text[start:end],), None if copy.kept is None else copy.kept[inside]))
    return found


def pooled(
    logits: np.ndarray, counts: Sequence[int], windows: Windows, *, multi_label: bool = False
) -> np.ndarray:
    """The logits ``(…, text, label)`` of texts from those of their windows, ``(…, window, label)``.

    One column is a score: its mean or maximum. Of classes they are the logarithms of the mean or maximal probability,
    the latter scaled to the sum 1; of several labels a row the log-odds of it. A text of one window keeps its logits.
    """
    if not len(counts):
        return logits
    ends = np.cumsum(counts)
    one = [
        part if part.shape[-2] == 1 else _pooled(part, windows.pool, multi_label)
        for part in np.split(logits, ends[:-1], axis=-2)
    ]
    return np.concatenate(one, axis=-2).astype(logits.dtype, copy=False)


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

    ``text_place`` holds the place of their text. The first window has the ``index`` of its row, and others have numbers
    behind those of all rows. A window has the label of its text.
    """
    (name,) = task.text_columns
    texts = rows[name][:]
    spans = spans_of_windows(texts, tokenizer, max_length, windows.overlap)
    places = [place for place, own in enumerate(spans) for _ in own]
    pieces = [texts[place][start:end] for place, own in enumerate(spans) for start, end in own]
    first = np.diff(places, prepend=-1) > 0
    numbers = np.array(rows["index"][:], dtype=np.int64)[places]
    numbers[~first] = numbers.max(initial=-1) + 1 + np.arange((~first).sum())
    columns = {name: pieces, "label": [rows["label"][place] for place in places], "index": numbers.tolist()}
    found = encode(as_dataset(pa.table(columns)), tokenizer, task, max_length=max_length, words=words)
    whole = tokenized(tokenizer, [[texts[k] for k, own in enumerate(spans) if len(own) > 1] or [""]], None)
    longest = max(found.longest, *(len(ids) for ids in whole["input_ids"]))
    dataset = found.dataset.add_column(TEXT, places)  # pyright: ignore[reportCallIssue]
    several = sum(len(own) > 1 for own in spans)
    return replace(found, dataset=dataset, longest=longest, windowed=several, texts=len(texts))


def window_counts(rows: Dataset) -> list[int] | None:
    """How many windows each text of encoded rows has; None where rows are texts."""
    if TEXT not in rows.column_names:
        return None
    return np.bincount(np.asarray(rows[TEXT][:])).tolist()


def text_labels(rows: Dataset) -> np.ndarray:
    """The label of each text of encoded rows."""
    labels, counts = np.asarray(rows["labels"][:]), window_counts(rows)
    return labels if counts is None else labels[np.cumsum([0, *counts[:-1]])]
