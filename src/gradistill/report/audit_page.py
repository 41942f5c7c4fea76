"""The page of an audit: one self-contained HTML file, to be opened, printed, sent and archived.

Text from outside never becomes markup: the template escapes it, and examples are JSON that the page's script puts into
text nodes. The page's content security policy allows only its own script and style sheet, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.per_example import CHALLENGE
from gradistill.auditing.verdict import reference_comparisons
from gradistill.data.tasks import metric_title
from gradistill.report.audit_plots import output_plots, slice_plots
from gradistill.report.audit_tables import (
    Group,
    Row,
    TableCell,
    capital,
    cell,
    direction_of,
    failures,
    figure_groups,
    ordered,
    shown_names,
    student_names,
    students_of,
    trained_note_of,
)
from gradistill.report.change_report import (
    calibration_table,
    identity,
    known_failures,
    label_tables,
    verdict_view,
    watch_list,
    worst_parts,
)
from gradistill.report.export_tables import cost_tables, speed_note
from gradistill.report.html import asset, page_template, policy
from gradistill.report.model_card import audit_warnings, public_name
from gradistill.report.number_text import count, decimal, finite, probability
from gradistill.report.page_examples import browser_data, embedded, has_labels, has_reasons
from gradistill.report.run_summary import audit_scores
from gradistill.report.svg import Plot

SLICES = (
    ("by_label", "By label", "label"),
    ("by_length", "By length", "length"),
    ("by_confidence", "By the teacher’s confidence", "confidence"),
)
PERTURBATIONS = (("perturbations", "Under perturbations", "perturbation"),)
CASCADE = (("cascade", "With the student’s head and blocks random, from the top", "random blocks"),)
"""Breakdowns: their key in a student of ``audit.json``, their title, and what their rows are."""

CASCADE_FIGURES = ("kappa", "prediction", "response", "flips", "shapley", "saliency")
"""The figures of a cascade that are shown; all are in ``audit.json``."""

OUTPUTS = frozenset({"label", "exact_match", "kappa", "probability", "span", "prediction"})
"""Figures of ``loyalty`` that compare outputs; the others compare attributions and responses."""
OUTPUT_GROUPS = frozenset({"quality"})

OPTIONAL_COLUMNS = ("floor", "gain", "reference")
"""Columns that only some figures have; a column without a value is left out."""

LONG = 12
"""With more rows a table is folded on the screen, so that the page stays readable with 150 labels."""


def _heading(name: str) -> str:
    return capital(title_of(name))


def audit_page(audit: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    """The whole HTML file. Parts that the audit lacks are left out, and local paths are reduced to their last part."""
    script, style = asset("audit.js"), asset("page.css")
    names, students = shown_names(audit), student_names(audit)
    groups, data = figure_groups(audit), audit.get("data") or {}
    outputs, reasons, challenge = _divided(groups)
    models, perturbed, worst = identity(audit), _breakdowns(audit, PERTURBATIONS), worst_parts(audit)
    slice_tables = [*_breakdowns(audit, SLICES), *_columns(audit)]
    compared = list(audit.get("comparisons") or [])
    compared += [entry for student in students_of(audit) for entry in reference_comparisons(student)]
    drawn_slices, drawn_outputs = (
        [_drawn(p) for p in drawn] for drawn in (slice_plots(audit), output_plots(audit))
    )
    return page_template("audit.html.j2").render(
        policy=policy(style, script),
        script=Markup(script),
        style=Markup(style),
        students=students,
        created=str(audit.get("created") or "").replace("T", " ").replace("+00:00", " UTC"),
        judged=verdict_view(audit),
        verdict=public_name(str(audit.get("verdict") or "")),
        failed=failures(audit),
        warnings=[public_name(text) for text in audit_warnings(audit)],
        models=models,
        hashes=[*((m["name"], *found) for m in models for found in m["hashes"]), *_file_hashes(data)],
        data=_facts({name: value for name, value in data.items() if name != "files"}),
        reason=audit.get("reason"),
        metrics=_metrics(audit, names),
        costs=_costs(audit, names),
        speed_note=speed_note(audit),
        attribution=audit.get("attribution") or {},
        trained=trained_note_of(audit),
        outputs=_figures(outputs, students),
        reasons=_figures(reasons, students),
        challenge=_figures(challenge, students),
        label_tables=label_tables(audit),
        calibration=calibration_table(audit),
        output_plots=drawn_outputs,
        slices=bool(worst or drawn_slices or slice_tables),
        worst=worst,
        slice_plots=drawn_slices,
        slice_tables=slice_tables,
        cascades=_breakdowns(audit, CASCADE, CASCADE_FIGURES),
        robust=bool(challenge or perturbed),
        perturbations=perturbed,
        comparisons=[_comparison(entry, names) for entry in compared],
        failures=known_failures(audit, examples),
        watch=watch_list(audit),
        meanings={_heading(name): text for name, text in (audit.get("meanings") or {}).items()},
        settings=_facts(audit.get("settings")),
        versions=_facts(audit.get("versions"), str),
        seconds=_seconds(audit.get("seconds")),
        examples=len(examples),
        labelled=has_labels(examples),
        reasoned=has_reasons(examples),
        browser=Markup(embedded(browser_data(examples, students))),
    )


def _drawn(plot: Plot) -> dict[str, Any]:
    return {"title": plot.title, "note": plot.note, "svg": Markup(plot.svg)}


def _file_hashes(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(public_name(file["name"]), "SHA-256", file["sha256"]) for file in data.get("files") or []]


def _divided(groups: Sequence[Group]) -> tuple[list[Group], list[Group], list[Group]]:
    """The figures of outputs, of attributions and responses, and of the challenge."""

    def kept(group: Group, outputs: bool) -> Group:
        own = [row for row in group.rows if (group.name in OUTPUT_GROUPS or row.name in OUTPUTS) is outputs]
        return replace(group, rows=own)

    normal = [group for group in groups if group.name != CHALLENGE]
    both = [[part for g in normal if (part := kept(g, which)).rows] for which in (True, False)]
    return both[0], both[1], [group for group in groups if group.name == CHALLENGE]


def _figures(groups: Sequence[Group], students: Sequence[str]) -> dict[str, Any]:
    """The groups, with one line for each student in a row, and the optional columns that have a value."""
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
    """One line for each student; one for all if the figure is the teacher's own and the same for each."""
    cells = [(name, cell) for name, cell in zip(students, row.cells, strict=True) if cell]
    alike = row.name.startswith("teacher_") and len({cell for _, cell in cells}) == 1 < len(cells)
    return [("all", cells[0][1])] if alike else cells


def _metrics(audit: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """The task's own metrics, one row for each model."""
    scores_by_model = audit_scores(audit)
    heads = ordered([scores for _, scores in scores_by_model])
    if not heads:
        return None
    positive = (audit.get("data") or {}).get("positive")
    rows = [
        (names.get(model, public_name(model)), [decimal(scores.get(n)) for n in heads])
        for model, scores in scores_by_model
    ]
    return {"heads": [capital(title_of(metric_title(name, positive))) for name in heads], "rows": rows}


def _costs(audit: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Size and speed of the models, one table each; empty if they were not measured."""
    tables = []
    for rows in cost_tables(audit):
        shown = [
            (names.get(row["model"], public_name(row["model"])), [v for k, v in row.items() if k != "model"])
            for row in rows
        ]
        tables.append({
            "title": "Speed" if "cores" in rows[0] else "Size",
            "heads": [capital(head) for head in rows[0] if head != "model"], "rows": shown,
        })  # fmt: skip
    return tables


def _facts(
    content: Mapping[str, Any] | None, titled: Callable[[str], str] = _heading
) -> list[tuple[str, str | None]]:
    """Names and values; local paths are reduced to their last part."""
    return [
        (titled(name), count(value) if name == "rows" else _text_of(value))
        for name, value in (content or {}).items()
        if value is not None
    ]


def _text_of(value: Any) -> str:
    """A value, or the values of a list, with local paths reduced."""
    return ", ".join(map(_text_of, value)) if isinstance(value, list | tuple) else public_name(str(value))


def _seconds(content: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    return [(_heading(name), decimal(value, 1)) for name, value in (content or {}).items()]


def _comparison(entry: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    sides = {side: names.get(str(entry.get(side)), public_name(str(entry.get(side)))) for side in ("a", "b")}
    return sides | {
        "figure": title_of(str(entry.get("figure"))),
        "difference": cell(entry.get("difference")),
        "p": probability(entry.get("p")),
        "p_corrected": probability(entry.get("p_corrected")),
    }


def _breakdowns(
    audit: Mapping[str, Any], wanted: Sequence[tuple[str, str, str]], shown: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One table per breakdown. Columns are all figures, or those in ``shown``; rows are the parts of each student."""
    tables = []
    for key, title, head in wanted:
        parts = [list(student.get(key) or []) for student in students_of(audit)]
        if shown is not None:
            parts = [[_only(part, shown) for part in group] for group in parts]
        tables += _breakdown(title, head, student_names(audit), parts)
    return tables


def _only(part: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    figures = part.get("figures") or {}
    return {**part, "figures": {name: figures[name] for name in names if name in figures}}


def _columns(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One table per column of the data whose values were audited (``slices``)."""
    students = students_of(audit)
    parts_by_column = [
        {c["column"]: c["parts"] for c in student.get("by_column") or []} for student in students
    ]
    return [
        table
        for column in ordered(parts_by_column)
        for table in _breakdown(
            f"By {column}",
            column,
            student_names(audit),
            [of_one.get(column) or [] for of_one in parts_by_column],
        )
    ]


def _breakdown(
    title: str, head: str, students: Sequence[str], parts: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """The table of one breakdown; empty if no part has a figure."""
    figures = ordered(part.get("figures") for group in parts for part in group)
    if not figures:
        return []
    rows = [[_part(part, figures) for part in group] for group in parts]
    return [
        {
            "title": title,
            "head": head,
            "figures": [f"{title_of(name)} {direction_of(name)}".strip() for name in figures],
            "sections": [(name, part) for name, part in zip(students, rows, strict=True) if part],
            "folded": sum(map(len, rows)) > LONG,
        }
    ]


def _part(part: Mapping[str, Any], figures: Sequence[str]) -> dict[str, Any]:
    figures_of_part = part.get("figures") or {}
    low, high = finite(part.get("low")), finite(part.get("high"))
    between = None if low is None or high is None else f"{100 * low:g}–{100 * high:g} %"
    n = count(part.get("n"))
    return {
        "name": between or title_of(part.get("name") or "") or str(part.get("label", part.get("blocks"))),
        "description": part.get("description"),
        "n": n,
        "cells": [_without(_estimated(figures_of_part.get(name)), n) for name in figures],
    }


def _estimated(figure: Any) -> TableCell | None:
    """A figure as a cell. The figures of a cascade are values without intervals."""
    alone = finite(figure) is not None
    return cell({"value": figure}) if alone else cell(figure)


def _without(found: TableCell | None, n: str | None) -> TableCell | None:
    """The cell, without its ``n`` if the row has the same."""
    return TableCell(found.value, found.interval, None, found.skipped) if found and found.n == n else found
