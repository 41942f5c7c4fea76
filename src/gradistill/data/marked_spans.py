"""Marked passages of texts (rationales): columns of spans, checked row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from gradistill.data.cell_checks import missing_columns, shown
from gradistill.data.table import Table
from gradistill.data.tasks import Task
from gradistill.errors import Problem

Units = Literal["characters", "words"]
Span = tuple[int, int, int]
"""Start and end (exclusive) in characters, and the number of the text: 0, or 1 for the second of a pair."""

_FORM = "a list of [start, end] or [start, end, text] with start < end"


def spans(
    table: Table, column: str, task: Task, rows: Sequence[int], units: Units
) -> tuple[list[list[Span]], list[Problem]]:
    """The spans of the kept ``rows`` in characters, and all their problems.

    A cell holds a list of ``[start, end]``, the end exclusive, or such a list as JSON text (CSV). An empty cell marks
    nothing. A third number is that of the text. With ``units="words"`` start and end count blank-separated words.
    """
    if problems := missing_columns(table, [column]):
        return [], problems
    row_spans: list[list[Span]] = []
    for row in rows:
        texts = [str(table.columns[name][row]) for name in task.text_columns]
        try:
            row_spans.append(_spans_of(table.columns[column][row], texts, units))
        except (ValueError, TypeError, IndexError):
            what = (
                f"{shown(table.columns[column][row])} marks no passage of the text; write {_FORM}, in {units}"
            )
            problems.append(table.problem(row, what, column))
    return row_spans, problems


def _spans_of(cell: Any, texts: Sequence[str], units: Units) -> list[Span]:
    if isinstance(cell, str):
        cell = json.loads(cell) if cell.strip() else []
    found = []
    for start, end, *rest in cell if cell is not None else []:
        text = int(rest[0]) if rest else 0
        limits = [found.span() for found in re.finditer(r"\S+", texts[text])]
        if units == "words":
            if not 0 <= start < end <= len(limits):
                raise ValueError
            start, end = limits[int(start)][0], limits[int(end) - 1][1]
        if not 0 <= start < end <= len(texts[text]) or text < 0 or len(rest) > 1:
            raise ValueError
        found.append((int(start), int(end), text))
    return found
