"""Transfer rows: changed copies of training rows, without labels, for which the teacher predicts.

Words are replaced by near ones or deleted. The two texts of a pair are swapped, or the second one comes from another
row. Replacing a share of the words follows Jiao et al. 2020 (TinyBERT, arXiv 1909.10351, algorithm 1), who draw near
words from a masked language model and from GloVe; here they are given (``models.word_neighbours.near_words``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Bool

from gradistill.data.arrow_tables import as_dataset
from gradistill.data.overlap import texts_of
from gradistill.data.raw_words import Texts, word_spans, words_of
from gradistill.data.tasks import Task

REPLACE = (0.1, 0.4)
"""Range of the rate at which words are replaced, drawn for each copy. TinyBERT's rate is 0.4."""
DELETE = 0.05
"""Rate at which words are deleted."""
SWAP = RE_PAIR = 0.1
"""Shares of a pair's copies whose texts are swapped, and whose second text comes from another row."""
TRIES = 8
"""Number of draws for a copy before it is left out."""

Near = Mapping[str, Sequence[str]]
"""The near words of a word. A word that is missing is not replaced."""

ROW, COPY, CHANGE = "row", "copy", "change"
"""Columns of a file in addition to a copy's texts: its row's number, its own number, and how it was changed."""
WORDS = "words"
"""The change of a copy whose single words are changed."""

_CHANGES = (WORDS, "swap", "re-pair")
_LEFT_OUT = ("unchanged", "empty", "duplicate")
_AT_ONCE = 1000
_CORE = re.compile(r"([\W_]*)(.*?)([\W_]*)", re.DOTALL)


@dataclass(frozen=True)
class TransferRows:
    """Copies of rows, without labels.

    ``sources``, ``copies`` and ``changes`` have one entry for each copy: its row's number, its own number from 1, and
    one of ``words``, ``swap`` and ``re-pair``. ``words`` counts words that are ``replaced`` and ``deleted``.
    ``left_out`` counts copies by reason: ``unchanged`` (no draw gave new texts of this row), ``empty`` (a text would
    have no letter or digit), ``duplicate`` (another row, or a copy of one, has these texts).
    """

    texts: pa.Table
    sources: Sequence[int]
    copies: Sequence[int]
    changes: Sequence[str]
    words: Mapping[str, int]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.sources)

    def texts_by_row(self, task: Task) -> Iterator[Texts]:
        """The texts of each copy."""
        for batch in self.texts.to_batches(_AT_ONCE):
            yield from zip(*(batch.column(name).to_pylist() for name in task.text_columns), strict=True)

    def rows(self, task: Task, first_index: int) -> Dataset:
        """The copies as rows of a prepared split, numbered from ``first_index``; the label is ``Task.no_label``."""
        count = len(self)
        kind = pa.float32() if task.labels is None else pa.int64()
        kind = pa.list_(pa.float32(), task.num_labels) if task.multi_label else kind
        labels = pa.array([task.no_label] * count, kind)
        columns = {name: self.texts[name] for name in task.text_columns}
        numbers = pa.array(range(first_index, first_index + count), pa.int64())
        return as_dataset(pa.table({**columns, "label": labels, "index": numbers}))

    def counts(self) -> dict[str, Any]:
        """The numbers of copies by change, of changed words, and of copies left out by reason."""
        by_change = Counter(self.changes)
        return {
            "rows": len(self),
            "changes": {name: by_change[name] for name in _CHANGES},
            "words": dict(self.words),
            "left_out": dict(self.left_out),
        }

    def describe(self, originals: int) -> str:
        """A sentence about the copies, for people."""
        changes = Counter(self.changes)
        parts = [
            f"{changes['words']:,} with changed words ({self.words['replaced']:,} words replaced, "
            f"{self.words['deleted']:,} deleted)",
            *([f"{changes['swap']:,} swapped"] if changes["swap"] else []),
            *([f"{changes['re-pair']:,} re-paired"] if changes["re-pair"] else []),
        ]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
        missing = f"{sum(self.left_out.values()):,} left out" + (f" ({reasons})" if reasons else "")
        return f"{len(self):,} changed copies of {originals:,} rows: {', '.join(parts)}; {missing}"


def replaceable_words(rows: Dataset, task: Task) -> set[str]:
    """The different words of rows, without the punctuation around them, for which near words are needed."""
    words: set[str] = set()
    for texts in texts_of(rows, task.text_columns):
        words.update(_parts(word)[1] for word in words_of(texts))
    return words - {""}


def transfer_rows(
    rows: Dataset,
    task: Task,
    near: Near,
    *,
    times: int,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> TransferRows:
    """Make ``times`` changed copies of each row, or fewer if they would be the same.

    A copy depends on ``seed``, its row's texts and number (``index``) and its own number. Other rows matter for two
    things: the second text of a re-paired copy, and which copies are duplicates. A copy that is a duplicate of a row is
    left out, and of two equal copies the one with the higher number. Texts are compared without letter case and white
    space.

    Parameters:
        ``rows``: rows of a prepared split.
        ``task``: the rows' task; with two text columns they are pairs.
        ``near``: the near words of ``replaceable_words(rows, task)``.
        ``times``: copies a row, 1 or more.
        ``seed``: the seed of all draws.
        ``on_progress``: called after each block of rows with its number of rows.

    Example: ``transfer_rows(rows, task, {"good": ("great", "fine")}, times=4).rows(task, first_index=len(rows))``
    """
    seconds = rows[task.text_columns[1]][:] if len(task.text_columns) == 2 else []
    blocks = [_Block().as_table(task)]
    originals: list[int] = []
    left_out = Counter[str]()
    for start in range(0, len(rows), _AT_ONCE):
        block_rows = rows.select(range(start, min(start + _AT_ONCE, len(rows))))
        block = _Block()
        for number, texts in zip(
            block_rows["index"][:], texts_of(block_rows, task.text_columns), strict=True
        ):
            originals.append(_mark(texts))
            block.add(int(number), _Source(texts, seconds, near), times, seed)
        blocks.append(block.as_table(task))
        left_out += block.left_out
        on_progress(len(block_rows))
    table = pa.concat_tables(blocks)
    new = _first_of_their_texts(table, originals)
    left_out["duplicate"] = len(new) - int(new.sum())
    kept = table.filter(pa.array(new))
    return TransferRows(
        pa.table({name: kept[f"text {name}"] for name in task.text_columns}),
        kept["source"].to_pylist(),
        kept["copy"].to_pylist(),
        kept["change"].to_pylist(),
        {name: int(kept[name].to_numpy().sum()) for name in ("replaced", "deleted")},
        {reason: left_out[reason] for reason in _LEFT_OUT},
    )


class _Copy(NamedTuple):
    """The texts of a copy, how they were changed, and how many words were replaced and deleted."""

    texts: Texts
    change: str
    replaced: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class _Source:
    """The texts of a row to be copied, the second texts of all rows if they are pairs, and near words."""

    texts: Texts
    seconds: Sequence[str]
    near: Near

    def new_copy(self, generator: np.random.Generator, known: set[int]) -> _Copy | str:
        """A copy whose hash is not in ``known``, or the reason why there is none."""
        reason = ""
        for _ in range(TRIES):
            copy = self._draw(generator)
            if not all(any(map(str.isalnum, text)) for text in copy.texts) and copy.change == "words":
                reason = "empty"
            elif _mark(copy.texts) in known:
                reason = "unchanged"
            else:
                return copy
        return reason

    def _draw(self, generator: np.random.Generator) -> _Copy:
        if self.seconds:
            kind, place = generator.random(2)
            first, second = self.texts
            if kind < SWAP:
                return _Copy((second, first), "swap")
            if kind < SWAP + RE_PAIR:
                return _Copy((first, self.seconds[int(place * len(self.seconds))]), "re-pair")
        rate = generator.uniform(*REPLACE)
        changed = [self._changed(text, rate, generator) for text in self.texts]
        texts, replaced, deleted = zip(*changed, strict=True)
        return _Copy(texts, "words", sum(replaced), sum(deleted))

    def _changed(self, text: str, rate: float, generator: np.random.Generator) -> tuple[str, int, int]:
        """A text with changed words, and how many are replaced and deleted. A deleted one takes the space before it."""
        pieces, done, replaced, deleted = [], 0, 0, 0
        spans = word_spans(text)
        draws = generator.random((len(spans), 2)).tolist()
        for (start, end), (change, choice) in zip(spans, draws, strict=True):
            if change < DELETE:
                deleted += 1
            elif change < DELETE + rate and (word := self._replaced(text[start:end], choice)):
                pieces += [text[done:start], word]
                replaced += 1
            else:
                pieces.append(text[done:end])
            done = end
        whole = "".join([*pieces, text[done:]])
        return whole.strip() if deleted else whole, replaced, deleted

    def _replaced(self, word: str, choice: float) -> str | None:
        """A near word with the punctuation and capitals of ``word``; None if ``word`` has no near word."""
        before, core, after = _parts(word)
        words = self.near.get(core)
        if not words:
            return None
        return f"{before}{_capitalised(words[int(choice * len(words))], core)}{after}"


@dataclass
class _Block:
    """Copies of some rows: the row's number, the copy's number, the hash of the texts, the copy."""

    made: list[tuple[int, int, int, _Copy]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, source: _Source, times: int, seed: int) -> None:
        known = {_mark(source.texts)}
        for copy in range(1, times + 1):
            made = source.new_copy(np.random.default_rng([seed, number, copy]), known)
            if isinstance(made, str):
                self.left_out[made] += 1
            else:
                mark = _mark(made.texts)
                known.add(mark)
                self.made.append((number, copy, mark, made))

    def as_table(self, task: Task) -> pa.Table:
        sources, numbers, marks, copies = zip(*self.made, strict=True) if self.made else ((), (), (), ())
        texts = {
            f"text {name}": pa.array([copy.texts[place] for copy in copies], pa.string())
            for place, name in enumerate(task.text_columns)
        }
        counts = {"source": sources, "copy": numbers}
        counts |= {name: [getattr(copy, name) for copy in copies] for name in ("replaced", "deleted")}
        return pa.table(
            texts
            | {name: pa.array(values, pa.int64()) for name, values in counts.items()}
            | {
                "mark": pa.array(marks, pa.uint64()),
                "change": pa.array([c.change for c in copies], pa.string()),
            }
        )


def _parts(word: str) -> tuple[str, str, str]:
    """The characters before the first letter or digit of a word, the word without them, and those after its last."""
    match = _CORE.fullmatch(word)
    assert match is not None  # it matches every text
    before, core, after = match.groups()
    return before, core, after


def _capitalised(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _mark(texts: Texts) -> int:
    """A hash of texts without regard to letter case and white space: 64 bits of BLAKE2b."""
    plain = "\x1f".join(" ".join(text.casefold().split()) for text in texts)  # \x1f is white space itself
    return int.from_bytes(blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _first_of_their_texts(table: pa.Table, originals: Sequence[int]) -> Bool[np.ndarray, " copy"]:
    """Which copies are new: no row has their texts, and no earlier copy has them.

    Copies are ordered by their numbers, and then by rows.
    """
    marks = table["mark"].to_numpy()
    order = np.argsort(table["copy"].to_numpy(), kind="stable")
    _, first = np.unique(marks[order], return_index=True)
    new = np.zeros(len(marks), dtype=bool)
    new[order[first]] = True
    return new & ~np.isin(marks, np.array(originals, np.uint64))
