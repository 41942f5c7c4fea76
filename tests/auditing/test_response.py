"""Response loyalty against naive loops, scipy and closed forms."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from scipy import stats

from gradistill.auditing.per_example import estimates, value_of
from gradistill.auditing.response import (
    beyond_count,
    effect_agreement,
    effects,
    log_odds,
    response_columns,
)
from gradistill.data.changed_copies import FINE, Copy, draw_coalitions, draw_words, substituted_copies
from gradistill.data.raw_words import (
    count_words,
    mask_tokens,
    substitute_words,
    token_word_ranges,
    word_pool,
    word_spans,
)
from gradistill.errors import GradistillError

ROWS = [("the film was very fine .", "a great one"), ("the  dull film", "one was poor"), ("a", "b")]


def _logits(seed: int, rows: int = 30, copies: int = 17, labels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2.0, size=(rows, copies, labels))


def test_words_are_runs_of_non_space_characters():
    text = " It's  50 %,\tno?\n"
    assert [text[start:end] for start, end in word_spans(text)] == text.split()
    assert count_words((text, "a b")) == 6


def test_coalitions_belong_to_seed_and_row():
    both = draw_coalitions([7, 9], seed=3)
    assert both[0].shape == (16, 7)
    (alone,) = draw_coalitions([9], seed=3, rows=[1])
    assert (alone == both[1]).all()
    assert (draw_coalitions([7], seed=4)[0] != both[0]).any()
    assert draw_coalitions([0], copies=2)[0].shape == (2, 0)


@pytest.mark.parametrize(("keep", "low", "high"), [((0.1, 0.9), 0.1, 0.9), (FINE, 0.5, 0.95)])
def test_rates_are_uniform(keep: tuple[float, float], low: float, high: float):
    (kept,) = draw_coalitions([400], copies=2000, keep=keep)
    shares = kept.mean(axis=1)
    # The rate is uniform; the share around it has a standard deviation of at most .025.
    assert stats.kstest(shares, stats.uniform(low, high - low).cdf).statistic < 0.04


def test_a_copy_loses_a_word():
    for kept in draw_coalitions([1, 2, 3] * 50, keep=(0.9, 1.0)):
        assert not kept.all(axis=1).any()


def test_tokens_of_a_word():
    text = ("isn't it", "so fine")
    offsets = [(0, 0), (0, 3), (3, 4), (4, 5), (6, 8), (0, 0), (0, 2), (3, 7), (2, 3), (0, 0)]
    segments = [None, 0, 0, 0, 0, None, 1, 1, 1, None]
    assert token_word_ranges(text, offsets, segments)[:, 0].tolist() == [-1, 0, 0, 0, 1, -1, 2, 3, -1, -1]


def test_all_tokens_of_a_word_are_masked():
    ids, words = np.array([2, 7, 8, 9, 3]), np.array([[-1, 0, 0, 1, -1]] * 2).T
    kept = np.array([[True, False], [False, True], [False, False]])
    assert mask_tokens(ids, words, kept, 4).tolist() == [[2, 7, 8, 4, 3], [2, 4, 4, 9, 3], [2, 4, 4, 4, 3]]
    assert mask_tokens(ids, np.full((5, 2), -1), np.ones((2, 0), bool), 4).tolist() == [ids.tolist()] * 2


def test_substituted_words():
    kept = np.array([[True, False, True], [False, True, False]])
    found = substitute_words(("a  b", " c"), kept, [["x", "y", "z"], ["u", "v", "w"]])
    assert found == [("a  y", " c"), ("u  b", " w")]


def test_substituted_copies_keep_what_stays():
    for place, row in enumerate(ROWS):
        (kept,) = draw_coalitions([count_words(row)], copies=4, rows=[place])
        whole, *copies = substituted_copies(row, kept, draw_words(["lovely"], kept.shape, 0, place))
        assert whole == Copy(row)
        changed = [" ".join(copy.texts).split().count("lovely") for copy in copies]
        assert changed == (~kept).sum(axis=1).tolist()
    assert word_pool(ROWS) == " ".join(text for row in ROWS for text in row).split()


def test_drawn_words_belong_to_seed_and_row():
    pool = [str(number) for number in range(1000)]
    first = draw_words(pool, (3, 4), 0, 7)
    assert first == draw_words(pool, (3, 4), 0, 7)
    assert first != draw_words(pool, (3, 4), 1, 7)
    assert first != draw_words(pool, (3, 4), 0, 8)


def test_log_odds():
    logits, label = _logits(0, 4), np.array([0, 2, 1, 1])
    found = log_odds(logits, label)
    for row in range(4):
        for copy in range(17):
            weights = [exp(z) for z in logits[row, copy]]
            p = weights[label[row]] / sum(weights)
            assert found[row, copy] == pytest.approx(log(p / (1 - p)), abs=1e-9)
    assert (log_odds(logits[..., :1], label) == logits[..., 0]).all()


def test_agreement_is_scipys_correlation():
    student, teacher = _logits(1)[..., 0], _logits(2)[..., 0]
    loop = [stats.pearsonr(a, b)[0] for a, b in zip(student, teacher, strict=True)]
    assert effect_agreement(student, teacher) == pytest.approx(loop, abs=1e-12)


def _figures(student: np.ndarray, teacher: np.ndarray, words: list[int]) -> dict[str, float]:
    columns = response_columns(student, teacher, words)
    names = ("response", "response_slope", "response_labels")
    return {name: value_of(columns, name) for name in names}


def test_partial_agreement_is_that_of_residuals():
    student, teacher = _logits(6)[..., 0], _logits(7)[..., 0]
    removed_share = np.random.default_rng(8).random(student.shape)
    found = effect_agreement(beyond_count(student, removed_share), beyond_count(teacher, removed_share))
    for row, r in enumerate(found):
        x, a, b = (values[row] for values in (removed_share, student, teacher))
        ab, ax, bx = (stats.pearsonr(*pair)[0] for pair in ((a, b), (a, x), (b, x)))
        assert r == pytest.approx((ab - ax * bx) / np.sqrt((1 - ax**2) * (1 - bx**2)), abs=1e-12)


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_follows_from_the_number_of_words_is_taken_out(multi_label: bool):
    """Two models that react to nothing but how many words are removed_share agree wholly, and share no reason."""
    removed_share = np.random.default_rng(9).random((30, 16))
    line = np.concatenate([np.zeros((30, 1)), removed_share], axis=1)[..., None]
    teacher, student = line * [3.0, -1.0] + [9.0, 0.0], line * [0.5, -0.2]
    if not multi_label:
        teacher, student = (np.concatenate([z[..., :1], -z[..., :1]], axis=-1) for z in (teacher, student))
    found = response_columns(student, teacher, [9] * 30, removed_share=removed_share, multi_label=multi_label)
    assert found["response"] == pytest.approx(np.ones(30))
    assert np.isnan(found["response_partial"]).all()
    noise = np.random.default_rng(10).normal(size=teacher.shape)
    found = response_columns(
        student + noise, teacher + noise, [9] * 30, removed_share=removed_share, multi_label=multi_label
    )
    assert found["response_partial"] == pytest.approx(np.ones(30))
    assert (found["response_partial"] > found["response"]).all()
    without = response_columns(student, teacher, [9] * 30, multi_label=multi_label)
    assert "response_partial" not in without


def test_closed_forms():
    teacher, words = _logits(3, labels=2), [5] * 30
    # Centred logits: with two labels the log-odds are z_1 − z_0, and Δ is linear in the logits.
    label = teacher[:, :1].argmax(-1)[..., None]
    close = pytest.approx
    assert _figures(teacher, teacher, words) == close(
        {"response": 1, "response_slope": 1, "response_labels": 1}
    )
    negated = _figures(-teacher, teacher, words)
    assert (negated["response"], negated["response_slope"]) == close((-1, -1))
    weaker = _figures(0.5 * teacher + 7 * label, teacher, words)
    assert (weaker["response"], weaker["response_slope"]) == close((1, 0.5))
    constant = _figures(np.zeros_like(teacher), teacher, words)
    assert (constant["response"], constant["response_slope"]) == (0, 0)


def test_figures_against_a_loop():
    student, teacher = _logits(4), _logits(5)
    words = [3] * 5 + [4] * 25
    teacher[7] = teacher[7, :1]  # it reacts to no change
    found = response_columns(student, teacher, words)
    rs, above, below, same = [], 0.0, 0.0, []
    for row in range(5, 30):
        if row == 7:
            continue
        c = int(teacher[row, 0].argmax())
        others = [k for k in range(3) if k != c]

        def value(z: np.ndarray, c: int = c, others: list[int] = others) -> float:
            return z[c] - log(sum(exp(z[k]) for k in others))

        ours = [value(z) - value(student[row, 0]) for z in student[row, 1:]]
        theirs = [value(z) - value(teacher[row, 0]) for z in teacher[row, 1:]]
        rs.append(stats.pearsonr(ours, theirs)[0])
        above += sum(a * b for a, b in zip(ours, theirs, strict=True))
        below += sum(b * b for b in theirs)
        same.append(np.mean(student[row, 1:].argmax(-1) == teacher[row, 1:].argmax(-1)))
    figures = {name: e for named in estimates(found).values() for name, e in named.items()}
    assert figures["response"].value == pytest.approx(np.mean(rs), abs=1e-12)
    assert figures["response_slope"].value == pytest.approx(above / below, abs=1e-12)
    assert figures["response_labels"].value == pytest.approx(np.mean(same), abs=1e-12)
    assert np.isnan(found["response"]).nonzero()[0].tolist() == [*range(5), 7]
    for estimate in figures.values():
        assert estimate.n == 24
        assert estimate.low < estimate.value < estimate.high


def test_regression_has_no_labels():
    teacher = _logits(6, labels=1)
    found = response_columns(3 * teacher, teacher, [9] * 30)
    assert value_of(found, "response") == pytest.approx(1)
    assert value_of(found, "response_slope") == pytest.approx(3)
    assert "response_labels" not in found


def test_effects_start_from_the_whole_text():
    logits = _logits(7, labels=2)
    found = effects(logits, np.ones(30, int))
    margin = logits[..., 1] - logits[..., 0]
    assert found == pytest.approx(margin[:, 1:] - margin[:, :1], abs=1e-12)


def test_other_shapes_are_refused():
    with pytest.raises(GradistillError, match="word counts for 29 texts"):
        response_columns(_logits(0), _logits(1), [4] * 29)
    with pytest.raises(GradistillError, match="have shape"):
        response_columns(_logits(0, copies=3), _logits(1), [4] * 30)


def test_scores_have_any_unit():
    draw = np.random.default_rng(0)
    teacher = draw.normal(size=(5, 9, 1))
    student = teacher + draw.normal(size=teacher.shape) / 3
    whole = response_columns(student, teacher, [6] * 5)["response"]
    for unit in (1e-7, 1e4):
        assert response_columns(student * unit, teacher * unit, [6] * 5)["response"] == pytest.approx(whole)
    flat = np.ones_like(teacher) + draw.normal(size=teacher.shape) * 1e-8
    assert np.isnan(response_columns(student, flat, [6] * 5)["response"]).all()
