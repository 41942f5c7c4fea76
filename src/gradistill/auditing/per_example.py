"""Columns of an audit: one column for each figure, one entry for each example, NaN where a figure is undefined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import expit

from gradistill.auditing.even_ranges import even_ranges
from gradistill.auditing.loyalty_measures import (
    bernoulli_agreement,
    correlation,
    label_agreement,
    pearson,
    probability_agreement,
)
from gradistill.auditing.map_agreement import map_agreement
from gradistill.auditing.predicted_labels import kappa, kappa_of_flags, macro_f1
from gradistill.auditing.predictions import Predictions
from gradistill.auditing.statistics import (
    Bounds,
    Estimate,
    bootstrap_share,
    bootstrap_statistic,
    mean_estimate,
    ratio,
)

Columns = dict[str, np.ndarray]
Figure = TypeVar("Figure")

GROUPS: dict[str, tuple[str, ...]] = {
    "loyalty": (
        "label", "exact_match", "kappa", "probability", "span", "prediction", "response", "response_masked", "flips",
        "flips_masked", "kept", "kept_masked", "shapley", "expected_gradients", "saliency",
    ),
    "agreement": (
        "response_partial", "response_slope", "response_labels", "shapley_sign", "signed", "signed_top",
        "top_k_overlap", "cosine", "kendall_tau",
    ),
    "quality": (
        "teacher_accuracy", "student_accuracy", "teacher_macro_f1", "student_macro_f1",
        "teacher_correlation", "student_correlation", "teacher_span_f1", "student_span_f1",
        "teacher_span_precision", "student_span_precision", "teacher_span_recall", "student_span_recall",
    ),
    "faithfulness": (
        "teacher_comprehensiveness", "student_comprehensiveness", "teacher_sufficiency", "student_sufficiency",
        "teacher_infidelity", "student_infidelity", "teacher_max_sensitivity", "student_max_sensitivity",
    ),
    "plausibility": (
        "teacher_token_f1", "student_token_f1", "teacher_iou", "student_iou", "teacher_auprc", "student_auprc",
    ),
    "watch": ("teacher_watched_share", "student_watched_share"),
}  # fmt: skip
"""The figures of an audit, by group."""

LESS_IS_BETTER = (
    "teacher_sufficiency", "student_sufficiency", "teacher_infidelity", "student_infidelity",
    "teacher_max_sensitivity", "student_max_sensitivity",
)  # fmt: skip
"""Figures that cannot have a lower limit."""

CHALLENGE = "challenge"
"""The group of an audit's second split. Its figures have the same names as those of the first split."""

CORRELATIONS = {
    "prediction": ("student_prediction", "teacher_prediction"),
    "teacher_correlation": ("teacher_prediction", "gold"),
    "student_correlation": ("student_prediction", "gold"),
}
"""Figures of a regression that are Pearson's r of two columns."""

RATIOS = {
    "response_slope": ("response_product", "response_square"),
    "teacher_infidelity": ("teacher_infidelity_error", "teacher_infidelity_change"),
    "student_infidelity": ("student_infidelity_error", "student_infidelity_change"),
}
"""Figures that are the sum of one column divided by the sum of another. Any figure with two columns ``…_sum`` and
``…_count`` is a ratio too: it is over the words or spans of all rows (``token_loyalty``)."""

OF_LABELS = {
    "kappa": ("student_label", "teacher_label"),
    "teacher_macro_f1": ("teacher_label", "gold"),
    "student_macro_f1": ("student_label", "gold"),
}
"""Figures that are computed from two columns of class ids."""

OF_FLAGS = {"kappa": ("label", "student_share", "teacher_share")}
"""The columns of such figures with several labels a row."""

STATISTICS = {
    **dict.fromkeys(CORRELATIONS, pearson),
    **dict.fromkeys(RATIOS, ratio),
    **dict.fromkeys(OF_LABELS, macro_f1),
    "kappa": kappa,
}
"""Figures that are not the mean of one column, each with the function that computes it from several columns."""

SHARES = ("flips", "flips_masked", "kept", "kept_masked")
"""Figures that are a share of those examples on which they are defined."""

SIGNED = (
    "response",
    "response_partial",
    "response_masked",
    "shapley",
    "expected_gradients",
    "signed",
    "saliency",
    "cosine",
    "kendall_tau",
)
"""Figures with values from −1 to 1; all others have values from 0 to 1."""

ON_WORDS = "on_words"
"""A column of students whose maps are compared with the teacher's on words, as their tokenizers differ."""

AGREEMENT = (*GROUPS["loyalty"], *GROUPS["agreement"])
"""Figures of agreement of two models: each is shown with its floor."""


@dataclass(frozen=True)
class StudentColumns:
    """The ``columns`` of one student over some rows with its own head, and with random heads (``floors``)."""

    columns: Columns
    floors: list[Columns]

    def joined(self, other: StudentColumns) -> StudentColumns:
        """These columns together with ``other`` columns of the same rows."""
        floors = [a | b for a, b in zip(self.floors, other.floors, strict=True)]
        return StudentColumns(self.columns | other.columns, floors)


@dataclass(frozen=True)
class Reference:
    """The ``columns`` of a second teacher, and the columns of each student over the same rows."""

    columns: Columns
    students: list[Columns]


def columns_of(student: Predictions, teacher: Predictions, gold: np.ndarray | None) -> Columns:
    """All columns that follow from both models' predictions. ``gold``: class ids, scores, or flags; None without
    labels. With several labels a row some columns hold one value for each label."""
    columns: Columns = {}
    if teacher.maps and student.maps:
        columns |= map_agreement(student.maps, teacher.maps)
        columns["tokens"] = np.array([len(scores) for scores in teacher.maps])
    if gold is not None:
        columns["gold"] = gold
    if teacher.multi_label:
        return {**columns, **_of_several_labels(student, teacher)}
    if teacher.logits.shape[1] == 1:
        return {
            **columns,
            "student_prediction": student.logits[:, 0],
            "teacher_prediction": teacher.logits[:, 0],
        }
    if gold is not None:
        columns |= {"teacher_accuracy": teacher.labels == gold, "student_accuracy": student.labels == gold}
    return {
        **columns,
        "label": label_agreement(student.logits, teacher.logits),
        "probability": probability_agreement(student.logits, teacher.logits),
        "teacher_label": teacher.labels,
        "student_label": student.labels,
        "teacher_confidence": confidence(teacher.logits),
        "student_confidence": confidence(student.logits),
    }


def _of_several_labels(student: Predictions, teacher: Predictions) -> Columns:
    """The columns with several labels a row: means over labels, and ``exact_match`` over all labels of a row.
    Confidence is the probability of the top label."""
    same = student.flags == teacher.flags
    probability = bernoulli_agreement(student.logits, teacher.logits)
    models = {"teacher": teacher, "student": student}
    return {
        "label": same.mean(axis=1),
        **{f"{name}_share": model.flags.mean(axis=1) for name, model in models.items()},
        "exact_match": same.all(axis=1),
        "probability": probability.mean(axis=1),
        "label_each": same,
        "probability_each": probability,
        **{f"{name}_flags": model.flags for name, model in models.items()},
        **{f"{name}_logits": model.logits for name, model in models.items()},
        **{f"{name}_confidence": expit(model.logits.max(axis=1)) for name, model in models.items()},
    }


def confidence(logits: np.ndarray) -> np.ndarray:
    """The probability of the predicted label."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted.max(axis=1) / shifted.sum(axis=1)


def prefixed(owner: str, columns: Columns) -> Columns:
    """The columns with names that start with their ``owner``: teacher or student."""
    return {f"{owner}_{name}": values for name, values in columns.items()}


def concatenated(parts: Sequence[Columns]) -> Columns:
    """The concatenated columns of several blocks of examples."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def estimates(
    columns: Columns, wanted: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """The figures of the columns with intervals, by group, over the examples where they are defined."""
    by_group: dict[str, dict[str, Estimate]] = {}
    for group, names in GROUPS.items():
        for name in names if wanted is None else [name for name in names if name in wanted]:
            figure = _estimate(columns, name, resamples, seed)
            if figure is not None and figure.n:
                by_group.setdefault(group, {})[name] = figure
    return by_group


def _estimate(columns: Columns, name: str, resamples: int, seed: int) -> Estimate | None:
    values = _measured(columns, name)
    if values is None:
        return None
    if name in CORRELATIONS:
        return correlation(*values, resamples=resamples, seed=seed)
    if _sums(name)[0] in columns:
        return bootstrap_share(*values, resamples=resamples, seed=seed)
    if (statistic := statistic_of(columns, name)) is not None:
        within = bounds_of(name) if statistic is macro_f1 else None
        return bootstrap_statistic(statistic, *values, resamples=resamples, seed=seed, within=within)
    return mean_estimate(values[0], bounds=bounds_of(name), resamples=resamples, seed=seed)


def value_of(columns: Columns, name: str) -> float:
    """The value of a figure without its interval; NaN if columns are missing."""
    values = _measured(columns, name)
    if values is None or not len(values[0]):
        return float("nan")
    if (statistic := statistic_of(columns, name)) is not None:
        return float(statistic(*(column[None] for column in values))[0])
    return float(values[0].mean())


def mean_values(drawn: Sequence[Columns]) -> dict[str, float]:
    """The figures of agreement of the columns, averaged over several draws of a random student.

    A draw counts for the figures that it has. Flip figures are pooled over the edits of all draws, as some random heads
    have few edits or none.
    """
    means = {}
    for name in AGREEMENT:
        with_figure = [columns for columns in drawn if name in columns]
        pooled = (
            [concatenated([{name: columns[name]} for columns in with_figure])]
            if with_figure and name in SHARES
            else drawn
        )
        values = [value for columns in pooled if np.isfinite(value := value_of(columns, name))]
        if values:
            means[name] = float(np.mean(values))
    return means


def measured_columns(columns: Columns, name: str) -> list[np.ndarray] | None:
    """The columns that a figure is computed from; None if one of them is missing.

    Example: ``measured_columns(columns, "prediction")`` returns the predictions of student and teacher
    """
    names = CORRELATIONS.get(name) or RATIOS.get(name) or OF_LABELS.get(name) or (name,)
    names = _sums(name) if _sums(name)[0] in columns else names
    names = OF_FLAGS[name] if _is_of_flags(columns, name) else names
    if any(column not in columns for column in names):
        return None
    return [columns[column] for column in names]


def _measured(columns: Columns, name: str) -> list[np.ndarray] | None:
    """The columns that a figure is computed from, on the examples where it is defined."""
    values = measured_columns(columns, name)
    if values is None:
        return None
    if values[0].dtype == np.bool_:
        return values
    known = np.isfinite(np.stack([np.asarray(column, dtype=np.float64) for column in values])).all(axis=0)
    kept = [np.asarray(column[known], dtype=np.float64) for column in values]
    return [column.astype(bool) for column in kept] if name in SHARES else kept


def _is_of_flags(columns: Columns, name: str) -> bool:
    return name in OF_FLAGS and OF_FLAGS[name][1] in columns


def _sums(name: str) -> tuple[str, str]:
    return f"{name}_sum", f"{name}_count"


def statistic_of(columns: Columns, name: str) -> Callable[..., np.ndarray] | None:
    """The function that computes a figure from its ``measured_columns``; None for the mean of one column.

    Example: ``statistic_of(columns, "span")`` returns ``ratio``
    """
    if _is_of_flags(columns, name):
        return kappa_of_flags
    return ratio if _sums(name)[0] in columns else STATISTICS.get(name)


def bounds_of(figure: str) -> Bounds:
    """The smallest and the largest value that the figure can have on an example."""
    return (-1.0, 1.0) if figure in SIGNED else (0.0, 1.0)


def count_rows(columns: Columns) -> int:
    """The number of examples."""
    return len(next(iter(columns.values())))


def select_rows(columns: Columns, rows: np.ndarray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


PARTS = ("label", "exact_match", "probability", "span", "prediction", "saliency", "top_k_overlap")
"""The figures that are also shown for parts of the examples."""


def by_label(columns: Columns, names: Sequence[str]) -> dict[str, Columns]:
    """The columns split by the teacher's label.

    With several labels a row: the rows to which the teacher assigns the label, with the agreement on this label. In
    token classification: the rows in which the teacher gives the label to a word, with the figures of these words.
    """
    if "label_sum_each" in columns:
        sums, counts = columns["label_sum_each"], columns["label_count_each"]
        parts = {name: {"label_sum": sums[:, k], "label_count": counts[:, k]} for k, name in enumerate(names)}
        return {n: select_rows(p, p["label_count"] > 0) for n, p in parts.items() if p["label_count"].any()}
    if "teacher_flags" in columns:
        flags = columns["teacher_flags"]
        parts = {name: select_rows(columns, flags[:, k]) for k, name in enumerate(names)}
        return {
            name: part | {kind: part[f"{kind}_each"][:, k] for kind in ("label", "probability")}
            for k, (name, part) in enumerate(parts.items())
            if count_rows(part)
        }
    if "teacher_label" not in columns:
        return {}
    split = {name: select_rows(columns, columns["teacher_label"] == k) for k, name in enumerate(names)}
    return {name: part for name, part in split.items() if count_rows(part)}


def group_by_length(columns: Columns, parts: int = 3) -> dict[str, Columns]:
    """The columns split by length into about equal parts (``even_ranges``), in ascending order.

    Length is in tokens, or in words if tokens are unknown. A part is named by its shortest and longest example.
    """
    unit = "tokens" if "tokens" in columns else "words"
    lengths = columns[unit]
    groups = {}
    for _, _, inside in even_ranges(lengths, parts):
        low, high = int(lengths[inside].min()), int(lengths[inside].max())
        groups[f"{low}–{high} {unit}" if high > low else f"{low} {unit}"] = select_rows(columns, inside)
    return groups


def by_confidence(columns: Columns, parts: int = 5) -> dict[tuple[float, float], Columns]:
    """The examples by the teacher's confidence, in about equal parts (``even_ranges``)."""
    if "teacher_confidence" not in columns:
        return {}
    ranges = even_ranges(columns["teacher_confidence"], parts)
    return {(low, high): select_rows(columns, inside) for low, high, inside in ranges}


def calibration(sure: np.ndarray, right: np.ndarray, bins: int = 10) -> dict[str, object]:
    """Mean confidence and accuracy in bins of equal width, and the expected calibration error (Guo et al. 2017)."""
    which = np.clip((sure * bins).astype(int), 0, bins - 1)
    entries = [
        {"confidence": float(sure[which == k].mean()), "accuracy": float(right[which == k].mean()),
         "n": int((which == k).sum())}
        for k in np.unique(which)
    ]  # fmt: skip
    error = sum(entry["n"] * abs(entry["confidence"] - entry["accuracy"]) for entry in entries) / max(
        len(sure), 1
    )
    return {"error": error, "bins": entries}


def as_dict(figures: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, object]]:
    return {group: {name: e.as_dict() for name, e in named.items()} for group, named in figures.items()}


def without_groups(figures: Mapping[str, Mapping[str, Figure]]) -> dict[str, Figure]:
    """All figures by name, without groups and without the challenge split."""
    return {name: e for group, named in figures.items() if group != CHALLENGE for name, e in named.items()}
