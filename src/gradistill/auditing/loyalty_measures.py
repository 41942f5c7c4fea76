"""Loyalty: the agreement of student and teacher in predictions, and in what these depend on. One value per example.

Label loyalty and probability loyalty follow Xu et al. 2021 ("Beyond Preserved Accuracy"). The saliency loyalty is
**our definition**: the Gradient KD paper (Wang et al. 2022, arXiv 2211.01071) reports a figure of that name, but its
formula was not readable. In a regression, which has neither labels nor probabilities, we report Pearson's correlation
of the two models' predictions, also our definition. With several labels a row, label and probability loyalty are means
over the labels, and ``exact_match`` is the share of rows on which all labels agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, rel_entr
from scipy.stats import rankdata

from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.statistics import Bounds, Estimate, bootstrap_statistic, mean_estimate
from gradistill.errors import GradistillError

MIN_TOKENS = 4
"""Examples with fewer tokens are skipped: three tokens have only six orders, so a correlation is mostly chance."""

MIN_PAIRS = 4
"""Fewest pairs of a correlation's interval: two pairs always correlate by ±1, and Fisher's interval needs four."""

ROWS_NAMED = 10

NAMES = ("label", "exact_match", "probability", "span", "prediction", "response", "saliency")
"""The loyalties, in the order in which they are shown."""

Maps = Sequence[np.ndarray]
"""One 1-D array of token scores for each example, without special tokens and padding."""


@dataclass(frozen=True)
class Loyalty:
    """The loyalty figures of one student and its teacher. Figures that are undefined for the task are ``None``.

    ``label`` and ``probability`` exist for classification, ``prediction`` for regression, ``saliency`` if there are
    maps. ``exact_match`` exists with several labels a row; ``label`` and ``probability`` are then means over labels.
    ``span`` exists in token classification (``auditing.token_loyalty``). ``skipped`` counts the examples with fewer
    than four tokens. ``response`` is measured on changed texts (``auditing.response``), so ``loyalty`` does not compute
    it. ``floors``: by figure, the value of a student that cannot have learnt to agree.
    """

    label: Estimate | None
    probability: Estimate | None
    saliency: Estimate | None
    prediction: Estimate | None
    skipped: int
    saliency_method: str
    response: Estimate | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    exact_match: Estimate | None = None
    span: Estimate | None = None

    @property
    def figures(self) -> dict[str, Estimate | None]:
        """The figures by name, with their floors."""
        figures = {name: getattr(self, name) for name in NAMES}
        return {
            name: figure.with_floor(self.floors[name])
            if figure is not None and name in self.floors
            else figure
            for name, figure in figures.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """The value of ``loyalty`` in ``metrics.json``; undefined figures are ``None``."""
        out: dict[str, Any] = {name: part and part.as_dict() for name, part in self.figures.items()}
        if self.exact_match is None:
            del out["exact_match"]  # only written with several labels a row
        if self.span is None:
            del out["span"]  # only written in token classification
        if self.saliency is not None:
            out["saliency"] |= {"skipped": self.skipped, "method": self.saliency_method}
        return out


def loyalty(
    student: Predictions,
    teacher: Predictions,
    *,
    method: str = GradientXInput.name,
    resamples: int = 2000,
    seed: int = 0,
) -> Loyalty:
    """Label, probability and saliency loyalty with 95 % intervals over examples (docs/methods.md).

    Parameters:
        ``student``: the student's predictions, with maps of the **teacher's** labels.
        ``teacher``: the teacher's predictions for the same rows. One column of logits means regression.
        ``method``: the name of the attribution method of both models' maps; without maps there is no saliency.
        ``resamples``: number of resamples of the bootstrap.
        ``seed``: random seed of the bootstrap.

    Errors: ``GradistillError`` as in the functions below.

    Example::

        teacher = predict_rows(teacher_model, rows, collate)
        student = predict_rows(student_model, rows, collate, labels=teacher.labels)
        loyalty(student, teacher).saliency.value
    """
    student_logits, teacher_logits = _finite_pair(student.logits, teacher.logits)

    def mean(values: np.ndarray, bounds: Bounds = (0.0, 1.0)) -> Estimate:
        return mean_estimate(values, bounds=bounds, resamples=resamples, seed=seed)

    label = probability = prediction = saliency = exact = None
    if student.multi_label != teacher.multi_label:
        raise GradistillError(
            "One of the models predicts several labels a row, and the other predicts a single label.",
            expected="two models of one kind",
            remedy="correct problem_type in the configuration of the wrong model",
        )
    if student.multi_label:
        same = student.flags == teacher.flags
        label, exact = mean(same.mean(axis=1)), mean(same.all(axis=1))
        probability = mean(bernoulli_agreement(student_logits, teacher_logits).mean(axis=1))
    elif student_logits.shape[1] == 1:
        prediction = correlation(student_logits[:, 0], teacher_logits[:, 0], resamples=resamples, seed=seed)
    else:
        label = mean(label_agreement(student_logits, teacher_logits))
        probability = mean(probability_agreement(student_logits, teacher_logits))
    skipped = 0
    if student.maps or teacher.maps:
        values, skipped = saliency_agreement(student.maps, teacher.maps)
        if len(values) + skipped != len(student_logits):
            raise GradistillError(
                f"There are maps for {len(values) + skipped} examples and logits for {len(student_logits)}.",
                expected="one map and one row of logits per example",
            )
        saliency = mean(values, (-1.0, 1.0))
    return Loyalty(label, probability, saliency, prediction, skipped, method, exact_match=exact)


def label_agreement(
    student_logits: Float[np.ndarray, "batch label"], teacher_logits: Float[np.ndarray, "_ _"]
) -> Bool[np.ndarray, " batch"]:
    """Whether both models predict the same label (Xu et al. 2021); among equal logits the first label counts.

    Raises ``GradistillError`` for one column (regression has no labels), unequal shapes, NaN or infinite logits.
    """
    student, teacher = _class_logits(student_logits, teacher_logits)
    return student.argmax(axis=1) == teacher.argmax(axis=1)


def probability_agreement(
    student_logits: Float[np.ndarray, "batch label"], teacher_logits: Float[np.ndarray, "_ _"]
) -> Float[np.ndarray, " batch"]:
    """``1 − sqrt(JS₂(p_t, p_s))``, 0..1: JS₂ is the Jensen–Shannon divergence in bits (Xu et al. 2021).

    The value is exactly 1 for identical logits. Errors as in ``label_agreement``.
    """
    student, teacher = _class_logits(student_logits, teacher_logits)
    return _root_agreement(_softmax(student), _softmax(teacher), axis=1)


def _root_agreement(p: np.ndarray, q: np.ndarray, axis: int) -> np.ndarray:
    """``1 − sqrt(JS₂(p, q))`` of distributions along ``axis``."""
    # KL(p ‖ (p+q)/2) is computed as rel_entr(2p, p+q)/2: halving a probability near 5e-324 would round it to zero
    # and make the divergence infinite; doubling does not.
    both = p + q
    nats = (rel_entr(2 * p, both) + rel_entr(2 * q, both)).sum(axis=axis) / 4
    return 1 - np.sqrt(np.clip(nats / np.log(2), 0.0, 1.0))


def bernoulli_agreement(
    student_logits: Float[np.ndarray, "batch label"], teacher_logits: Float[np.ndarray, "_ _"]
) -> Float[np.ndarray, "batch label"]:
    """``1 − sqrt(JS₂)``, 0..1, of both models' Bernoulli distributions of each label, with several labels a row.

    The value is exactly 1 for identical logits. Raises ``GradistillError`` for unequal shapes, NaN or infinite logits.

    Example: ``bernoulli_agreement(np.array([[0.0, 2.0]]), np.array([[0.0, 1.0]]))[0, 0]``
    """
    student, teacher = _finite_pair(student_logits, teacher_logits)
    p, q = (np.stack([expit(logits), expit(-logits)]) for logits in (student, teacher))
    return _root_agreement(p, q, axis=0)


def saliency_agreement(student_maps: Maps, teacher_maps: Maps) -> tuple[Float[np.ndarray, " kept"], int]:
    """Spearman's ρ (−1..1) of the two models' token scores for each example, and the number of skipped examples.

    This definition of saliency loyalty is ours (see above). A map is 1-D, with one score for each token that is neither
    special nor padding. Examples with fewer than ``MIN_TOKENS`` tokens are skipped, the others keep their order. Ties
    get average ranks. A constant map orders no tokens: ρ is then 0, where scipy's is NaN. Leaving such examples out
    would reward a student with uninformative maps.

    Raises ``GradistillError`` if the maps have unequal shapes, or NaN or infinite scores.
    """
    student, teacher = _finite_maps(student_maps, teacher_maps)
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for row, scores in enumerate(student):
        by_length[len(scores)].append(row)
    values = np.full(len(student), np.nan)
    for length, rows in by_length.items():
        if length >= MIN_TOKENS:
            values[rows] = spearman(
                np.stack([student[r] for r in rows]), np.stack([teacher[r] for r in rows])
            )
    kept = values[[len(scores) >= MIN_TOKENS for scores in student]] if student else values
    return kept, len(student) - len(kept)


def correlation(
    a: Float[np.ndarray, " batch"], b: Float[np.ndarray, " batch"], *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Pearson's r with its bootstrap interval; without an interval for fewer than ``MIN_PAIRS`` pairs."""
    estimate = bootstrap_statistic(pearson, a, b, resamples=resamples, seed=seed)
    return estimate if estimate.n >= MIN_PAIRS else Estimate(estimate.value, nan, nan, estimate.n)


def pearson(
    a: Float[np.ndarray, "resample batch"], b: Float[np.ndarray, "resample batch"]
) -> Float[np.ndarray, " resample"]:
    """Pearson's r over the last axis; NaN if one side is constant."""
    constant = (np.ptp(a, axis=-1) == 0) | (np.ptp(b, axis=-1) == 0)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return np.where(constant, np.nan, np.clip(r, -1.0, 1.0))


def spearman(
    a: Float[np.ndarray, "batch token"], b: Float[np.ndarray, "batch token"]
) -> Float[np.ndarray, " batch"]:
    # The mean rank is (T + 1)/2 also with ties, so centred ranks are exact, and so is ρ = 1 on equal maps.
    centre = (a.shape[1] + 1) / 2
    a, b = rankdata(a, axis=1) - centre, rankdata(b, axis=1) - centre
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(a)), where=spread > 0)


def _softmax(logits: Float[np.ndarray, "batch label"]) -> Float[np.ndarray, "batch label"]:
    with np.errstate(
        over="ignore"
    ):  # a difference beyond float64 becomes −inf, whose exponential is 0 as it should be
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _class_logits(student: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    student, teacher = _finite_pair(student, teacher)
    if student.shape[1] < 2:
        raise GradistillError(
            "The logits have one column: regression has no labels and no probabilities.",
            expected="two columns or more",
            remedy="read `prediction` of loyalty",
        )
    return student, teacher


def _finite_pair(student: np.ndarray, teacher: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both models' logits in float64. Shapes are compared because numpy would broadcast a single row silently."""
    if student.ndim != 2 or student.shape != teacher.shape or student.shape[1] == 0:
        raise GradistillError(
            f"The student's logits have shape {student.shape}, the teacher's {teacher.shape}.",
            expected="one row per example and one column per label, the same for both",
        )
    for owner, logits in (("student", student), ("teacher", teacher)):
        _refuse(np.flatnonzero(~np.isfinite(logits).all(axis=1)), f"The {owner}'s logits are NaN or infinite")
    return student.astype(np.float64), teacher.astype(np.float64)


def _finite_maps(student: Maps, teacher: Maps) -> tuple[list[np.ndarray], list[np.ndarray]]:
    if len(student) != len(teacher):
        raise GradistillError(
            f"The student has {len(student)} saliency maps, the teacher {len(teacher)}.",
            expected="one map per example from both models",
        )
    both = (
        [np.asarray(m, dtype=np.float64) for m in student],
        [np.asarray(m, dtype=np.float64) for m in teacher],
    )
    misfits = [i for i, (s, t) in enumerate(zip(*both, strict=True)) if s.ndim != 1 or s.shape != t.shape]
    _refuse(misfits, "The two saliency maps do not have the same tokens")
    for owner, maps in zip(("student", "teacher"), both, strict=True):
        bad = [i for i, scores in enumerate(maps) if not np.isfinite(scores).all()]
        _refuse(bad, f"The {owner}'s saliency maps are NaN or infinite")
    return both


def _refuse(rows: Sequence[int] | np.ndarray, what: str) -> None:
    """Raise GradistillError with the first of the faulty ``rows``, if there are any."""
    if len(rows):
        named = ", ".join(str(row) for row in rows[:ROWS_NAMED])
        more = f" and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else ""
        raise GradistillError(
            f"{what} for example rows {named}{more}.",
            expected="finite numbers, the same tokens in both models",
        )
