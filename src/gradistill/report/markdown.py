"""An audit as a Markdown table, for the comment of a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from gradistill.report.card import NO_VALUE, Ready, markdown_text
from gradistill.report.figures import Cell, figure_groups, student_names


def audit_table(audit: Mapping[str, Any]) -> str:
    """The verdict, and a table with a row per figure and a column per student.

    A cell reads ``value (low–high), n``, the interval being the bootstrap's of 95 %; what is below its limit says so.
    Text that comes in is escaped and names no folder of the machine.
    """
    return _template().render(
        verdict=audit.get("verdict"),
        students=student_names(audit),
        groups=figure_groups(audit),
        data=audit.get("data") or {},
        attribution=audit.get("attribution") or {},
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("gradistill.report"),
        undefined=StrictUndefined,
        finalize=markdown_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("audit.md.j2")


def _cell(cell: Cell | None) -> Ready:
    """Made of numbers alone, so nothing in it needs escaping."""
    if cell is None or cell.value is None:
        return Ready(NO_VALUE)
    text = cell.value + (f" ({cell.interval})" if cell.interval else "") + (f", n {cell.n}" if cell.n else "")
    return Ready(f"**{text}, below the limit {cell.limit}**" if cell.limit else text)
