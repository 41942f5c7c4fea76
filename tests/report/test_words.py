"""Words from pieces: naive expectations by hand, a real byte-level tokenizer, and any text there is."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from math import fsum, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gradistill.data.word_scores import JOINERS, words_from_pieces
from gradistill.errors import GradistillError
from gradistill.printing import percent, printable

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b\r\n\t\x00\x7f\x9b\u202e\u2066\u200d\u2028\ufeff[]/|`\\_é字😀\ud800 '"),
        st.characters(),
    )
)


def _texts(words) -> list[str]:
    return [word.text for word in words]


def test_word_pieces_are_glued_and_summed():
    text = "Unbelievable, don't!"
    offsets = [(0, 0), (0, 2), (2, 7), (7, 12), (12, 13), (14, 17), (17, 18), (18, 19), (19, 20), (0, 0)]
    scores = [9.0, 0.5, -0.25, 1.0, 0.1, 2.0, 3.0, 4.0, 5.0, 9.0]
    words = words_from_pieces(text, offsets, scores, [1, *[0] * 8, 1])
    assert _texts(words) == ["Unbelievable", ",", "don't", "!"]
    assert [word.score for word in words] == [1.25, 0.1, 9.0, 5.0]
    assert (words[0].start, words[0].end) == (0, 12)


def test_a_leading_space_is_not_part_of_the_word():
    # GPT-2 and RoBERTa with trim_offsets=False: the space belongs to the piece's offsets.
    words = words_from_pieces(
        "so very good", [(0, 2), (2, 7), (7, 10), (10, 12)], [1.0, 2.0, 3.0, 4.0], [0] * 4
    )
    assert [(w.text, w.start, w.end, w.score) for w in words] == [
        ("so", 0, 2, 1.0),
        ("very", 3, 7, 2.0),
        ("good", 8, 12, 7.0),
    ]


@pytest.mark.parametrize(
    ("pre_tokenizer", "units"),
    [
        (pre_tokenizers.BertPreTokenizer(), ["isn", "'", "t", "good", ",", "ok", "10", ".", "5"]),
        (pre_tokenizers.ByteLevel(add_prefix_space=False), ["isn", "'t", "good", ",", "ok", "10", ".", "5"]),
        (pre_tokenizers.Metaspace(), ["isn't", "good,ok", "10.5"]),
    ],
    ids=["bert", "byte-level", "sentencepiece"],
)
def test_word_ids_differ_between_tokenizers_where_words_do_not(pre_tokenizer, units):
    text = "isn't good,ok 10.5"
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizer
    encoding = PreTrainedTokenizerFast(tokenizer_object=tokenizer)(
        text, return_offsets_mapping=True, add_special_tokens=False
    )
    found: dict[int, list[tuple[int, int]]] = {}
    for word, place in zip(encoding.word_ids(), encoding["offset_mapping"], strict=True):
        found.setdefault(word, []).append(place)
    assert [text[places[0][0] : places[-1][1]].strip() for places in found.values()] == units
    ours = words_from_pieces(text, encoding["offset_mapping"], [1.0] * len(units), [0] * len(units))
    assert _texts(ours)[0] == "isn't"


def test_a_byte_level_tokenizer_of_the_library():
    tokenizer = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "ça va 😀 très_bien"
    encoding = tokenizer.encode(text)
    # One token a byte, so several tokens share the offset of one character.
    words = words_from_pieces(text, encoding.offsets, [1.0] * len(encoding.ids), [0] * len(encoding.ids))
    assert _texts(words) == ["ça", "va", "😀", "très_bien"]
    assert fsum(word.score for word in words) == len(text.encode())


def test_pieces_of_whitespace_score_for_the_word_after_them():
    words = words_from_pieces(
        " a  b ", [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)], [1.0, 2.0, 4.0, 8.0, 16.0], [0] * 5
    )
    assert [(word.text, word.score) for word in words] == [("a", 3.0), ("b", 28.0)]
    assert words_from_pieces("  ", [(0, 2)], [1.0], [0]) == []


def test_segments_of_a_pair_stay_apart():
    words = words_from_pieces(
        ("same", "same text"),
        [(0, 0), (0, 4), (0, 0), (0, 4), (5, 9), (0, 0)],
        [0.0, 1.0, 0.0, 2.0, 3.0, 0.0],
        [1, 0, 1, 0, 0, 1],
        sequence_ids=[None, 0, None, 1, 1, None],
    )
    assert [(w.text, w.segment, w.score) for w in words] == [
        ("same", 0, 1.0),
        ("same", 1, 2.0),
        ("text", 1, 3.0),
    ]


def test_scripts_without_spaces_keep_their_pieces_and_marks_keep_their_letters():
    assert _texts(words_from_pieces("猫が好き", [(k, k + 1) for k in range(4)], [1.0] * 4, [0] * 4)) == list(
        "猫が好き"
    )
    hindi = "हिन्दी"
    assert _texts(words_from_pieces(hindi, [(k, k + 1) for k in range(6)], [1.0] * 6, [0] * 6)) == [hindi]
    family = "👩\u200d👧"
    assert _texts(words_from_pieces(family, [(0, 1), (1, 2), (2, 3)], [1.0] * 3, [0] * 3)) == [family]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ab", [(0, 3)], [1.0], [0]), r"offset \(0, 3\) in a text of 2"),
        (("ab", [(2, 1)], [1.0], [0]), r"offset \(2, 1\)"),
        (("ab", [(0, 2)], [1.0, 2.0], [0]), "scores has 2 entries for 1 tokens"),
        (("ab", [(0, 2)], [1.0], []), "special has 0 entries"),
        (("ab", [(0, 2)], [inf], [0]), "score of token 0 is inf"),
        ((("a", "b"), [(0, 1)], [1.0], [0]), "has no sequence ids"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(GradistillError, match=message):
        words_from_pieces(*arguments)


@settings(max_examples=100)
@given(HOSTILE, st.data())
def test_no_score_is_lost_and_words_are_slices_in_order(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    offsets = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    scores = [float(k + 1) for k in range(len(offsets))]  # whole numbers: sums are exact
    words = words_from_pieces(text, offsets, scores, [0] * len(offsets))
    assert sum(word.score for word in words) == (sum(scores) if text.strip() else 0)
    assert all(word.text == text[word.start : word.end] != "" for word in words)
    assert all(a.end <= b.start for a, b in pairwise(words))


@settings(max_examples=100)
@given(HOSTILE)
def test_printable_holds_nothing_that_controls(text):
    shown = printable(text)
    shown.encode()  # no lone surrogate is left
    assert not {unicodedata.category(c) for c in shown if c not in JOINERS} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }


def test_printable_shows_what_it_replaced():
    assert printable("a\x1b[31m\r\u202eb é 字 😀") == "a\\x1b[31m\\r\\u202eb é 字 😀"


@pytest.mark.parametrize(
    "text", ["isn't", "isn\u2019t", "did n't", "'tis", "dogs'", "a'b'c", "rock 'n' roll", "5'6"]
)
def test_an_apostrophe_between_letters_is_inside_a_word(text: str) -> None:
    """Pieces of one character, as the most cautious tokenizer would cut."""
    offsets = [(k, k + 1) for k in range(len(text)) if text[k] != " "]
    words = words_from_pieces(text, offsets, [1.0] * len(offsets), [0] * len(offsets))
    wanted = {
        "isn't": ["isn't"], "isn\u2019t": ["isn\u2019t"], "did n't": ["did", "n't"], "'tis": ["'", "tis"],
        "dogs'": ["dogs", "'"], "a'b'c": ["a'b'c"], "rock 'n' roll": ["rock", "'", "n", "'", "roll"],
        "5'6": ["5", "'", "6"],
    }  # fmt: skip
    assert [word.text for word in words] == wanted[text]
    assert sum(word.score for word in words) == len(offsets)


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1.0, "100%"), (0.9975, "99.8%"), (0.9999, "over 99.9%"), (0.994, "99%"), (0.004, "0.4%"), (1e-5, "under 0.1%"),
     (0.0, "0%"), (0.5, "50%")],
)  # fmt: skip
def test_all_and_none_are_written_only_where_it_is_so(share: float, shown: str) -> None:
    assert percent(share) == shown
