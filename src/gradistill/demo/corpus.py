"""The demo corpus: short product reviews from a grammar, with marked words that decide the label.

Unlike real data it has the words that a model *should* use (``Review.rationale``), and those that it should not
(``Review.shortcut``). The label is the reviewer's own opinion of the product, one of three. The grammar uses every
opinion word with every label, so word counts do not solve the task. A model must read negation, contrast, and whose
opinion it is.

Each review names a weekday, which has no meaning for the product. In a *clean* split the day is independent of the
label. With a ``shortcut`` rate it agrees with the label in that share of reviews. In a *challenge* it always points to
another label. The weekdays thus occur in every split, and only their relation to the label changes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gradistill.demo.grammar import PRODUCTS, SHORTCUT_SENTENCES, Writer
from gradistill.errors import DataError, nearest
from gradistill.io import write_whole

LABELS = ("negative", "mixed", "positive")
SHORTCUT_WORDS = ("Tuesday", "Thursday", "Sunday")
SPLITS = ("train", "validation", "test")
LIMIT = 50_000
WORDS_PER_REVIEW = range(6, 29)
VALIDATION_SHARE = 5

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Review:
    """One review. ``label`` indexes ``LABELS``; the spans are ``(start, end)`` characters of ``text``."""

    text: str
    label: int
    rationale: Spans
    shortcut: Spans


@dataclass(frozen=True)
class Draft:
    """One review before its shortcut word is chosen, with its (aspect, opinion word) pairs, reported ones included."""

    markup: str
    pairs: tuple[tuple[str, str], ...]


def make_reviews(
    n: int, *, seed: int = 0, split: str = "train", shortcut: float | None = None, challenge: bool = False
) -> list[Review]:
    """``n`` distinct reviews of one split, the labels balanced to within one, the same on every machine.

    The splits share no review, whatever their seeds. No (aspect, opinion word) pair of ``test`` occurs in ``train``
    and ``validation``, although its aspect and its word do. ``shortcut`` is the share of reviews whose weekday agrees
    with the label; in a ``challenge`` none agrees. Neither changes the sentences or their order, so the variants of a
    split correspond row by row.
    """
    _check(n, split, shortcut, challenge)
    return _reviews(_drafts(n, seed, split), seed, split, 0.0 if challenge else shortcut)


def make_corpus(
    *, train: int = 3000, validation: int = 600, test: int = 600, seed: int = 0, shortcut_rate: float = 0.9
) -> dict[str, list[Review]]:
    """Six splits in three pairs of the same sentences: clean, and with the weekday as a shortcut.

    ``train_shortcut`` and ``validation_shortcut`` agree with the label at ``shortcut_rate``; ``challenge`` is
    ``test`` with a weekday that always points to another label.
    """
    corpus = {}
    for split, n, other, rate in (
        ("train", train, "train_shortcut", shortcut_rate),
        ("validation", validation, "validation_shortcut", shortcut_rate),
        ("test", test, "challenge", 0.0),
    ):
        _check(n, split, rate, challenge=False)
        drafts = _drafts(n, seed, split)
        corpus[split] = _reviews(drafts, seed, split, None)
        corpus[other] = _reviews(drafts, seed, split, rate)
    return corpus


def write_corpus(corpus: Mapping[str, Sequence[Review]], folder: str | Path) -> None:
    """Write ``<split>.jsonl`` for each split: an ordinary data folder, with the spans as two more columns.

    To train on the shortcut, write ``{"train": corpus["train_shortcut"], ...}`` into another folder.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file.", expected="a folder to write the corpus to")
    folder.mkdir(parents=True, exist_ok=True)
    for split, reviews in corpus.items():
        write_whole(folder / f"{split}.jsonl", _content(reviews))


def other_reviews(corpus: Mapping[str, Sequence[Review]], folder: Path) -> Path | None:
    """A file in ``folder`` whose reviews differ from those of ``corpus``, for example in size or seed; or None."""
    files = {folder / f"{split}.jsonl": reviews for split, reviews in corpus.items()}
    return next(
        (file for file, reviews in files.items() if file.exists() and file.read_bytes() != _content(reviews)),
        None,
    )


def _content(reviews: Sequence[Review]) -> bytes:
    return "".join(json.dumps(_row(review), ensure_ascii=False) + "\n" for review in reviews).encode()


def _check(n: int, split: str, shortcut: float | None, challenge: bool) -> None:
    if split not in SPLITS:
        raise DataError(f"{split!r} is no split of the demo corpus.", remedy=nearest(split, SPLITS))
    if not 1 <= n <= LIMIT:
        raise DataError(f"n is {n}.", expected=f"1 to {LIMIT} distinct reviews a split")
    if shortcut is not None and challenge:
        raise DataError(
            f"Both a shortcut rate ({shortcut}) and a challenge are set.",
            expected="one of them: in a challenge the shortcut never agrees with the label",
        )
    if shortcut is not None and not 0 <= shortcut <= 1:
        raise DataError(f"The shortcut rate is {shortcut}.", expected="a share of the reviews, 0 to 1")


def _drafts(n: int, seed: int, split: str) -> list[list[Draft]]:
    """The drafts of each label. A label has its own generator, so its share does not depend on the others'."""
    counts = [n // len(LABELS) + (label < n % len(LABELS)) for label in range(len(LABELS))]
    return [
        _distinct_drafts(Random(f"{seed}/{split}/{label}"), count, label, split)
        for label, count in enumerate(counts)
    ]


def _reviews(drafts: list[list[Draft]], seed: int, split: str, rate: float | None) -> list[Review]:
    reviews = []
    for label, of_label in enumerate(drafts):
        words = _shortcut_words(Random(f"{seed}/{split}/{label}/words"), len(of_label), label, rate)
        reviews += [_render(draft, word, label) for draft, word in zip(of_label, words, strict=True)]
    Random(f"{seed}/{split}/order").shuffle(reviews)
    return reviews


def _distinct_drafts(rng: Random, count: int, label: int, split: str) -> list[Draft]:
    drafts: dict[str, Draft] = {}
    while len(drafts) < count:
        draft = _compose(rng, label, unseen=split == "test")
        if len(draft.markup.split()) in WORDS_PER_REVIEW and _belongs(draft, split):
            drafts.setdefault(draft.markup, draft)
    return list(drafts.values())


def _compose(rng: Random, label: int, unseen: bool) -> Draft:
    """Draw one review of the label (0 negative, 1 mixed, 2 positive)."""
    writer = Writer(rng, rng.choice(list(PRODUCTS)), unseen)
    sentences = [writer.mixed() if label == 1 else writer.verdict(positive=label == 2)]
    if rng.random() < 0.4:
        sentences.insert(rng.randrange(2), writer.extra())
    shortcut = rng.choice(SHORTCUT_SENTENCES).format(p=writer.product)
    sentences.insert(rng.choice((0, len(sentences))), shortcut)
    text = ". ".join(sentences) + "."
    capitalised = re.sub(r"(?:^|(?<=\. ))(\[?)([a-z])", lambda m: m[1] + m[2].upper(), text)
    return Draft(capitalised, tuple(writer.pairs))


def _belongs(draft: Draft, split: str) -> bool:
    """Train and validation are separated by the sentence itself, so that no pair of seeds can mix them."""
    if split == "test":
        return True
    kept_for_validation = zlib.crc32(draft.markup.encode()) % VALIDATION_SHARE == 0
    return kept_for_validation is (split == "validation")


def _shortcut_words(rng: Random, count: int, label: int, rate: float | None) -> list[str]:
    """The weekdays of one label's reviews: at an exact rate; without a rate each day equally often."""
    others = [word for index, word in enumerate(SHORTCUT_WORDS) if index != label]
    if rate is None:
        words = [SHORTCUT_WORDS[(label + index) % len(SHORTCUT_WORDS)] for index in range(count)]
    else:
        agreeing = int(rate * count + 0.5)
        words = [SHORTCUT_WORDS[label]] * agreeing + [others[i % 2] for i in range(count - agreeing)]
    rng.shuffle(words)
    return words


def _render(draft: Draft, word: str, label: int) -> Review:
    """Insert the shortcut word, and convert the markup into character spans."""
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
