"""Loyalty in token classification, over words and over spans, from per-row sums.

Label loyalty is the share of words with the teacher's label. Probability loyalty is the mean over words of
``1 − sqrt(JS₂)``. Span loyalty is the F1 of the student's spans against the teacher's (``data.span_metrics``). Words of
a row depend on each other, so the bootstrap resamples rows, each with all its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gradistill.auditing.loyalty_measures import Loyalty, probability_agreement
from gradistill.auditing.per_example import Columns, confidence, estimates, without_groups
from gradistill.auditing.token_predictions import TokenPredictions
from gradistill.data.span_metrics import span_counts
from gradistill.errors import GradistillError


def token_columns(
    student: TokenPredictions,
    teacher: TokenPredictions,
    names: Sequence[str],
    gold: Sequence[np.ndarray] | None = None,
) -> Columns:
    """Per-row sums of both models' predictions. The figures are ratios of their totals.

    Parameters:
        ``student``, ``teacher``: predictions of the same words.
        ``names``: the tag of each label id.
        ``gold``: the gold label ids of each row's words; None without labels.

    Raises GradistillError if the words of both models differ, and for logits that are not finite.

    Example: ``token_columns(student, teacher, ("O", "B-x", "I-x"))["label_sum"]``
    """
    _refuse_other_words(student, teacher)
    counts = teacher.counts
    same = np.concatenate(student.labels) == np.concatenate(teacher.labels)
    columns: Columns = {
        "label_sum": _row_sums(same, counts),
        "probability_sum": _row_sums(probability_agreement(student.flat, teacher.flat), counts),
        "label_count": counts,
        "probability_count": counts,
        "words": counts,
        **_by_tag(same, np.concatenate(teacher.labels), counts, len(names)),
    }
    both, ours, theirs = span_counts(names, student.labels, teacher.labels).T
    columns |= {"span_sum": 2 * both, "span_count": ours + theirs}
    if gold is not None:
        for owner, model in (("teacher", teacher), ("student", student)):
            columns |= _quality(owner, model, names, gold)
    return columns


def _by_tag(same: np.ndarray, tags: np.ndarray, counts: np.ndarray, labels: int) -> Columns:
    """For each row and tag: the number of words with this tag by the teacher, and on how many of them both agree."""
    places = np.repeat(np.arange(len(counts)), counts) * labels + tags
    shape = (len(counts), labels)
    both = (
        np.bincount(places, weights=w, minlength=len(counts) * labels) for w in (same, np.ones(len(same)))
    )
    agreed, total = (counted.reshape(shape) for counted in both)
    return {"label_sum_each": agreed, "label_count_each": total}


def on_common_words(
    student: TokenPredictions, teacher: TokenPredictions
) -> tuple[TokenPredictions, TokenPredictions]:
    """Both models' predictions for the words that both read: all words, if they share a tokenizer.

    Example: ``on_common_words(student, teacher)[0].counts``
    """
    kept = [np.intersect1d(ours, theirs) for ours, theirs in zip(student.words, teacher.words, strict=True)]

    def of(model: TokenPredictions) -> TokenPredictions:
        rows = zip(model.logits, model.words, kept, strict=True)
        return TokenPredictions(tuple(row[np.isin(words, k)] for row, words, k in rows), tuple(kept))

    return of(student), of(teacher)


def word_confidence(model: TokenPredictions) -> Float[np.ndarray, " word"]:
    """The probability of each word's predicted label, concatenated over rows."""
    return confidence(model.flat)


def _quality(
    owner: str, model: TokenPredictions, names: Sequence[str], gold: Sequence[np.ndarray]
) -> Columns:
    both, ours, theirs = span_counts(names, model.labels, gold).T
    right = np.concatenate(model.labels) == np.concatenate(gold)
    return {
        f"{owner}_accuracy_sum": _row_sums(right, model.counts),
        f"{owner}_accuracy_count": model.counts,
        f"{owner}_span_f1_sum": 2 * both,
        f"{owner}_span_f1_count": ours + theirs,
        f"{owner}_span_precision_sum": both,
        f"{owner}_span_precision_count": ours,
        f"{owner}_span_recall_sum": both,
        f"{owner}_span_recall_count": theirs,
    }


def token_loyalty(
    student: TokenPredictions, teacher: TokenPredictions, names: Sequence[str], *, seed: int = 0
) -> Loyalty:
    """Label, probability and span loyalty with 95 % intervals by a bootstrap over rows.

    Parameters and errors as in ``token_columns``; ``seed`` is the random seed of the bootstrap.

    Example: ``token_loyalty(student, teacher, ("O", "B-x", "I-x")).span.value``
    """
    figures = without_groups(estimates(token_columns(student, teacher, names), seed=seed))
    label, probability, span = (figures.get(name) for name in ("label", "probability", "span"))
    return Loyalty(label, probability, None, None, 0, "", span=span)


def _row_sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The sum of each row's values. ``values`` is concatenated over rows, ``counts`` holds the rows' lengths."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(rows, weights=values, minlength=len(counts))


def _refuse_other_words(student: TokenPredictions, teacher: TokenPredictions) -> None:
    ours, theirs = ([row.shape for row in model.logits] for model in (student, teacher))
    if ours != theirs:
        pairs = enumerate(zip(ours, theirs, strict=False))
        row = next((k for k, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
        raise GradistillError(
            f"The two models' predictions are of different words or labels, first in example row {row}.",
            expected="one row of logits for each word, the same words and labels in both models",
        )
