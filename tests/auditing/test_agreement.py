"""Agreement and plausibility of maps against naive loops and libraries of others."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from gradistill.auditing.map_agreement import map_agreement
from gradistill.auditing.plausibility import marked_tokens, plausibility
from gradistill.auditing.signed_agreement import signed_columns
from gradistill.data.tokenization import TokenPlaces

GENERATOR = np.random.default_rng(0)


def kendall_by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """τ-b from its definition: concordant minus discordant pairs over those that are tied in neither."""
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    untied = [sum(1 for pair in signs if pair[k]) for k in (0, 1)]
    return sum(x * y for x, y in signs) / np.sqrt(untied[0] * untied[1])


@pytest.mark.parametrize("length", [4, 5, 13, 40])
def test_each_figure_is_its_definition(length: int) -> None:
    for _ in range(5):
        a, b = GENERATOR.random((2, length)).round(1)  # rounded, so that some are tied
        found = map_agreement([a], [b])
        k = ceil(length / 5)
        tops = [{place for place, _ in sorted(enumerate(m), key=lambda e: (-e[1], e[0]))[:k]} for m in (a, b)]
        assert found["top_k_overlap"][0] == pytest.approx(len(tops[0] & tops[1]) / k)
        assert found["cosine"][0] == pytest.approx(1 - cosine_distance(a, b))
        assert found["kendall_tau"][0] == pytest.approx(kendall_by_pairs(a, b))
        result: Any = spearmanr(a, b)
        assert found["saliency"][0] == pytest.approx(result.statistic)


def test_identical_maps_agree_wholly() -> None:
    maps = [GENERATOR.random(n) for n in (4, 9, 30)]
    for name, values in map_agreement(maps, maps).items():
        np.testing.assert_allclose(values, 1.0, err_msg=name)


def test_short_texts_are_left_out_and_constant_maps_order_nothing() -> None:
    found = map_agreement(
        [np.arange(3.0), np.ones(6), np.zeros(6)], [np.arange(3.0), np.arange(6.0), np.zeros(6)]
    )
    for values in found.values():
        assert np.isnan(values[0])
    assert found["kendall_tau"][1:].tolist() == [0, 0]
    assert found["cosine"][2] == 0


def test_words_that_are_cut_off_play_no_part_in_signed_agreement() -> None:
    """Of a pair they stand between words that are read: word 3 and 4 have no token here."""
    student, teacher = GENERATOR.normal(size=(2, 7))
    words = np.array([0, 0, 1, 2, 5, -1, 6])
    sums = [[values[words == word].sum() for word in (0, 1, 2, 5, 6)] for values in (student, teacher)]
    found = signed_columns([student], [teacher], [words])
    assert found["signed"][0] == pytest.approx(spearmanr(*sums)[0])


@pytest.mark.parametrize("marks", [[0, 1], [3], [0, 2, 4, 5]])
def test_plausibility_is_that_of_scikit_learn(marks: list[int]) -> None:
    marked = np.isin(np.arange(7), marks)
    for _ in range(5):
        scores = GENERATOR.random(7)
        chosen = scores >= np.sort(scores)[-len(marks)]
        found = plausibility(scores, marked)
        assert found["token_f1"] == pytest.approx(f1_score(marked, chosen))
        assert found["iou"] == pytest.approx(jaccard_score(marked, chosen))
        assert found["auprc"] == pytest.approx(average_precision_score(marked, scores))


@pytest.mark.parametrize("share", [0, 1])
def test_nothing_or_all_marked_gives_no_figure(share: int) -> None:
    assert all(np.isnan(value) for value in plausibility(np.arange(4.0), np.full(4, bool(share))).values())


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=4))
def test_a_token_is_marked_where_a_character_of_it_is(starts: list[tuple[int, int]]) -> None:
    spans = [(start, start + width, 0) for start, width in starts]
    offsets = [(0, 0), (0, 3), (4, 6), (6, 11), (12, 20), (0, 0)]
    places = TokenPlaces(offsets, [None, 0, 0, 0, 0, None])
    own = np.array([False, True, True, True, True, False])
    characters = {c for start, end, _ in spans for c in range(start, end)}
    wanted = [bool(characters & set(range(*offset))) for offset in offsets[1:5]]
    assert marked_tokens(places, spans, own).tolist() == wanted
