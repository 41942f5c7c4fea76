"""An audit as a Markdown table, for the comment of a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradistill.report.audit_tables import (
    Group,
    TableCell,
    figure_groups,
    student_names,
    students_of,
    trained_note_of,
)
from gradistill.report.change_report import reference_note
from gradistill.report.export_tables import cost_tables, speed_note
from gradistill.report.model_card import NO_VALUE, Ready, audit_warnings, markdown_template
from gradistill.report.run_summary import FLOOR, RANDOM_HEAD, audit_metrics, verdict_rows


def audit_table(audit: Mapping[str, Any]) -> str:
    """The verdict with the checks that warn or fail, and a table with a row per figure and a column per student.

    A cell reads ``value (low–high), n``, with a 95 % interval, and ``floor`` and ``reference`` if there are any. Values
    below their limits are marked. A note compares each student with the reference. Text from outside is escaped, and
    local paths are reduced to their last part.
    """
    groups = figure_groups(audit)
    return markdown_template("audit.md.j2", cell=_cell).render(
        verdict=audit.get("verdict"),
        outcome=(audit.get("assessment") or {}).get("outcome"),
        checks=verdict_rows(audit),
        students=student_names(audit),
        groups=groups,
        trained=trained_note_of(audit),
        notes=_notes(audit, groups),
        data=audit.get("data") or {},
        attribution=audit.get("attribution") or {},
        metrics=audit_metrics(audit),
        costs=cost_tables(audit),
        speed_note=speed_note(audit),
        warnings=audit_warnings(audit),
    )


def _notes(audit: Mapping[str, Any], groups: Sequence[Group]) -> list[str]:
    """Notes on the figures: the meaning of their floor, and each student's comparison with the reference."""
    floors = [cell.floor for group in groups for row in group.rows for cell in row.cells if cell]
    named = zip(student_names(audit), students_of(audit), strict=True)
    return [
        *([FLOOR.format(RANDOM_HEAD)] if any(floors) else []),
        *(f"{name}: {note}" for name, student in named for note in reference_note(student)),
    ]


def _cell(cell: TableCell | None) -> Ready:
    """A cell as Markdown. It holds only numbers, so nothing needs escaping."""
    if cell is None or cell.value is None:
        return Ready(NO_VALUE)
    text = cell.value + (f" ({cell.interval})" if cell.interval else "") + (f", n {cell.n}" if cell.n else "")
    text += f", floor {cell.floor}" if cell.floor else ""
    text += f", reference {cell.reference}" if cell.reference else ""
    return Ready(f"**{text}, below the limit {cell.limit}**" if cell.limit else text)
