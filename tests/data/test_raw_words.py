"""Words of the raw text: those between white space, and characters where a script writes none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradistill.data.raw_words import (
    mask_tokens,
    substitute_words,
    token_word_ranges,
    unit_starts,
    word_spans,
    words_of,
)

WORDS: dict[str, list[str]] = {
    "a fine film, isn't it?": ["a", "fine", "film,", "isn't", "it?"],
    "这部电影很好。": ["这", "部", "电", "影", "很", "好", "。"],
    "靴が 小さい": ["靴", "が", "小", "さ", "い"],
    "iPhone手机很贵 ok": ["iPhone", "手", "机", "很", "贵", "ok"],
    "รู้ดี": ["รู้", "ดี"],  # vowels and tones stay with their consonant
    "ខ្មែរ": ["ខ្មែ", "រ"],  # and so does a consonant below another
    "น้ำ葛\U000e0100人々": ["น้ำ", "葛\U000e0100", "人々"],
    "ទៅ\u200bសាលា": ["ទៅ\u200b", "សា", "លា"],  # an invisible space between words
    "영화가 좋다": ["영화가", "좋다"],  # Korean has spaces
}


@pytest.mark.parametrize("text", WORDS)
def test_words_of_scripts_with_and_without_spaces(text: str) -> None:
    assert words_of((text,)) == WORDS[text]


@given(st.text(alphabet=st.sampled_from("ab. \t\n电影ぁดี្้ខ\u3099é\u200b"), max_size=30))
def test_words_hold_every_character_but_white_space_once(text: str) -> None:
    spans = word_spans(text)
    assert all(start < end for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())


def test_words_that_stand_in_for_characters_stay_words() -> None:
    """They became one long word, and took a brand beside them along."""
    texts, kept = ("映画でiPhone手機 x",), np.array([[False, False, False, True, False, False, True]])
    others = [["nice", "OK", "2", "-", "影", "bad", "-"]]
    assert substitute_words(texts, kept, others) == [("nice OK 2 iPhone影bad x",)]
    assert substitute_words(texts, np.ones((1, 7), bool), others) == [texts]


def test_a_word_of_chinese_can_be_replaced_and_has_its_token() -> None:
    """A text was one word, so no reaction to a changed word could be measured on it."""
    texts = ("电影好看", "fine")
    kept = np.array([[True, True, False, True, False]])
    assert substitute_words(texts, kept, [["坏"] * 5]) == [("电影坏看", "坏")]
    pieces = [(0, 0), (0, 1), (1, 2), (2, 4), (0, 0), (0, 4), (0, 0)]  # the third piece is of two characters
    ranges = token_word_ranges(texts, pieces, [None, 0, 0, 0, None, 1, None])
    assert ranges[:, 0].tolist() == [-1, 0, 1, 2, -1, 4, -1]


def test_a_token_of_several_characters_is_masked_with_any_of_them() -> None:
    """It counted to its first character, so nothing happened where the second one was masked."""
    texts, offsets = ("电影好 ok",), [(0, 0), (0, 2), (2, 3), (3, 6), (3, 4)]
    ranges = token_word_ranges(texts, offsets, [None, 0, 0, 0, 0])
    assert ranges.tolist() == [[-1, -1], [0, 1], [2, 2], [3, 3], [-1, -1]]
    kept = ~np.eye(4, dtype=bool)
    ids = mask_tokens(np.arange(5, 10), ranges, kept, 4).tolist()
    assert ids == [[5, 4, 7, 8, 9], [5, 4, 7, 8, 9], [5, 6, 4, 8, 9], [5, 6, 7, 4, 9]]


def test_units_are_what_no_tokenizer_splits() -> None:
    two, three = np.array([[-1, -1], [0, 1], [2, 2], [4, 4]]), np.array([[0, 0], [1, 1], [2, 3], [4, 4]])
    assert unit_starts(5, [two, three]).tolist() == [0, 2, 4]
    assert unit_starts(5, [two]).tolist() == [0, 2, 3, 4]
    assert unit_starts(0, [np.empty((0, 2), int)]).tolist() == []


def test_texts_without_words_have_tokens_of_none() -> None:
    assert token_word_ranges(("  ", ""), [(0, 1), (0, 0)], [0, 1]).tolist() == [[-1, -1]] * 2


@given(
    st.text(alphabet=st.sampled_from("ab 电影\u3099"), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))),
)
def test_ranges_hold_the_words_that_tokens_touch(text: str, ends: list[tuple[int, int]]) -> None:
    offsets = [(min(pair), min(max(pair), len(text))) for pair in ends if min(pair) <= len(text)]
    found = token_word_ranges((text,), offsets, [0] * len(offsets))
    for (start, end), (first, last) in zip(offsets, found.tolist(), strict=True):
        touched = [k for k, (begin, to) in enumerate(word_spans(text)) if max(start, begin) < min(end, to)]
        assert (first, last) == ((touched[0], touched[-1]) if touched else (-1, -1))
