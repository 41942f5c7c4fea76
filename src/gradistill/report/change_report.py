"""The parts of an audit's page besides its figures: verdict, identity, labels, failures, and what to monitor.

Every part may be missing from an audit. Missing parts are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.statistics import rows_to_show
from gradistill.printing import percent
from gradistill.report.audit_tables import (
    capital,
    cell,
    direction_of,
    shown_names,
    student_names,
    students_of,
)
from gradistill.report.model_card import public_name
from gradistill.report.number_text import count, decimal, finite
from gradistill.report.page_examples import flip_view, visible

OUTCOMES = {
    "pass": "No check warns or fails.",
    "warn": "No check fails, but at least one warns.",
    "fail": "At least one check fails.",
}
"""The sentence behind each outcome."""

MOST_LABELS = 12
"""With more labels only the most frequent pairs of different labels are shown, not the whole matrix."""

MOST_PAIRS = 20
FAILURES_SHOWN = 3
"""The number of known failures of a student on the page; all are in ``examples.jsonl``."""


def verdict_view(audit: Mapping[str, Any]) -> dict[str, Any] | None:
    """The outcome of the audit and of each student with its checks; None for an audit of an earlier version."""
    assessment = audit.get("assessment")
    if not isinstance(assessment, Mapping) or assessment.get("outcome") not in OUTCOMES:
        return None
    students = [
        _assessed(name, student)
        for name, student in zip(student_names(audit), students_of(audit), strict=True)
    ]
    outcome = str(assessment["outcome"])
    data = [_check(check) for check in assessment.get("checks") or []]
    return {
        "outcome": outcome,
        "sentence": OUTCOMES[outcome] + _counted(students),
        "students": students,
        "data": data,
        "notes": list(assessment.get("notes") or []),
        "open": [*(check for student in students for check in student["open"]), *_open(data)],
    }


def _open(checks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [check for check in checks if check["outcome"] != "pass"]


def _counted(students: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the number of students with each outcome; blank for a single student."""
    if len(students) < 2:
        return ""
    outcomes = [student["outcome"] for student in students]
    verbs = {"pass": "passes", "warn": "warns", "fail": "fails"}
    parts = [
        f"{n} {verb if n == 1 else outcome}"
        for outcome, verb in verbs.items()
        if (n := outcomes.count(outcome))
    ]
    return f" Of {len(students)} students {', '.join(parts)}."


def _assessed(name: str, student: Mapping[str, Any]) -> dict[str, Any]:
    assessment = student.get("assessment") or {}
    checks = [_check(check) for check in assessment.get("checks") or []]
    return {
        "name": name,
        "outcome": str(assessment.get("outcome") or "warn"),
        "sentence": public_name(str(student.get("verdict") or "")),
        "checks": checks,
        "open": _open(checks),
        "notes": [*(assessment.get("notes") or []), *reference_note(student)],
    }


def reference_note(student: Mapping[str, Any]) -> list[str]:
    """The comparison of the student with a second teacher, as a list of one sentence; empty without one.

    Example: ``reference_note(audit["students"][0])``
    """
    note = (student.get("assessment") or {}).get("reference")
    return [str(note)] if note else []


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    more = check.get("figure") not in ("overlap", "cut", "unpredicted")
    return {
        "name": capital(str(check.get("name"))),
        "value": _plain(check.get("compared", check.get("value"))),
        "warn": _bound(check.get("warn_limit"), more=more),
        "fail": _bound(check.get("fail_limit"), more=more),
        "outcome": str(check.get("outcome")),
        "reason": str(check.get("reason") or ""),
        "why": str(check.get("why") or ""),
    }


def _plain(value: Any) -> str | None:
    return str(value) if isinstance(value, int) else decimal(value)


def _bound(value: Any, *, more: bool) -> str | None:
    number = finite(value)
    return None if number is None else f"{'below' if more else 'above'} {number:g}"


def identity(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Size, hashes and recipe of every model: the teacher, the students, the reference."""
    names = shown_names(audit)
    reference = audit.get("reference")
    models = [("teacher", audit.get("teacher") or {}), *(("student", s) for s in students_of(audit))]
    models += [("reference", reference)] if isinstance(reference, Mapping) else []
    return [
        {
            "role": role,
            "name": names.get(raw := str(model.get("name") or "unnamed"), public_name(raw)),
            "layers": count(model.get("layers")),
            "hidden": count(model.get("hidden")),
            "parameters": count(model.get("parameters")),
            "hashes": [(title, model[key]) for key, title in HASHES.items() if model.get(key)],
            "recipe": _preformatted(model.get("recipe")),
        }
        for role, model in models
    ]


HASHES = {"sha256": "SHA-256 of the weights file", "fingerprint": "SHA-256 of configuration and weights"}
"""Keys of hashes of a model in ``audit.json``, and their titles."""


def _preformatted(text: Any) -> Markup | None:
    """Escaped text for a ``<pre>`` element, with its line ends; None for blank text."""
    return Markup(escape(visible(text))) if isinstance(text, str) and text.strip() else None


def label_tables(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each student the confusion of both models' labels, and disagreements by the teacher's confidence."""
    tables = []
    for name, student in zip(student_names(audit), students_of(audit), strict=True):
        pairs = [pair for pair in student.get("confusion") or [] if isinstance(pair, Mapping)]
        bins = list(student.get("disagreements") or [])
        if pairs or bins:
            tables.append({"name": name, **_confusion(pairs), "disagreements": _disagreements(bins)})
    return tables


def _confusion(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A matrix for few labels; for many labels the most frequent pairs of different labels."""
    totals = _totals(pairs, "teacher")
    labels = [label for label, _ in totals.most_common()]
    labels += [label for label in _totals(pairs, "student") if label not in totals]
    if len(labels) > MOST_LABELS:
        different = [pair for pair in pairs if pair["teacher"] != pair["student"]]
        return {"labels": [], "matrix": [], "pairs": different[:MOST_PAIRS], "pair_count": len(different)}
    counts = {(str(pair["teacher"]), str(pair["student"])): pair["n"] for pair in pairs}
    matrix = [(t, [(s, counts.get((t, s), 0), s == t) for s in labels], totals[t]) for t in labels]
    return {"labels": labels, "matrix": matrix, "pairs": [], "pair_count": 0}


def _totals(pairs: Sequence[Mapping[str, Any]], owner: str) -> Counter[str]:
    """The number of predictions of each label by a model."""
    totals: Counter[str] = Counter()
    for pair in pairs:
        totals[str(pair[owner])] += pair["n"]
    return totals


def _disagreements(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    whole = sum(part["other"] for part in bins)
    return [
        {
            "name": f"{100 * part['low']:g}–{100 * part['high']:g} %",
            "n": count(part["n"]),
            "other": count(part["other"]),
            "rate": percent(part["other"] / part["n"]) if part["n"] else None,
            "share": percent(part["other"] / whole) if whole else None,
        }
        for part in bins
    ]


def calibration_table(audit: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The expected calibration error of each model."""
    names = shown_names(audit)
    return [
        (names.get(str(part.get("name")), public_name(str(part.get("name")))), decimal(part.get("error")))
        for part in audit.get("calibration") or []
    ]


def worst_parts(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the examples with the least agreement, each student's worst first."""
    return [
        {
            "student": name,
            "by": capital(str(part.get("by"))),
            "name": str(part.get("name")),
            "figure": f"{title_of(str(part.get('figure')))} {direction_of(str(part.get('figure')))}",
            "cell": cell(part),
        }
        for name, student in zip(student_names(audit), students_of(audit), strict=True)
        for part in student.get("worst_slices") or []
    ]


def known_failures(audit: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The examples with the largest disagreement of each student, and edits that change the teacher's label only."""
    failures = []
    for k, name in enumerate(student_names(audit)):
        answers = [(e, e["students"][k]) for e in examples if len(e.get("students") or []) > k]
        differing = [(e, a) for e, a in answers if a.get("same_label") is not True]
        differing.sort(key=lambda pair: -(finite(pair[1].get("disagreement")) or 0.0))
        unchanged = [(e, f) for e, _ in answers if (f := e.get("flip")) and _stays(f, k)]
        failures.append({
            "name": name,
            "examples": [_failure(e, a) for e, a in differing[:FAILURES_SHOWN]],
            "flips": [_flip(e, f, k) for e, f in unchanged[:FAILURES_SHOWN]],
        })  # fmt: skip
    return [entry for entry in failures if entry["examples"] or entry["flips"]]


def _stays(flip: Mapping[str, Any], k: int) -> bool:
    students = flip.get("students") or []
    return len(students) > k and students[k] != flip.get("teacher")


def _failure(example: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": example.get("index"),
        "gold": example.get("gold"),
        "texts": [str(text) for text in example.get("texts") or []],
        "teacher": _answer(example.get("teacher") or {}),
        "student": _answer(answer),
    }


def _answer(answer: Mapping[str, Any]) -> str:
    if answer.get("label") is None:
        return decimal(answer.get("prediction")) or ""
    sure = finite(answer.get("confidence"))
    return f"{answer['label']}" + (f", {percent(sure)}" if sure is not None else "")


def _flip(example: Mapping[str, Any], flip: Mapping[str, Any], k: int) -> dict[str, Any]:
    shown = flip_view([str(text) for text in example.get("texts") or []], flip) or {}
    return {"index": example.get("index"), "changes": shown.get("changes") or [], "teacher": flip.get("teacher"),
            "student": (flip.get("students") or [])[k]}  # fmt: skip


def watch_list(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each student, the figures to monitor in production, with this audit's values as the baseline."""
    lists = []
    for name, student in zip(student_names(audit), students_of(audit), strict=True):
        lines = [
            *_label_lines(student),
            *_agreement_line(student),
            *_slice_line(student),
            *_failing_lines(student),
        ]
        if lines:
            lists.append({"name": name, "lines": lines})
    return lists


def _label_lines(student: Mapping[str, Any]) -> list[str]:
    totals = _totals(student.get("confusion") or [], "student")
    whole = totals.total()
    if not whole:
        return []
    shares = ", ".join(f"{label} {percent(n / whole)}" for label, n in totals.most_common(MOST_LABELS))
    more = f" and {len(totals) - MOST_LABELS} labels more" if len(totals) > MOST_LABELS else ""
    return [f"The shares of the predicted labels. In this audit: {shares}{more}."]


def _agreement_line(student: Mapping[str, Any]) -> list[str]:
    figures = (student.get("figures") or {}).get("loyalty") or {}
    value = finite((figures.get("label") or {}).get("value"))
    if value is None:
        return []
    return [
        f"Agreement with the teacher on a sample. In this audit: {percent(value)}; {rows_to_show(value):,} rows show "
        "it to within 5 points."
    ]


def _slice_line(student: Mapping[str, Any]) -> list[str]:
    parts = [p for p in student.get("worst_slices") or [] if finite(p.get("value")) is not None]
    if not parts:
        return []
    named = "; ".join(f"{p.get('by')} {p.get('name')}: {p['value']:.2f}" for p in parts)
    return [f"The parts with the least agreement. In this audit: {named}."]


def _failing_lines(student: Mapping[str, Any]) -> list[str]:
    checks = (student.get("assessment") or {}).get("checks") or []
    names = list(dict.fromkeys(str(c.get("name")) for c in checks if c.get("outcome") != "pass"))
    return [f"Checks that warn or fail here: {', '.join(names)}."] if names else []
