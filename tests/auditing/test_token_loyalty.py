"""Loyalty of words and spans: sums of rows give the figures, and rows are resampled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from gradistill.auditing.per_example import estimates, without_groups
from gradistill.auditing.statistics import bootstrap_share
from gradistill.auditing.token_loyalty import token_columns, token_loyalty
from gradistill.auditing.token_predictions import TokenPredictions
from gradistill.data.span_metrics import token_metrics
from gradistill.errors import GradistillError

NAMES = ("O", "B-x", "I-x", "B-y", "I-y")


def predictions(seed: int, rows: int = 40) -> TokenPredictions:
    lengths = np.random.default_rng(0).integers(1, 9, rows)
    generator = np.random.default_rng(seed)
    logits = tuple(generator.normal(size=(n, 5)) * 2 for n in lengths)
    return TokenPredictions(logits, tuple(np.arange(n) for n in lengths))


def test_figures_equal_those_over_all_words_and_spans() -> None:
    student, teacher = predictions(1), predictions(2)
    found = token_loyalty(student, teacher, NAMES)
    ours, theirs = np.concatenate(student.logits), np.concatenate(teacher.logits)
    assert found.label is not None
    assert found.label.value == pytest.approx((ours.argmax(1) == theirs.argmax(1)).mean())
    apart = [jensenshannon(a, b, base=2) for a, b in zip(softmax(ours, 1), softmax(theirs, 1), strict=True)]
    assert found.probability is not None
    assert found.probability.value == pytest.approx(1 - np.mean(apart))
    assert found.span is not None
    assert found.span.value == pytest.approx(token_metrics(NAMES, student.labels, teacher.labels)["span_f1"])
    for figure in (found.label, found.probability, found.span):
        assert figure.n == 40  # rows
        assert figure.low < figure.value < figure.high
    assert set(found.as_dict()) == {"label", "probability", "span", "prediction", "response", "saliency"}


def test_the_interval_is_of_rows_and_not_of_words() -> None:
    """Words of a row that agree all together say less than as many words that agree by themselves."""
    right, long = np.repeat([0.0, 20.0], 25), np.full(50, 20.0)
    of_rows = bootstrap_share(right, long)
    of_words = bootstrap_share(np.tile([0.0, 1.0], 500), np.ones(1000))
    assert of_rows.value == of_words.value == 0.5
    assert of_rows.high - of_rows.low > 3 * (of_words.high - of_words.low)


def test_models_that_agree_on_everything_have_an_interval() -> None:
    teacher = predictions(2)
    found = token_loyalty(teacher, teacher, NAMES)
    assert found.span is not None
    assert found.span.value == 1.0
    assert 0.9 < found.span.low < found.span.high == 1.0
    nothing = TokenPredictions((np.eye(5)[[0, 0]],) * 3, (np.arange(2),) * 3)
    assert token_loyalty(nothing, nothing, NAMES).span is None or math.isnan(
        token_loyalty(nothing, nothing, NAMES).span.value  # pyright: ignore[reportOptionalMemberAccess]
    )


def test_metrics_have_intervals_too() -> None:
    model, gold = predictions(1), predictions(3).labels
    found = without_groups(estimates(token_columns(model, predictions(2), NAMES, gold)))
    for name, value in token_metrics(NAMES, model.labels, gold).items():
        figure = found[f"student_{name}"]
        assert figure.value == pytest.approx(value)
        assert figure.low < figure.value < figure.high


def test_predictions_of_other_words_are_refused() -> None:
    teacher = predictions(2)
    shorter = TokenPredictions((teacher.logits[0], teacher.logits[1][:0], *teacher.logits[2:]), teacher.words)
    with pytest.raises(GradistillError, match="different words or labels, first in example row 1"):
        token_columns(shorter, teacher, NAMES)
