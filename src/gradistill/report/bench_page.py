"""The report of a bench: tables in Markdown, and a page with the same tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from gradistill.auditing.trained_figures import DAGGER, TRAINED_ON, trained_note
from gradistill.data.tasks import metric_title
from gradistill.printing import places_shown
from gradistill.report.audit_tables import TableCell, capital, cell
from gradistill.report.bench_plots import bench_plots
from gradistill.report.html import asset, page_template, policy
from gradistill.report.model_card import Ready, markdown_template
from gradistill.report.number_text import count, decimal, finite

SIGNIFICANT = 0.05
NOTHING = TableCell("")
"""A cell that is empty on purpose, without a sign for a missing value."""


def bench_tables(bench: Mapping[str, Any]) -> str:
    """Markdown: the methods over all tasks, then a table for each task and depth, then failed cells."""
    return markdown_template("bench.md.j2", cell=_as_markdown).render(_content(bench))


def bench_page(bench: Mapping[str, Any]) -> str:
    """One self-contained HTML file without a script."""
    style = asset("page.css")
    drawn = [{"title": p.title, "note": p.note, "svg": Markup(p.svg)} for p in bench_plots(bench)]
    return page_template("bench.html.j2").render(
        policy=policy(style), style=Markup(style), plots=drawn, **_content(bench)
    )


def _content(bench: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": bench["title"] or "Bench",
        "baseline": bench["baseline"],
        "level": f"{100 * bench['level']:g} %",
        "over_tasks": [_over_tasks(bench, layers) for layers in _depths(bench)],
        "panels": [_panel(panel, bench) for panel in bench["panels"]],
        "teachers": _teachers(bench),
        "failed": bench["failed"],
        "trained": trained_note(
            f for panel in bench["panels"] for row in panel["rows"] for f in row["figures"].values()
        ),
        "at_once": count(bench["at_once"]),
        "versions": list(bench["versions"].items()),
    }


def _depths(bench: Mapping[str, Any]) -> list[int]:
    return list(dict.fromkeys(entry["layers"] for entry in bench["over_tasks"]))


def _over_tasks(bench: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A table: each method's means over the common tasks and its ranks, and below its gain over the baseline."""
    entries = [entry for entry in bench["over_tasks"] if entry["layers"] == layers]
    figures = [
        name
        for name in entries[0]["figures"]
        if any(entry["figures"].get(name) is not None for entry in entries)
    ]
    rows: list[dict[str, Any]] = []
    for entry in entries:
        cells = [
            _number(entry["step"], 2),
            *(_number(entry["figures"][f], trained=f in entry[TRAINED_ON]) for f in figures),
            *(_number(rank, 1) for rank in entry["ranks"].values()),
        ]
        rows.append({"name": entry["method"], "cells": cells})
        if any(entry["gains"].values()):
            gains = [_signed(entry["gains"].get(figure)) or NOTHING for figure in figures]
            ranks = [NOTHING] * len(entry["ranks"])
            rows.append({"name": f"from {bench['baseline']}", "cells": [NOTHING, *gains, *ranks]})
    heads = ["step", *map(capital, figures), "rank by metric", "rank by response", "rank by saliency"]
    return {"layers": layers, "tasks": entries[0]["tasks"], "heads": heads, "rows": rows}


def _panel(panel: Mapping[str, Any], bench: Mapping[str, Any]) -> dict[str, Any]:
    """A table with a row for each method, and below it the difference from the baseline."""
    names = list(dict.fromkeys(name for row in panel["rows"] for name in row["figures"]))
    rows = []
    if untrained := panel.get("untrained"):
        floors = [_without_n(cell(untrained.get(name))) for name in names]
        rows.append({"name": "before training", "seeds": None, "cells": floors})
    for row in panel["rows"]:
        cells = [cell(row["figures"].get(name)) for name in names]
        rows.append(
            {"name": row["method"], "seeds": len(row["seeds"]), "cells": [_without_n(c) for c in cells]}
        )
        if any(row["apart"].values()):
            apart = [_signed(row["apart"].get(name)) for name in names]
            rows.append({"name": f"from {bench['baseline']}", "seeds": None, "cells": apart})
    teacher, constant = (
        ", ".join(
            f"{metric_title(name, panel.get('positive'))} {decimal(value)}"
            for name, value in (panel.get(owner) or {}).items()
        )
        for owner in ("teacher", "constant")
    )
    rows_of = (bench["teachers"].get(panel["task"]) or {}).get("rows") or {}
    return {
        "task": panel["task"],
        "layers": panel["layers"],
        "teacher": teacher,
        "constant": constant,
        "rows_of": [(name, count(n)) for name, n in rows_of.items()],
        "heads": [capital(metric_title(name, panel.get("positive"))) for name in names],
        "rows": rows,
    }


def _teachers(bench: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The selecting metric of each task's teacher by learning rate, and the best rate."""
    teachers = []
    for task, entry in bench["teachers"].items():
        tried: Mapping[str, float] = entry.get("tried") or {}
        if tried:
            best = max(tried, key=lambda rate: tried[rate])
            shown = [f"{rate}: {decimal(value)}" for rate, value in tried.items()]
            teachers.append({"task": task, "best": best, "tried": ", ".join(shown)})
    return teachers


def _number(value: Any, places: int = 3, *, trained: bool = False) -> TableCell | None:
    return None if finite(value) is None else TableCell(f"{decimal(value, places)}{DAGGER * trained}")


def _signed(apart: Mapping[str, Any] | None) -> TableCell | None:
    """A difference with its sign and interval, in the places that show it; with a star where it is beyond chance,
    corrected for all of them."""
    number = finite(apart["value"]) if apart else None
    if apart is None or number is None:
        return None
    places = places_shown(number)
    found = cell(apart, places=places or 3)
    assert found is not None
    beyond = finite(apart.get("p_corrected"))
    star = " *" if beyond is not None and beyond < SIGNIFICANT else ""
    sign = "+" if places and number > 0 else ""
    return TableCell(f"{sign}{found.value}{star}", found.interval)


def _without_n(found: TableCell | None) -> TableCell | None:
    return None if found is None else TableCell(found.value, found.interval)


def _as_markdown(found: TableCell | None) -> Ready:
    """A cell as Markdown. It holds only numbers, so nothing needs escaping."""
    if found is None or found.value is None:
        return Ready("–")
    value = found.value.replace("*", "\\*")
    return Ready(f"{value} ({found.interval})" if found.interval else value)


def bench_rows(bench: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The methods over all tasks, for a table in the terminal of at most 80 columns. Figures that no task has are left
    out."""
    over = bench["over_tasks"]
    figures = [entry["figures"] for entry in over]
    measured = [name for name in (figures or [{}])[0] if any(of[name] is not None for of in figures)]
    return [
        {
            "method": entry["method"],
            "layers": entry["layers"],
            "tasks": len(entry["tasks"]),
            "step": entry["step"],
            **{_shortened(name): _shown(entry, name) for name in measured},
            "rank": entry["ranks"]["metric"],
        }
        for entry in over
    ]


def _shown(entry: Mapping[str, Any], figure: str) -> Any:
    """A figure over the tasks, with † if the method is trained on it."""
    value = entry["figures"][figure]
    return value if value is None or figure not in entry[TRAINED_ON] else f"{decimal(value)}{DAGGER}"


def _shortened(figure: str) -> str:
    bare = figure.removesuffix(" loyalty")
    return {"probability": "prob.", "saliency": "sal.", "response": "resp.", "prediction": "pred."}.get(
        bare, bare
    )
