"""The summary of a project: one HTML page about teacher, student, audit and export, with links to their own pages.

As on the page of an audit, text from outside never becomes markup, and nothing is loaded from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.per_example import without_groups
from gradistill.auditing.trained_figures import trained_note
from gradistill.data.tasks import metric_title
from gradistill.recipe.checkpoint_choice import keeps_best
from gradistill.report.audit_tables import capital, cell, students_of
from gradistill.report.change_report import reference_note, verdict_view
from gradistill.report.export_tables import NAMES, loyalty_rows, size_rows, speed_note, speed_rows
from gradistill.report.html import asset, page_template, policy
from gradistill.report.model_card import audit_warnings, label_kind, public_name
from gradistill.report.number_text import count, decimal
from gradistill.report.run_summary import RANDOM_HEAD, UNTRAINED, run_models

HEADLINES = (
    "response",
    "span",
    "flips",
    "shapley",
    "expected_gradients",
    "label",
    "kappa",
    "probability",
    "prediction",
    "saliency",
)
"""The figures of an audit that are shown, those of reasons first; all are on the page of the audit."""


def project_page(
    found: Mapping[str, Any], name: str, links: Sequence[tuple[str, str]], settings: Mapping[str, Any]
) -> str:
    """The whole HTML file.

    Parameters:
        ``found``: ``teacher``, ``student``, ``audit``, ``export``, ``stages`` and ``failed``, as ``commands.run``
            returns them, and the student's ``recipe`` as YAML; None is left out.
        ``name``: the name of the project.
        ``links``: titles and addresses, relative to the page.
        ``settings``: the chosen settings, by name.

    Example: ``project_page(found, "tickets", [("Audit", "audit/audit.html")], {"method": "coalition"})``
    """
    style = asset("page.css")
    student, audit = found["student"], found.get("audit")
    models = _models(found)
    return page_template("project.html.j2").render(
        policy=policy(style),
        style=Markup(style),
        name=name,
        task=student.get("task"),
        headline=_headline(found),
        judged=None if audit is None else verdict_view(audit),
        notes=[note for one in students_of(audit or {})[:1] for note in reference_note(one)],
        failed=found.get("failed") or [],
        warnings=[public_name(text) for text in _warnings(found)],
        models=models,
        selects=keeps_best(found.get("recipe")),
        metrics=list(dict.fromkeys(title for model in models for title in model["metrics"])),
        figures=_figures(found),
        exported=_exported(found.get("export")),
        stages=[_stage(stage, entry) for stage, entry in found["stages"].items()],
        links=links,
        settings=[
            (key, public_name(str(value))) for key, value in settings.items() if value not in (None, "")
        ],
        rows=_rows(student),
        tags=label_kind(student) == "tokens",
        pairs=len((student.get("data") or {}).get("text_columns") or ()) == 2,
        versions=list((student.get("versions") or {}).items()),
    )


def _headline(found: Mapping[str, Any]) -> str:
    """One sentence that compares student and teacher."""
    student = found["student"]
    ours, theirs = student.get("eval") or {}, student.get("teacher_eval") or {}
    name = next((metric for metric in ours if metric in theirs), None)
    if name is None:
        return ""
    ours_size, theirs_size = ((student.get(role) or {}).get("parameters") for role in ("student", "teacher"))
    title = metric_title(name, student.get("positive"))
    sentence = f"the student has {title} {decimal(ours[name])}, its teacher {decimal(theirs[name])}."
    if ours_size and theirs_size:
        sentence = f"with {ours_size / theirs_size:.0%} of the parameters, {sentence}"
    return capital(sentence)


def _models(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each model: role, size, and metrics on the validation and test rows."""
    return [
        {
            "role": model.role,
            "layers": count(model.about.get("layers")),
            "parameters": count(model.about.get("parameters")),
            "metrics": {title: decimal(value) for title, value in model.scores.items()}
            | {f"{title}, test": decimal(value) for title, value in model.tested.items()},
        }
        for model in run_models(found["student"])
    ]


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of agreement with interval, n, floor and gain: from the audit, or else from the training run."""
    audit = found.get("audit")
    if audit is not None and audit.get("students"):
        known: Mapping[str, Any] = without_groups(audit["students"][0].get("figures") or {})
        data, meanings = audit.get("data") or {}, audit.get("meanings") or {}
        source, floor = f"of the audit, on the {data.get('split')} rows", RANDOM_HEAD
    else:
        known, meanings = found["student"].get("loyalty") or {}, {}
        source, floor = "of the training run, on validation rows", UNTRAINED
    rows = [
        _figure(name, known[name], meanings.get(name)) for name in HEADLINES if isinstance(known.get(name), Mapping)
    ]  # fmt: skip
    referred = any(row["cell"] and row["cell"].reference for row in rows)
    return {
        "source": source,
        "floor": floor,
        "rows": rows,
        "trained": trained_note(known.values()),
        "referred": referred,
    }


def _figure(name: str, figure: Mapping[str, Any], meaning: str | None) -> dict[str, Any]:
    return {"title": title_of(name), "meaning": meaning, "cell": cell(figure)}


def _exported(export: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Tables of the export, each with its columns, one row for each model, and a note."""
    if export is None:
        return []
    tables = (
        ("Size", size_rows(export), ""),
        ("Speed", [{"model": row["model"], **row} for row in speed_rows(export)], speed_note(export)),
        ("Agreement with the student", loyalty_rows(export, "student"), ""),
    )
    return [
        {"title": title, "columns": list(dict.fromkeys(key for row in rows for key in row)), "rows": rows,
         "note": note}
        for title, rows, note in tables
        if rows
    ]  # fmt: skip


def _stage(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    seconds = entry.get("seconds")
    return {"name": NAMES.get(name, name), "outcome": entry["outcome"], "reason": entry.get("reason"),
            "seconds": None if seconds is None else f"{seconds:,.0f} s"}  # fmt: skip


def _rows(student: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    return [(split, count(rows)) for split, rows in ((student.get("data") or {}).get("rows") or {}).items()]


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """The warnings of all stages, each once."""
    warnings = [
        *(found["student"].get("warnings") or ()),
        *(audit_warnings(found["audit"]) if found.get("audit") else ()),
        *((found.get("export") or {}).get("warnings") or ()),
        *(f"{name} was left out: {entry['reason']}" for name, entry in found["stages"].items() if entry.get("reason")),
    ]  # fmt: skip
    return [capital(str(text)) for text in dict.fromkeys(warnings)]
