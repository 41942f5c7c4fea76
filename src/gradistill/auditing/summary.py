"""Computes ``audit.json`` from columns: figures with intervals, parts, comparisons and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from math import isfinite
from typing import Any

from gradistill.auditing.comparison import Comparison, compared, compared_with
from gradistill.auditing.figure_meanings import meanings_of
from gradistill.auditing.methods import Method
from gradistill.auditing.per_example import (
    AGREEMENT,
    CHALLENGE,
    GROUPS,
    PARTS,
    Columns,
    Reference,
    StudentColumns,
    as_dict,
    by_confidence,
    by_label,
    calibration,
    count_rows,
    estimates,
    group_by_length,
    mean_values,
    without_groups,
)
from gradistill.auditing.predicted_labels import disagreements, label_pairs, label_rows
from gradistill.auditing.slices import by_values, worst_slices
from gradistill.auditing.statistics import Estimate
from gradistill.auditing.trained_figures import united, with_trained_on
from gradistill.data import Task
from gradistill.printing import between, percent

SCHEMA = 5
"""Version of ``audit.json``. It increases when a key is removed or changes its meaning, or when figures get new keys.
2: ``response`` and ``response_masked`` with ``floor`` and ``gain``. 3: ``label``, ``probability``, ``prediction`` and
``saliency`` in place of ``label_loyalty`` and the like; ``flips``, ``kept``, ``shapley``; floors of all figures of
agreement; ``reference`` and ``cascade``. 4: ``trained_on`` of figures. 5: ``difference``, ``p`` and
``p_corrected`` of a reference.
"""

ABOUT = ("data", "texts", "teacher", "reference", "settings", "versions", "seconds")
"""Keys that ``audit.json`` takes from the job unchanged."""

EXPLAINED = "How much the log-odds of the teacher's label (in a regression the prediction) depend on a token. Source: "


@dataclass(frozen=True)
class PerturbationResult:
    """The results of one perturbation: the columns of each student."""

    name: str
    description: str
    columns: list[Columns]


@dataclass(frozen=True)
class Audited:
    """The measurements of an audit. Lists have one entry for each student, in the order of ``names``, except
    ``perturbations``.

    ``sampled``: figures on a sample of the rows with their own floors, by part: response and flips, Shapley values,
    expected gradients. ``floors``: floors of the figures that come from ``columns``. ``reference``: the agreement of a
    second teacher with the first. ``cascade``: figures of agreement with a random head, then also with a random last
    block, and so on. ``slices``: the values of data columns, one for each row. ``tables``: label tables of each
    student, if they do not follow from ``columns``. ``when_random``: agreement of the teacher's maps with its maps
    under random weights. ``trained``: the figures that each student's objectives train on (``trained_figures``).
    """

    names: list[str]
    columns: list[Columns]
    faithful: list[Columns] | None
    challenge: list[Columns] | None
    perturbations: list[PerturbationResult]
    sampled: list[list[StudentColumns]] = field(default_factory=list)
    floors: list[dict[str, float]] = field(default_factory=list)
    reference: Reference | None = None
    cascade: list[list[dict[str, float]]] | None = None
    slices: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    when_random: Mapping[str, Estimate] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    trained: list[dict[str, list[str]]] = field(default_factory=list)

    def floor(self, k: int) -> dict[str, float]:
        """The floors of the k-th student's figures of agreement."""
        floors = dict(self.floors[k]) if self.floors else {}
        for part in self.sampled:
            floors |= mean_values(part[k].floors)
        return floors


def _described(method: Method) -> dict[str, Any]:
    settings = asdict(method) if is_dataclass(method) else {}
    shown = "; ".join([method.source, *(f"{name} {value}" for name, value in settings.items())])
    return {
        "method": method.name, "title": method.title, "description": EXPLAINED + shown, "settings": settings,
    }  # fmt: skip


def summed_up(
    audited: Audited,
    about: Mapping[str, Any],
    method: Method,
    task: Task,
    limits: Mapping[str, float],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of ``audit.json`` (docs/audit.md). ``about`` has the records of models, data and versions."""
    students = []
    reference = _reference(audited, seed)
    for k, name in enumerate(audited.names):
        figures = _figures(audited, k, seed)
        trained = audited.trained[k] if audited.trained else {}
        shown = _with_reference(as_dict(figures), reference.get(name, {}))
        students.append({
            **about["students"][k], "name": name, "verdict": _verdict(without_groups(figures), trained),
            "figures": {group: with_trained_on(named, trained) for group, named in shown.items()},
            **_parts(audited, k, task, seed, trained),
            **({"cascade": _cascade(audited.cascade[k])} if audited.cascade else {}),
        })  # fmt: skip
    sampled = [[own.columns for own in part] for part in audited.sampled]
    parts = [part for part in (audited.columns, audited.faithful, *sampled) if part]
    students_of = [dict(zip(audited.names, part, strict=True)) for part in parts]
    summary = {
        "schema": SCHEMA,
        "attribution": {
            **_described(method),
            "randomised": {part: estimate.as_dict() for part, estimate in audited.when_random.items()},
        },
        **{name: about[name] for name in ABOUT if about.get(name) is not None},
        "students": students,
        "calibration": _calibration(audited),
        "comparisons": [_difference(entry, audited) for entry in compared(students_of, seed=seed)],
        "meanings": meanings_of(task.kind),
    }
    return with_limits(summary, limits)


def _figures(audited: Audited, k: int, seed: int) -> dict[str, dict[str, Estimate]]:
    figures = estimates(audited.columns[k], seed=seed)
    if audited.faithful:
        figures |= estimates(audited.faithful[k], GROUPS["faithfulness"], seed=seed)
    for part in audited.sampled:
        for group, measured in estimates(part[k].columns, AGREEMENT, seed=seed).items():
            figures[group] = figures.get(group, {}) | measured
    figures = _in_order(figures, audited.floor(k))
    if audited.challenge:
        wanted = (*PARTS, *GROUPS["quality"])
        figures[CHALLENGE] = without_groups(estimates(audited.challenge[k], wanted, seed=seed))
    return figures


def _reference(audited: Audited, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """For each student: the reference's figures, and the student's differences from them on the same rows."""
    if audited.reference is None:
        return {}
    figures = without_groups(estimates(audited.reference.columns, AGREEMENT, seed=seed))
    found: dict[str, dict[str, dict[str, Any]]] = {
        name: {figure: {**e.as_dict()} for figure, e in figures.items()} for name in audited.names
    }
    students = dict(zip(audited.names, audited.reference.students, strict=True))
    for entry in compared_with(("reference", audited.reference.columns), students, seed=seed):
        found[entry.a][entry.figure] |= {
            "difference": entry.difference.as_dict(), "p": entry.p, "p_corrected": entry.p_corrected,
        }  # fmt: skip
    return found


def _with_reference(
    figures: dict[str, dict[str, Any]], reference: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The figures, each with the reference's figure if there is one. The challenge split has no reference."""
    return {
        group: {
            name: entry | ({"reference": reference[name]} if name in reference and group != CHALLENGE else {})
            for name, entry in named.items()
        }
        for group, named in figures.items()
    }


def _cascade(steps: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    return [{"blocks": blocks, "figures": dict(figures)} for blocks, figures in enumerate(steps)]


def _in_order(
    figures: Mapping[str, Mapping[str, Estimate]], floors: Mapping[str, float]
) -> dict[str, dict[str, Estimate]]:
    """The figures in the order of ``GROUPS``, with their floors."""
    ordered: dict[str, dict[str, Estimate]] = {}
    for group, names in GROUPS.items():
        for name in names:
            if (estimate := figures.get(group, {}).get(name)) is not None:
                if (floor := floors.get(name)) is not None:
                    estimate = estimate.with_floor(floor, at_most_1=name != "response_slope")
                ordered.setdefault(group, {})[name] = estimate
    return ordered


def _difference(entry: Comparison, audited: Audited) -> dict[str, Any]:
    """The difference of two students on one figure, with the marks of figures that either was trained on."""
    trained, record = dict(zip(audited.names, audited.trained, strict=False)), entry.as_dict()
    either = united(*(trained.get(side, {}) for side in (entry.a, entry.b)))
    return record | {
        "difference": with_trained_on({entry.figure: record["difference"]}, either)[entry.figure]
    }


def _parts(
    audited: Audited, k: int, task: Task, seed: int, trained: Mapping[str, list[str]]
) -> dict[str, Any]:
    """The loyalties by label, length and confidence, and under each perturbation."""

    def shown(columns: Columns) -> dict[str, Any]:
        figures = without_groups(estimates(columns, PARTS, seed=seed))
        found = {name: e.as_dict() for name, e in figures.items()}
        return {"n": count_rows(columns), "figures": with_trained_on(found, trained)}

    own = audited.columns[k]
    found = {
        "by_label": [{"label": n, **shown(part)} for n, part in by_label(own, task.labels or ()).items()],
        "by_length": [{"label": n, **shown(part)} for n, part in group_by_length(own).items()],
        "by_confidence": [
            {"low": round(a, 6), "high": round(b, 6), **shown(part)}
            for (a, b), part in by_confidence(own).items()
        ],
        "perturbations": [
            {"name": p.name, "description": p.description, **shown(p.columns[k])}
            for p in audited.perturbations
        ],
        "by_column": [
            {
                "column": column,
                "parts": [{"label": n, **shown(part)} for n, part in by_values(own, values).items()],
            }
            for column, values in audited.slices.items()
        ],
    }
    found["worst_slices"] = worst_slices(found)
    return found | (audited.tables[k] if audited.tables else _label_tables(own, task))


def _label_tables(own: Columns, task: Task) -> dict[str, Any]:
    if task.labels is None or task.multi_label:
        return {"labels": label_rows(own, task.labels or ())} if task.multi_label else {}
    return {
        "confusion": label_pairs(own["student_label"], own["teacher_label"], task.labels),
        "disagreements": disagreements(own["label"], own["teacher_confidence"]),
    }


def _calibration(audited: Audited) -> list[dict[str, Any]]:
    first = audited.columns[0]
    if not {"teacher_confidence", "teacher_accuracy"} <= first.keys():
        return []
    found = [{"name": "teacher", **calibration(first["teacher_confidence"], first["teacher_accuracy"])}]
    for name, own in zip(audited.names, audited.columns, strict=True):
        found.append({"name": name, **calibration(own["student_confidence"], own["student_accuracy"])})
    return found


def with_limits(audit: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    """The content of ``audit.json`` with these ``limits``: which figures are below them, and the verdict. ``audit`` may
    have other limits, or none yet.

    Example: ``with_limits(audit, {"response": 0.8})["failed"]``
    """
    students = audit["students"]
    failed = [fault for student in students for fault in _under(student["name"], student["figures"], limits)]
    of_limits = {
        "schema": audit["schema"],
        "verdict": _whole_verdict(students, failed, limits),
        "failed": failed,
    }
    return of_limits | {name: part for name, part in audit.items() if name not in of_limits}


def _under(
    name: str, groups: Mapping[str, Mapping[str, Any]], limits: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The figures that are below their limit or missing."""
    figures = without_groups(groups)
    values = {name: (figures.get(name) or {}).get("value") for name in limits}
    return [
        {"student": name, "figure": figure, "value": value, "limit": limits[figure]}
        for figure, value in values.items()
        if value is None or value < limits[figure]
    ]


def _verdict(figures: Mapping[str, Estimate], trained: Mapping[str, Sequence[str]]) -> str:
    parts = []
    if "span" in figures:
        parts.append(f"predicts the teacher's tag for {percent(figures['label'].value)} of the words")
        span = figures["span"].value
        parts.append(
            f"predicts the teacher's spans with an F1 of {span:.2f}"
            if isfinite(span)
            else "predicts no spans, and nor does the teacher"
        )
    elif "exact_match" in figures:
        parts.append(
            f"agrees with its teacher on {percent(figures['label'].value)} of all labels, and on every label of "
            f"{percent(figures['exact_match'].value)} of the examples"
        )
    elif "label" in figures:
        parts.append(f"decides as its teacher on {percent(figures['label'].value)} of the examples")
    if "prediction" in figures and isfinite(figures["prediction"].value):
        parts.append(
            f"predicts scores that correlate with its teacher's (r = {figures['prediction'].value:.2f})"
        )
    if "response" in figures:
        own = ", on which it was trained," if "response" in trained else ""
        parts.append(f"reacts to changed words{own} as its teacher with r = {_ranging(figures['response'])}")
    if "expected_gradients" in figures and "expected_gradients" not in trained:
        rho = _ranging(figures["expected_gradients"])
        parts.append(f"attributes its predictions to words as its teacher with ρ = {rho}")
    return ", and ".join(parts) or "was not compared: its figures are not defined on these rows"


def _ranging(figure: Estimate) -> str:
    known = isfinite(figure.low)
    return f"{figure.value:z.2f}" + f" ({between(f'{figure.low:z.2f}', f'{figure.high:z.2f}')})" * known


def _whole_verdict(
    students: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> str:
    if failed:
        short = ", ".join(f"{f['figure']} of {f['student']}" for f in failed)
        return f"Below the limit: {short}."
    verdicts = "; ".join(f"{student['name']} {student['verdict']}" for student in students)
    return f"{'Within all limits: ' if limits else ''}{verdicts}."
