"""The demo corpus: short product reviews, shipped as a grammar, with the words that decide marked.

It answers offline what real data cannot: which words *should* a model decide by (``Review.rationale``), and
which must it not (``Review.shortcut``). Three labels tell the reviewer's own opinion of the product. The grammar
gives every opinion word to every label, so counting words does not solve it; reading negation, contrast and whose
opinion it is does.

Each review names a weekday, which says nothing about the product. In a *clean* split the day is independent of the
label; with a ``shortcut`` rate it agrees with the label that often; in a *challenge* it always points to another
label. The word itself is therefore known everywhere, and only what it stands for changes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gradistill.data.corpus_grammar import Draft, compose
from gradistill.errors import DataError, nearest

LABELS = ("negative", "mixed", "positive")
SHORTCUT_WORDS = ("Tuesday", "Thursday", "Sunday")
SPLITS = ("train", "validation", "test")
LIMIT = 50_000
WORDS_PER_REVIEW = range(6, 33)
VALIDATION_SHARE = 5

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Review:
    """One review. ``label`` indexes ``LABELS``; the spans are ``(start, end)`` characters of ``text``."""

    text: str
    label: int
    rationale: Spans
    shortcut: Spans


def make_reviews(
    n: int, *, seed: int = 0, split: str = "train", shortcut: float | None = None, challenge: bool = False
) -> list[Review]:
    """``n`` distinct reviews of one split, the labels balanced to within one, the same on every machine.

    The splits share no sentence, whatever their seeds. Every (aspect, opinion word) pair of ``test`` is one that
    ``train`` and ``validation`` never hold, though they hold the aspect and the word. Neither ``shortcut`` (the
    share of reviews whose weekday agrees with the label) nor ``challenge`` (no weekday does) changes the
    sentences or their order, so the variants of a split pair up row by row.
    """
    _check(n, split, shortcut, challenge)
    rate = 0.0 if challenge else shortcut
    reviews = []
    for label in range(len(LABELS)):
        count = n // len(LABELS) + (label < n % len(LABELS))
        drafts = _distinct_drafts(Random(f"{seed}/{split}/{label}"), count, label, split)
        words = _shortcut_words(Random(f"{seed}/{split}/{label}/words"), count, label, rate)
        reviews += [_render(draft, word, label) for draft, word in zip(drafts, words, strict=True)]
    Random(f"{seed}/{split}/order").shuffle(reviews)
    return reviews


def make_corpus(
    *, train: int = 3000, validation: int = 600, test: int = 600, seed: int = 0, shortcut_rate: float = 0.9
) -> dict[str, list[Review]]:
    """Six splits in three pairs of the same sentences: clean, and with the weekday speaking.

    ``train_shortcut`` and ``validation_shortcut`` agree with the label at ``shortcut_rate``; ``challenge`` is
    ``test`` with a weekday that always points to another label.
    """
    return {
        "train": make_reviews(train, seed=seed, split="train"),
        "train_shortcut": make_reviews(train, seed=seed, split="train", shortcut=shortcut_rate),
        "validation": make_reviews(validation, seed=seed, split="validation"),
        "validation_shortcut": make_reviews(
            validation, seed=seed, split="validation", shortcut=shortcut_rate
        ),
        "test": make_reviews(test, seed=seed, split="test"),
        "challenge": make_reviews(test, seed=seed, split="test", challenge=True),
    }


def write_corpus(corpus: Mapping[str, Sequence[Review]], folder: str | Path) -> None:
    """Write ``<split>.jsonl`` for each split: an ordinary data folder, with the spans as two more columns.

    To train on the shortcut, write ``{"train": corpus["train_shortcut"], ...}`` into a folder of its own.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file.", expected="a folder to write the corpus to")
    folder.mkdir(parents=True, exist_ok=True)
    for split, reviews in corpus.items():
        lines = (json.dumps(_row(review), ensure_ascii=False) + "\n" for review in reviews)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def _check(n: int, split: str, shortcut: float | None, challenge: bool) -> None:
    if split not in SPLITS:
        raise DataError(f"{split!r} is no split of the demo corpus.", remedy=nearest(split, SPLITS))
    if not 1 <= n <= LIMIT:
        raise DataError(f"{n} reviews were asked for.", expected=f"1 to {LIMIT} distinct reviews a split")
    if shortcut is not None and challenge:
        raise DataError(
            f"Both a shortcut rate ({shortcut}) and a challenge were asked for.",
            expected="one of them: in a challenge the shortcut never agrees with the label",
        )
    if shortcut is not None and not 0 <= shortcut <= 1:
        raise DataError(f"The shortcut rate is {shortcut}.", expected="a share of the reviews, 0 to 1")


def _distinct_drafts(rng: Random, count: int, label: int, split: str) -> list[Draft]:
    drafts: dict[str, Draft] = {}
    while len(drafts) < count:
        draft = compose(rng, label, unseen=split == "test")
        if len(draft.markup.split()) in WORDS_PER_REVIEW and _belongs(draft, split):
            drafts.setdefault(draft.markup, draft)
    return list(drafts.values())


def _belongs(draft: Draft, split: str) -> bool:
    """Train and validation are told apart by the sentence itself, so that no pair of seeds can mix them."""
    if split == "test":
        return True
    kept_for_validation = zlib.crc32(draft.markup.encode()) % VALIDATION_SHARE == 0
    return kept_for_validation is (split == "validation")


def _shortcut_words(rng: Random, count: int, label: int, rate: float | None) -> list[str]:
    """The weekdays of one label's reviews: at an exact rate, or without one each day equally often."""
    others = [word for index, word in enumerate(SHORTCUT_WORDS) if index != label]
    if rate is None:
        words = [SHORTCUT_WORDS[(label + index) % len(SHORTCUT_WORDS)] for index in range(count)]
    else:
        agreeing = int(rate * count + 0.5)
        words = [SHORTCUT_WORDS[label]] * agreeing + [others[i % 2] for i in range(count - agreeing)]
    rng.shuffle(words)
    return words


def _render(draft: Draft, word: str, label: int) -> Review:
    """Put the shortcut word in its place, and turn the marks into character spans."""
    text, opened = "", 0
    rationale: list[tuple[int, int]] = []
    shortcut: list[tuple[int, int]] = []
    for part in re.split(r"(\[|\]|<>)", draft.markup):
        if part == "[":
            opened = len(text)
        elif part == "]":
            rationale.append((opened, len(text)))
        elif part == "<>":
            shortcut.append((len(text), len(text) + len(word)))
            text += word
        else:
            text += part
    return Review(text, label, tuple(rationale), tuple(shortcut))


def _row(review: Review) -> dict[str, object]:
    return {
        "text": review.text,
        "label": LABELS[review.label],
        "rationale": review.rationale,
        "shortcut": review.shortcut,
    }
