"""Watched words: where they stand in a text, whatever tokenizer reads it, and what falls on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gradistill.auditing.watched_words import unseen_words, watched_share, watched_spans
from gradistill.auditing.word_maps import TokenizedText
from gradistill.data.tokenization import TokenPlaces

FOUND: dict[tuple[str, str], list[str]] = {
    ("A fine Film, filmed finely", "film"): ["Film"],
    ("it isn't 'fine'", "isn"): [],
    ("it isn't 'fine'", "fine"): ["fine"],
    ("the well-known New  York", "new york"): ["New  York"],
    ("这部电影很好", "电影"): ["电影"],
    ("iPhone手机", "iphone"): ["iPhone"],
    ("ok电影ok", "电影"): ["电影"],
    ("手机iPhones", "iPhone"): [],
    ("(C++) is C", "c++"): ["C++"],
    ("करी", "कर"): [],  # a letter with its vowel is another one
    ("करी कर", "कर"): ["कर"],
    ("cafe\u0301 cafe", "cafe"): ["cafe"],
    ("e\u0301tat", "tat"): [],
    ("हिंदी", "दी"): [],
    ("हिंदी", "हिंदी"): ["हिंदी"],
    ("fun for fans! 3% of C++11", "!"): ["!"],
    ("fun for fans! 3% of C++11", "%"): ["%"],
    ("ok😀 I ❤️ it", "😀"): ["😀"],
    ("ok😀 I ❤️ it", "❤"): ["❤"],
    ("it isn’t so", "isn't"): ["isn’t"],
}


@pytest.mark.parametrize(("text", "word"), FOUND)
def test_watched_words_are_whole_words(text: str, word: str) -> None:
    (spans,) = watched_spans((text,), ["nowhere", word])
    assert [text[start:end] for start, end in spans] == FOUND[text, word]


def reading(
    texts: tuple[str, ...], offsets: Sequence[tuple[int, int]], segments: Sequence[int | None]
) -> TokenizedText:
    own = np.array([segment is not None for segment in segments])
    return TokenizedText(texts, TokenPlaces(list(offsets), list(segments)), own)


def test_the_share_is_that_of_tokens_on_watched_words() -> None:
    """A Chinese word of two characters was never found: each character was compared with it alone."""
    read = reading(
        ("电影好", "the 电影"), [(0, 0), (0, 1), (1, 3), (0, 0), (0, 3), (4, 6)], [None, 0, 0, None, 1, 1]
    )
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    assert watched_share(read, scores, ["电影"]) == pytest.approx((1 + 2 / 2 + 4) / 10)  # half of 影好
    assert watched_share(read, scores, ["THE", "好"]) == pytest.approx((2 / 2 + 3) / 10)
    assert np.isnan(watched_share(read, scores, ["film"]))
    assert np.isnan(watched_share(read, scores, []))


def test_words_that_no_text_has_are_named() -> None:
    texts = [("a fine film", "电影"), ("Film",)]
    assert unseen_words(texts, ["film", "fin", "电影", "電影"]) == ["fin", "電影"]
