"""Response loyalty: the correlation of student's and teacher's reactions to changes of the text.

Words of a text are removed at random, and both models predict the rest. A set of kept words is a coalition ``S``. Its
effect is ``Δ(S) = F(x_S) − F(x)``, ``F`` the log-odds of the teacher's label for the whole text (the prediction in a
regression; each label's log-odds with several labels a row). The figure of a text is Pearson's r of the teacher's and
the student's effects over K coalitions, averaged over labels if there are several. It needs forward passes and words of
the raw text only, so any two predictors can be compared. The definition is ours; word removal as a probe of a model
goes back to Ribeiro et al. 2016 (LIME, arXiv 1602.04938).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from gradistill.auditing.per_example import Columns
from gradistill.auditing.statistics import EQUAL
from gradistill.data.multilabel_metrics import assigned
from gradistill.errors import GradistillError

NOISE = 1e-5
"""Differences of log-odds up to this are rounding errors (one text in two batches). For scores see ``_unit``."""
MIN_WORDS = 4
"""Texts with fewer words are skipped: three words have only eight coalitions."""

Thresholds = tuple[np.ndarray | None, np.ndarray | None]
"""The thresholds of student and teacher, with several labels a row."""

Logits = Float[np.ndarray, "row text label"]
"""Logits of every row and its copies; the first copy of each is the unchanged row."""


def log_odds(
    logits: Logits, label_ids: Int[np.ndarray, " row"], *, multi_label: bool = False
) -> Float[np.ndarray, "row text"]:
    """The log-odds ``z_c − logsumexp_{k≠c} z_k`` of one label of each row. In a regression the prediction, with several
    labels a row the label's logit."""
    if multi_label:
        return np.take_along_axis(logits, label_ids[:, None, None], axis=-1)[..., 0]
    if logits.shape[-1] == 1:
        return logits[..., 0]
    is_label = label_ids[:, None, None] == np.arange(logits.shape[-1])
    chosen = np.take_along_axis(logits, label_ids[:, None, None], axis=-1)[..., 0]
    return chosen - logsumexp(np.where(is_label, -np.inf, logits), axis=-1)


def effects(
    logits: Logits, label_ids: Int[np.ndarray, " row"], *, multi_label: bool = False
) -> Float[np.ndarray, "row change"]:
    """``Δ(S) = F(x_S) − F(x)`` of every copy except the first, which is the whole text."""
    values = log_odds(logits, label_ids, multi_label=multi_label)
    return values[:, 1:] - values[:, :1]


def effect_agreement(
    student: Float[np.ndarray, "row copy"], teacher: Float[np.ndarray, "row copy"]
) -> Float[np.ndarray, " row"]:
    """Pearson's r of two models' effects, for each text.

    0 if the student's effects are all equal, and NaN if the teacher's are, as there is then nothing to agree with.
    Effects within ``NOISE`` of each other count as equal.
    """
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (student, teacher))
    spread_a, spread_b = (a * a).sum(axis=1), (b * b).sum(axis=1)
    flat_a, flat_b = (np.ptp(values, axis=1) <= NOISE for values in (student, teacher))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip((a * b).sum(axis=1) / np.sqrt(spread_a * spread_b), -1.0, 1.0)
    return np.where(flat_b, np.nan, np.where(flat_a, 0.0, r))


def beyond_count(
    effects: Float[np.ndarray, "row copy"], removed_share: Float[np.ndarray, "row copy"]
) -> Float[np.ndarray, "row copy"]:
    """The residuals of each text's effects after a linear regression on ``removed_share``, the share of removed words.

    Their agreement is the partial correlation, given the number of removed words. Residuals of exactly linear effects
    are 0.

    Example: ``effect_agreement(beyond_count(ours, removed_share), beyond_count(theirs, removed_share))``
    """
    y, x = (values - values.mean(axis=1, keepdims=True) for values in (effects, removed_share))
    spread = (x * x).sum(axis=1, keepdims=True)
    slope = (x * y).sum(axis=1, keepdims=True) / np.where(spread > 0, spread, 1.0)
    left = y - slope * x
    noise = (left * left).sum(axis=1, keepdims=True) <= EQUAL**2 * (y * y).sum(axis=1, keepdims=True)
    return np.where(noise, 0.0, left)


def response_columns(
    student_logits: Logits,
    teacher_logits: Float[np.ndarray, "_ _ _"],
    words: Sequence[int],
    *,
    removed_share: Float[np.ndarray, "row change"] | None = None,
    multi_label: bool = False,
    thresholds: Thresholds = (None, None),
) -> Columns:
    """The columns of response figures; NaN for texts that do not count.

    ``response`` is the agreement of the effects. ``response_partial``, if the share of removed words is given,
    is the partial correlation, given the number of removed words (``beyond_count``): all models react to this number.
    ``response_labels`` is the share of copies for which both models predict the same label; a regression has none.
    ``response_product`` is the sum over copies of student's times teacher's effect, ``response_square`` the sum of the
    teacher's squared effects. Their ratio over all texts is the slope of the line through the origin, 1 for reactions
    of equal strength.

    With ``multi_label`` each label has its own effects, the changes of its logit. ``response`` is then averaged over
    the labels, and the sums include all labels. ``response_labels`` is the mean share of labels on which both models
    agree, at the ``thresholds`` of student and teacher (½ by default).

    Texts with fewer than ``MIN_WORDS`` ``words`` do not count, nor texts on which the teacher reacts to no change.
    Raises GradistillError for logits of different shapes.
    """
    if student_logits.shape != teacher_logits.shape or len(words) != len(teacher_logits):
        raise GradistillError(
            f"The student's logits have shape {student_logits.shape}, the teacher's {teacher_logits.shape}, "
            f"and there are word counts for {len(words)} texts.",
            expected="one row of copies per text, the same for both",
        )
    if multi_label:
        columns = _of_every_label(student_logits, teacher_logits, removed_share, thresholds)
        known = (np.asarray(words) >= MIN_WORDS) & np.isfinite(columns["response"])
        return {name: np.where(known, values, np.nan) for name, values in columns.items()}
    label_ids = teacher_logits[:, 0].argmax(axis=-1)
    ours, theirs = effects(student_logits, label_ids), effects(teacher_logits, label_ids)
    scaled = ours / _unit(student_logits), theirs / _unit(teacher_logits)
    agreement = effect_agreement(*scaled)
    counts = (np.asarray(words) >= MIN_WORDS) & np.isfinite(agreement)
    columns = {
        "response": agreement,
        **_partial(*scaled, removed_share),
        "response_product": (ours * theirs).sum(axis=1),
        "response_square": (theirs**2).sum(axis=1),
    }
    if teacher_logits.shape[-1] > 1:
        same = student_logits.argmax(-1) == teacher_logits.argmax(-1)
        columns["response_labels"] = same[:, 1:].mean(axis=1)
    return {name: np.where(counts, values, np.nan) for name, values in columns.items()}


def _unit(logits: Float[np.ndarray, "row copy label"]) -> Float[np.ndarray, "row 1"]:
    """The unit of ``NOISE`` for each text: 1 for log-odds, and for scores, which have any scale, the largest score."""
    largest = np.abs(logits).max(axis=(1, 2))[:, None]
    return np.where(largest > 0, largest, 1.0) if logits.shape[-1] == 1 else np.ones_like(largest)


def _partial(
    ours: Float[np.ndarray, "row copy"],
    theirs: Float[np.ndarray, "row copy"],
    removed_share: Float[np.ndarray, "row copy"] | None,
) -> Columns:
    if removed_share is None:
        return {}
    return {
        "response_partial": effect_agreement(
            beyond_count(ours, removed_share), beyond_count(theirs, removed_share)
        )
    }


def _of_every_label(
    student: Logits,
    teacher: Float[np.ndarray, "_ _ _"],
    removed_share: Float[np.ndarray, "row change"] | None,
    thresholds: Thresholds,
) -> Columns:
    """The figures of ``response_columns`` with several labels a row."""
    rows, _, labels = teacher.shape
    ours, theirs = (np.moveaxis(z[:, 1:] - z[:, :1], -1, 1) for z in (student, teacher))
    flat_ours, flat_theirs = (delta.reshape(rows * labels, -1) for delta in (ours, theirs))
    each = {"response": effect_agreement(flat_ours, flat_theirs)}
    each |= _partial(
        flat_ours, flat_theirs, None if removed_share is None else np.repeat(removed_share, labels, axis=0)
    )
    flags = [assigned(z[:, 1:], limits) for z, limits in zip((student, teacher), thresholds, strict=True)]
    return {
        **{name: _mean_of_known(values.reshape(rows, labels)) for name, values in each.items()},
        "response_product": (ours * theirs).sum(axis=(1, 2)),
        "response_square": (theirs**2).sum(axis=(1, 2)),
        "response_labels": (flags[0] == flags[1]).mean(axis=(1, 2)),
    }


def _mean_of_known(values: Float[np.ndarray, "row label"]) -> Float[np.ndarray, " row"]:
    """The mean over the labels with a finite value; NaN without any."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)
