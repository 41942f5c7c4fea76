"""Faithfulness against brute force over all orders of the words."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

from families import build
from gradistill.auditing import faithfulness as module
from gradistill.auditing.changed_text_comparison import ChangedTextComparison, TextRows
from gradistill.auditing.faithfulness import UNITS, faithfulness, word_occlusion
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.model_comparison import ModelComparison
from gradistill.auditing.predictions import predict_rows
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.response import log_odds
from gradistill.data import Collator, encode, load_splits
from gradistill.data.changed_copies import draw_words, substituted_copies
from gradistill.data.raw_words import row_texts
from gradistill.models.loading import load_classifier, load_tokenizer
from stand_ins import OfWords, masks_of, networks


def rows_of(*lengths: int) -> list[tuple[str, ...]]:
    """Rows with that many words; every other one is a pair."""
    words = [[f"{number}w{k}" for k in range(count)] for number, count in enumerate(lengths)]
    return [(" ".join(w[:1]), " ".join(w[1:])) if len(w) % 2 else (" ".join(w),) for w in words]


def scores_of(rows: Any, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.random(sum(len(text.split()) for text in row)) for row in rows]


def area(model: OfWords, row: Any, label: int, order: Any) -> float:
    """AOPC by its definition: one word after the other goes."""
    there, total = np.ones(len(order), dtype=bool), 0.0

    def value(there: np.ndarray) -> float:
        logits = np.asarray(model.logits_of(row, there))
        return logits[0] if len(logits) == 1 else np.exp(logits[label]) / np.exp(logits).sum()

    whole = value(there)
    for word in order:
        there[word] = False
        drop = whole - value(there)
        total += abs(drop) if len(model.logits_of(row, there)) == 1 else drop
    return total / len(order)


def brute_force(model: OfWords, row: Any, label: int, scores: np.ndarray) -> tuple[float, float]:
    order = sorted(range(len(scores)), key=lambda word: -scores[word])
    every = [area(model, row, label, o) for o in permutations(order)]
    low, high = min(every), max(every)
    return tuple((area(model, row, label, o) - low) / (high - low) for o in (order, order[::-1]))


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_short_rows_are_exact(labels: int) -> None:
    rows = rows_of(2, 3, 4, 5, 6, 6)
    model, scores = networks(rows, labels=labels), scores_of(rows)
    chosen = np.arange(len(rows)) % labels
    found = faithfulness(model, scores, chosen, masks_of(rows))
    for place, row in enumerate(rows):
        wanted = brute_force(model, row, int(chosen[place]), scores[place])
        assert (found["comprehensiveness"][place], found["sufficiency"][place]) == pytest.approx(
            wanted, abs=1e-9
        )


def limits(model: OfWords, rows: Any, scores: list[np.ndarray], beam: int) -> np.ndarray:
    """The least and the most of each row, from the figures of two orders whose areas are known."""
    found = faithfulness(model, scores, np.zeros(len(rows), dtype=np.int64), masks_of(rows), beam=beam)
    areas = [
        [area(model, row, 0, o) for o in (np.argsort(-own), np.argsort(-own)[::-1])]
        for row, own in zip(rows, scores, strict=True)
    ]
    first, last = np.array(areas).T
    spread = (first - last) / (found["comprehensiveness"] - found["sufficiency"])
    low = first - found["comprehensiveness"] * spread
    return np.stack([low, low + spread])


def test_a_wider_beam_finds_wider_limits_up_to_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(*[UNITS] * 12)
    model, scores = networks(rows), scores_of(rows)
    by_beam = [limits(model, rows, scores, beam) for beam in (1, 2, 8, 1000)]
    for (low, high), (lower, higher) in pairwise(by_beam):
        assert lower.mean() < low.mean() + 1e-9
        assert higher.mean() > high.mean() - 1e-9
    monkeypatch.setattr(module, "EXACT", UNITS + 1)
    assert limits(model, rows, scores, 1) == pytest.approx(by_beam[-1], abs=1e-9)  # holds every set
    assert (by_beam[0][1] < by_beam[-1][1] - 1e-4).any(), "the test could not fail: narrow limits are exact"


def test_words_that_only_turn_a_decision_together_are_found() -> None:
    """The label turns when two of eight words are away. No single word does anything, so a greedy search that starts
    from the whole text does not know where to begin; one that starts from nothing does."""
    (row,) = rows_of(8)

    def logits_of(_: Any, there: np.ndarray) -> list[float]:
        return [-9.0 if not (there[2] or there[6]) else 9.0, 0.0]

    (low,), (high,) = limits(OfWords(logits_of), [row], [np.arange(8.0)], 1)
    # At best it turns with the second word and at worst with the last: seven steps of eight against one.
    assert (low, high) == pytest.approx((1 / 8, 7 / 8), abs=1e-3)


def test_values_stay_within_0_and_1() -> None:
    """The judged orders are among the candidates, also where a greedy search misses the limits."""
    rows = rows_of(*[UNITS] * 40)
    model = networks(rows, seed=3)
    found = faithfulness(model, scores_of(rows, 1), np.zeros(40, dtype=np.int64), masks_of(rows), beam=1)
    for values in found.values():
        assert (values >= 0).all()
        assert (values <= 1).all()


def test_an_additive_model_has_its_limits_at_its_own_order() -> None:
    rows = rows_of(7, 8, 8)
    effects = {row: np.linspace(-1, 1, sum(len(t.split()) for t in row)) for row in rows}
    model = OfWords(lambda texts, there: [effects[texts] @ there + 5])  # never crosses zero
    found = faithfulness(
        OfWords(lambda texts, there: [0.0, float(model.logits_of(texts, there)[0]) - 5]),
        list(effects.values()), np.ones(3, dtype=np.int64), masks_of(rows),
    )  # fmt: skip
    assert found["comprehensiveness"] == pytest.approx(1)
    assert found["sufficiency"] == pytest.approx(0)


def test_long_rows_are_cut_into_runs() -> None:
    """Words of one run go together: the figures are those of a row whose words are the runs."""
    (long,), (short,) = rows_of(3 * UNITS), rows_of(UNITS)
    short_model = networks([short])
    long_model = OfWords(lambda _, there: short_model.logits_of(short, there.reshape(UNITS, 3).all(1)))
    (scores,) = scores_of([long])
    of_long = faithfulness(long_model, [scores], np.zeros(1, dtype=np.int64), masks_of([long]))
    of_runs = [scores.reshape(UNITS, 3).sum(1)]
    assert of_long == faithfulness(short_model, of_runs, np.zeros(1, dtype=np.int64), masks_of([short]))
    assert not np.isnan(of_long["sufficiency"]).any()


def test_words_that_are_not_read_stay() -> None:
    rows = rows_of(6)
    inner = networks(rows)
    model = OfWords(lambda texts, there: inner.logits_of(texts, there))
    scores = [np.array([0.3, np.nan, 0.9, 0.1, np.nan, 0.5])]
    found = faithfulness(model, scores, np.zeros(1, dtype=np.int64), masks_of(rows))

    def of_read(there: np.ndarray) -> Any:
        every = np.ones(6, dtype=bool)
        every[[0, 2, 3, 5]] = there
        return inner.logits_of(rows[0], every)

    wanted = brute_force(OfWords(lambda _, there: of_read(there)), rows[0], 0, np.array([0.3, 0.9, 0.1, 0.5]))
    assert (found["comprehensiveness"][0], found["sufficiency"][0]) == pytest.approx(wanted, abs=1e-9)


def test_a_model_that_nothing_moves_has_no_faithfulness() -> None:
    rows = rows_of(5, UNITS, 1, 0)
    found = faithfulness(OfWords(lambda *_: [1.0, 2.0]), scores_of(rows), np.zeros(4, int), masks_of(rows))
    assert np.isnan(found["comprehensiveness"]).all()
    assert np.isnan(found["sufficiency"]).all()


def test_no_set_is_predicted_twice() -> None:
    rows = rows_of(6, 8)
    sets: list[tuple[str, bytes]] = []
    inner = networks(rows)

    def logits_of(texts: Any, there: np.ndarray) -> Any:
        sets.append((texts[0], there.tobytes()))
        return inner.logits_of(texts, there)

    model = OfWords(logits_of)
    faithfulness(model, scores_of(rows), np.zeros(2, int), masks_of(rows), beam=3)
    assert len(sets) == len(set(sets))
    assert sum(text == rows[0][0] for text, _ in sets) == 2**6
    assert len(model.seen) <= 2 + 8, "all rows share the calls: the rows, the judged orders, a call a size"


def test_occlusion_of_words_against_a_loop() -> None:
    rows = rows_of(4, 6, 0)
    model, labels = networks(rows, labels=3), np.array([2, 0, 1])
    found = word_occlusion(model, [4, 6, 0], labels, masks_of(rows))
    for place, row in enumerate(rows):
        whole = np.ones(len(found[place]), dtype=bool)
        for word, score in enumerate(found[place]):
            pair = np.stack(
                [model.logits_of(row, whole), model.logits_of(row, whole & (np.arange(len(whole)) != word))]
            )
            without = log_odds(pair[None], labels[place : place + 1])[0]
            assert score == pytest.approx(abs(without[1] - without[0]), abs=1e-9)
    assert [len(own) for own in found] == [4, 6, 0]


def test_the_explained_label_sets_the_sign() -> None:
    """What speaks for one of two labels speaks against the other: comprehensiveness turns round."""
    (row,) = rows_of(5)
    model, scores = networks([row]), scores_of([row])
    one, other = (
        faithfulness(model, scores, np.array([label]), masks_of([row]))["comprehensiveness"]
        for label in (0, 1)
    )
    assert one + other == pytest.approx(1)


def test_words_of_models_are_scored_and_masked(small: Any) -> None:
    source = small.choice("three")
    model, pieces = (
        load_classifier(str(small.teachers["three"]))[0],
        load_tokenizer(str(small.teachers["three"])),
    )
    other = build("bert", labels=3, seed=1, initializer_range=0.5)
    splits = load_splits(
        source.source, splits=("train",), label_column="label", text_columns=("text", "other")
    )
    rows, task = splits.rows["train"].select(range(6)), splits.task
    predictors = [ClassifierPredictor(each, pieces) for each in (model, other)]
    examined = ModelComparison(predictors[0], predictors[1:], task, GradientXInput())
    scores = [own or [] for own in examined.word_scores(rows)]
    encoded, collate = encode(rows, pieces, task).dataset, Collator(pieces)
    teacher = predict_rows(model, encoded, collate)
    student = predict_rows(other, encoded, collate, labels=teacher.labels)
    for of_words, of_tokens in ((scores[0], teacher.maps), (scores[1], student.maps)):
        for own, tokens in zip(of_words, of_tokens, strict=True):  # each word of these texts is one token
            assert own == pytest.approx(tokens)
    texts = row_texts(rows, task)
    comparison = ChangedTextComparison(predictors[0], predictors[1:], ["a"])
    (found,) = comparison.faithfulness(TextRows(texts, rows["index"][:]), scores)
    for owner, predictor, own in zip(("teacher", "student"), predictors, scores, strict=True):
        wanted = faithfulness(predictor, own, teacher.labels, masks_of(texts))
        for name, values in wanted.items():
            assert found[f"{owner}_{name}"] == pytest.approx(values)
    assert (found["teacher_sufficiency"] != found["student_sufficiency"]).all()


def test_without_masks_words_are_replaced_and_without_scores_occluded() -> None:
    rows = rows_of(5, 6)

    def logits_of(texts: Any, there: np.ndarray) -> list[float]:
        assert there.all(), "nothing is masked"
        return [0.0, sum(len(word) * (-1) ** k for text in texts for k, word in enumerate(text.split()))]

    model = OfWords(logits_of, can_mask=False)
    comparison = ChangedTextComparison(model, [model], ["longer", "words", "x"], seed=1)
    (found,) = comparison.faithfulness(TextRows(rows, [4, 7]), [None, [np.arange(5.0), np.arange(6.0)]])
    drawn = [draw_words(["longer", "words", "x"], (1, n), 1, number)[0] for n, number in ((5, 4), (6, 7))]
    copies_of = lambda row, kept: substituted_copies(rows[row], kept, [drawn[row]] * len(kept))  # noqa: E731
    labels = np.array([int(logits_of(row, np.ones(1))[1] > 0) for row in rows])
    judged = word_occlusion(model, [5, 6], labels, copies_of)
    wanted = faithfulness(model, judged, labels, copies_of)
    assert found["teacher_comprehensiveness"] == pytest.approx(wanted["comprehensiveness"])
    assert found["student_comprehensiveness"] == pytest.approx(wanted["comprehensiveness"])
    given = [np.arange(5.0), np.arange(6.0)]
    (found,) = comparison.faithfulness(TextRows(rows, [4, 7]), [given, given])
    wanted = faithfulness(model, given, labels, copies_of)
    assert found["student_comprehensiveness"] == pytest.approx(wanted["comprehensiveness"])
    assert (
        wanted["comprehensiveness"] != faithfulness(model, judged, labels, copies_of)["comprehensiveness"]
    ).any()
