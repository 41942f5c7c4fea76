"""The page of an audit: one HTML file with all that it needs, to be opened, printed, sent and archived.

Text from outside is text on the page and never markup: the template escapes, examples come as JSON that the page's
script puts into text nodes, and the page's own policy lets nothing run, load or be styled but what was put in here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gradistill.data.tasks import metric_title
from gradistill.report.audit_plots import plots
from gradistill.report.audit_tables import (
    Group,
    Row,
    TableCell,
    capital,
    cell,
    count,
    decimal,
    direction_of,
    failures,
    figure_groups,
    finite,
    ordered,
    shown_names,
    student_names,
    students_of,
    title_of,
)
from gradistill.report.html import asset, page_template, policy
from gradistill.report.model_card import audit_warnings, public_name
from gradistill.report.page_examples import browser_data, embedded, has_labels

BREAKDOWNS = (
    ("by_label", "By label", "label"),
    ("by_length", "By length", "length"),
    ("by_confidence", "By the teacher’s confidence", "confidence"),
    ("perturbations", "Under perturbations", "perturbation"),
)
OPTIONAL_COLUMNS = ("floor", "gain", "reference")
"""What only some figures have; a column that no figure fills is left out."""

LONG = 24
"""From so many rows on a table is folded: the page stays readable with 150 labels."""


def _heading(name: str) -> str:
    return capital(title_of(name))


def audit_page(audit: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    """The whole HTML file. Whatever the audit lacks is left out; nothing in it names a folder of the machine."""
    script, style = asset("audit.js"), asset("page.css")
    names, students = shown_names(audit), student_names(audit)
    return page_template("audit.html.j2").render(
        policy=policy(style, script),
        script=Markup(script),
        style=Markup(style),
        students=students,
        verdict=public_name(str(audit.get("verdict") or "")),
        failed=failures(audit),
        models=_models(audit, names),
        data=_facts(audit.get("data")),
        metrics=_metrics(audit, names),
        warnings=[public_name(text) for text in audit_warnings(audit)],
        attribution=audit.get("attribution") or {},
        figures=_figures(figure_groups(audit), students),
        plots=[{"title": p.title, "note": p.note, "svg": Markup(p.svg)} for p in plots(audit)],
        breakdowns=_breakdowns(audit, students),
        comparisons=[_comparison(entry, names) for entry in audit.get("comparisons") or []],
        meanings={_heading(name): text for name, text in (audit.get("meanings") or {}).items()},
        settings=_facts(audit.get("settings")),
        versions=_facts(audit.get("versions"), str),
        seconds=_seconds(audit.get("seconds")),
        examples=len(examples),
        labelled=has_labels(examples),
        browser=Markup(embedded(browser_data(examples, students))),
    )


def _figures(groups: Sequence[Group], students: Sequence[str]) -> dict[str, Any]:
    """The groups with a line a student in each row, and the columns that any of these fills."""
    shown = [
        {
            "title": group.title,
            "rows": [
                {"title": row.title, "direction": row.direction, "meaning": row.meaning, "lines": lines}
                for row in group.rows
                if (lines := _lines(row, students))
            ],
        }
        for group in groups
    ]
    cells = [cell for group in groups for row in group.rows for cell in row.cells if cell]
    columns = [name for name in OPTIONAL_COLUMNS if any(getattr(cell, name) for cell in cells)]
    return {"groups": shown, "columns": columns}


def _lines(row: Row, students: Sequence[str]) -> list[tuple[str, TableCell]]:
    """A line a student; one for all where the figure is the teacher's own and the same for each."""
    found = [(name, cell) for name, cell in zip(students, row.cells, strict=True) if cell]
    alike = row.name.startswith("teacher_") and len({cell for _, cell in found}) == 1 < len(found)
    return [("all", found[0][1])] if alike else found


def _models(audit: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    models = [("teacher", audit.get("teacher") or {}), *(("student", s) for s in students_of(audit))]
    return [
        {
            "role": role,
            "name": names[str(model.get("name") or "unnamed")],
            "layers": count(model.get("layers")),
            "hidden": count(model.get("hidden")),
            "parameters": count(model.get("parameters")),
        }
        for role, model in models
    ]


def _metrics(audit: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """The task's own metrics, a row a model."""
    found: Mapping[str, Any] = audit.get("metrics") or {}
    heads = ordered(found.values())
    if not heads:
        return None
    positive = (audit.get("data") or {}).get("positive")
    rows = [
        (names.get(model, public_name(model)), [decimal(scores.get(n)) for n in heads])
        for model, scores in found.items()
    ]
    return {"heads": [capital(metric_title(name, positive)) for name in heads], "rows": rows}


def _facts(
    content: Mapping[str, Any] | None, titled: Callable[[str], str] = _heading
) -> list[tuple[str, str | None]]:
    """Names and values; local paths are reduced to their last part."""
    return [
        (titled(name), count(value) if name == "rows" else public_name(str(value)))
        for name, value in (content or {}).items()
        if value is not None
    ]


def _seconds(content: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    return [(_heading(name), decimal(value, 1)) for name, value in (content or {}).items()]


def _comparison(entry: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    sides = {side: names.get(str(entry.get(side)), public_name(str(entry.get(side)))) for side in ("a", "b")}
    return sides | {
        "figure": title_of(str(entry.get("figure"))),
        "difference": cell(entry.get("difference")),
        "p": _probability(entry.get("p")),
        "p_corrected": _probability(entry.get("p_corrected")),
    }


def _probability(value: Any) -> str | None:
    number = finite(value)
    return "< 0.001" if number is not None and number < 0.001 else decimal(number)


def _breakdowns(audit: Mapping[str, Any], students: Sequence[str]) -> list[dict[str, Any]]:
    """One table per breakdown: figures across, the parts of each student below its name."""
    tables = []
    for key, title, head in BREAKDOWNS:
        parts = [list(student.get(key) or []) for student in students_of(audit)]
        figures = ordered(part.get("figures") for group in parts for part in group)
        if not figures:
            continue
        rows = [[_part(part, figures) for part in group] for group in parts]
        tables.append(
            {
                "title": title,
                "head": head,
                "figures": [f"{title_of(name)} {direction_of(name)}".strip() for name in figures],
                "sections": [(name, part) for name, part in zip(students, rows, strict=True) if part],
                "folded": sum(map(len, rows)) > LONG,
            }
        )
    return tables


def _part(part: Mapping[str, Any], figures: Sequence[str]) -> dict[str, Any]:
    found = part.get("figures") or {}
    low, high = finite(part.get("low")), finite(part.get("high"))
    between = None if low is None or high is None else f"{100 * low:g}–{100 * high:g} %"
    n = count(part.get("n"))
    return {
        "name": between or title_of(part.get("name") or "") or str(part.get("label")),
        "description": part.get("description"),
        "n": n,
        "cells": [_without(cell(found.get(name)), n) for name in figures],
    }


def _without(found: TableCell | None, n: str | None) -> TableCell | None:
    """The cell without an ``n`` that its row shows already."""
    return TableCell(found.value, found.interval, None, found.skipped) if found and found.n == n else found
