"""A run, an audit or a project as tables for the terminal: teacher and student, loyalties, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gradistill.auditing.trained_figures import title_with_dagger, trained_note
from gradistill.auditing.verdict import reference_comparisons
from gradistill.data.tasks import metric_title
from gradistill.printing import printable
from gradistill.report.number_text import interval, probability
from gradistill.report.terminal import results_table

RANDOM_HEAD, UNTRAINED = "the student with a random head", "the student before its first step"
"""The model whose figures are the floors: in an audit, and in a run. An audit does not have the untrained student."""
FLOOR = "floor: {}, which has learnt nothing"
FLOOR_NOTE = f"{FLOOR}; gain: (value - floor) / (1 - floor), 0 or less is no better than the floor"

CONSTANT = "constant prediction"
"""The name of the row with the best value of each metric that any constant prediction reaches."""
COLUMNS_OF_METRICS = 2
"""Up to this number of metrics share the table of models; more get their own table, which fits 80 columns."""


def role_of(metrics: Mapping[str, Any]) -> str:
    """The role of the trained model: ``student`` with a teacher, otherwise ``model``."""
    return "student" if metrics.get("teacher") else "model"


@dataclass(frozen=True)
class RunModel:
    """One model of a run: its role, its entry in ``metrics.json``, and its metrics by display name, on the validation
    and on the test rows. The constant prediction is one too, without an entry."""

    role: str
    about: Mapping[str, Any]
    scores: Mapping[str, float]
    tested: Mapping[str, float]


def run_models(metrics: Mapping[str, Any]) -> list[RunModel]:
    """The teacher, if there is one, the trained model, and the constant prediction, if it was measured."""

    def of(role: str, about: Mapping[str, Any] | None, scores: str, tested: str) -> RunModel:
        named = [
            {
                metric_title(name, metrics.get("positive")): value
                for name, value in (metrics.get(key) or {}).items()
            }
            for key in (scores, tested)
        ]
        return RunModel(role, about or {}, *named)

    teacher = of("teacher", metrics.get("teacher"), "teacher_eval", "teacher_test")
    student = of(role_of(metrics), metrics.get("student"), "eval", "test")
    constant = of(CONSTANT, None, "constant_eval", "constant_test")
    return [m for m in (teacher, student, constant) if m.about or (m is constant and m.scores)]


def run_table(metrics: Mapping[str, Any]) -> RenderableType:
    """The content of ``metrics.json`` as tables."""
    models = run_models(metrics)
    rows_and_scores = [
        ({"model": m.role} | {name: m.about.get(name) for name in ("name", "layers", "parameters")}, m.scores)
        for m in models
    ]
    title = f"{metrics['method']} on {metrics['task']}, seed {metrics['seed']}"
    wide = len(rows_and_scores[0][1]) > COLUMNS_OF_METRICS
    parts: list[RenderableType] = [
        results_table(
            [about if wide else {**about, **scores} for about, scores in rows_and_scores], title=title
        )
    ]
    if wide:
        parts.append(results_table([{"model": m.role, **m.scores} for m in models]))
    if rows := [{"on the test split": m.role, **m.tested} for m in models if m.tested]:
        parts.append(results_table(rows))
    if loyalty := metrics["loyalty"]:
        measured = {name: entry for name, entry in loyalty.items() if isinstance(entry, Mapping)}
        loyal = [
            {
                "loyalty": title_with_dagger(name, entry),
                "value": entry["value"],
                "95 % CI": interval(entry),
                "n": entry["n"],
            }
            | {key: entry[key] for key in ("floor", "gain") if entry.get(key) is not None}
            for name, entry in measured.items()
        ]
        notes = floor_note(measured.values(), UNTRAINED), trained_note(measured.values())
        parts += [results_table(loyal), *_notes(*notes)]
    return Group(*parts, _times(metrics), *_warnings(metrics))


def _notes(*notes: str | None) -> list[Text]:
    return [Text(note, style="italic") for note in notes if note]


def floor_note(figures: Iterable[Mapping[str, Any]], floor: str) -> str | None:
    """The note on floor and gain, if a figure has them."""
    return FLOOR_NOTE.format(floor) if any(figure.get("floor") is not None for figure in figures) else None


def _warnings(found: Mapping[str, Any]) -> list[Text]:
    return [Text(printable(f"WARNING: {warning}")) for warning in found.get("warnings") or ()]


def _times(metrics: Mapping[str, Any]) -> Text:
    timing = metrics["timing"]
    return Text(
        printable(
            f"trained in {timing['train_s']:.0f} s ({timing['examples_per_s']:.0f} examples/s); "
            f"teacher signals took {timing['signals_s']:.0f} s; peak memory {timing['peak_rss_mb']:.0f} MB"
        )
    )


def pretraining_table(metrics: Mapping[str, Any]) -> RenderableType:
    """The content of ``metrics.json`` of a pre-training: distances on held-out texts, before and after."""
    held_out, student = metrics["held_out"], metrics["student"]
    rows = [
        {"distance": name, "before": value, "after": held_out["after"][name]}
        for name, value in held_out["before"].items()
    ]
    title = f"{student['layers']} layers × {student['hidden']}, on {held_out['n']} texts held out"
    return Group(results_table(rows, title=title), _times(metrics))


def audit_view(audit: Mapping[str, Any]) -> RenderableType:
    """The content of ``audit.json``: a table of figures for each student, and the verdict below."""
    parts: list[RenderableType] = []
    for student in audit["students"]:
        parts.append(
            Text(printable(f"{student['name']} compared with {audit['teacher']['name']}"), style="bold")
        )
        for group, figures in student["figures"].items():
            parts.append(results_table([_figure(*entry) for entry in figures.items()], title=group))
        if entries := reference_comparisons(student):
            rows = [_difference(entry) for entry in entries]
            parts.append(results_table(rows, title="student minus reference, on the same rows"))
    every = [f for s in audit["students"] for group in s["figures"].values() for f in group.values()]
    parts += _notes(floor_note(every, RANDOM_HEAD), trained_note(every))
    if rows := audit_metrics(audit):
        parts.append(results_table(rows, title="metrics of the task"))
    if rows := verdict_rows(audit):
        parts.append(results_table(rows, title=f"verdict: {audit['assessment']['outcome']}"))
    return Group(*parts, Text(printable(audit["verdict"])), *_warnings(audit))


def project_view(found: Mapping[str, Any]) -> RenderableType:
    """The result of ``commands.run`` as tables: the student, and the outcome of each stage."""
    rows = [
        {"stage": name, "outcome": entry["outcome"], "seconds": entry.get("seconds")}
        for name, entry in found["stages"].items()
    ]
    audit, failed = found.get("audit") or {}, found["failed"]
    verdict = [Text(printable(audit["verdict"]))] if audit.get("verdict") else []
    return Group(
        run_table(found["student"]),
        results_table(rows, title="stages"),
        *verdict,
        *(Text(printable(f"FAILED: {sentence}")) for sentence in failed),
    )


def _figure(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    reference = figure.get("reference")
    return {
        "figure": title_with_dagger(name, figure),
        "value": figure["value"],
        "95 % CI": interval(figure),
        "n": figure["n"],
        **{key: figure[key] for key in ("floor", "gain") if key in figure},
        **({"reference": reference["value"]} if reference else {}),
    }


def _difference(entry: Mapping[str, Any]) -> dict[str, Any]:
    difference = entry["difference"]
    return {
        "figure": title_with_dagger(entry["figure"], difference),
        "difference": difference["value"],
        "95 % CI": interval(difference),
        "n": difference.get("n"),
        "p": probability(entry["p"]),
        "p, corrected": probability(entry["p_corrected"]),
    }


def verdict_rows(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each check that warns or fails, and one for a student without any. Empty for an audit of an earlier
    version."""
    rows = []
    students = [(s["name"], s["assessment"]) for s in audit.get("students") or [] if s.get("assessment")]
    for name, part in [("data", audit.get("assessment") or {}), *students]:
        open_checks = [check for check in part.get("checks") or [] if check["outcome"] != "pass"]
        rows += [
            {"about": name, "outcome": c["outcome"], "check": c["name"], "finding": c["reason"]}
            for c in open_checks
        ]
        if not open_checks and name != "data":
            rows.append({"about": name, "outcome": part["outcome"], "check": "all", "finding": None})
    return rows


def audit_metrics(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model with the task's metrics; F1 with its class. Empty for an audit of an earlier version."""
    positive = (audit.get("data") or {}).get("positive")
    return [
        {"model": model, **{metric_title(name, positive): value for name, value in scores.items()}}
        for model, scores in audit_scores(audit)
    ]


def audit_scores(audit: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The task's metrics of each model of an audit, and then of the constant prediction."""
    constant = audit.get("constant_metrics")
    return [*(audit.get("metrics") or {}).items(), *([(CONSTANT, constant)] if constant else [])]
