"""The figures of an audit as rows and cells of text, for the page and for the Markdown table.

An audit may be of another version, and some figures do not exist for its task: every figure may be missing or ``None``.
An unknown group or figure is shown by its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.per_example import CHALLENGE, LESS_IS_BETTER
from gradistill.auditing.trained_figures import DAGGER, TRAINED_ON, trained_note
from gradistill.report.model_card import public_name
from gradistill.report.number_text import count, decimal, decimal_below, decimal_limit, interval

UP, DOWN = "↑", "↓"
DIRECTIONS = {
    **dict.fromkeys((*LESS_IS_BETTER, "calibration_error"), DOWN),
    "response_slope": "→ 1",
    "teacher_watched_share": "",
    "student_watched_share": "→ teacher",
}
"""The good direction of figures for which more is not better."""

CLIPPED = "‡"
"""The sign after an interval that ends at the limit of the figure's range."""


@dataclass(frozen=True)
class TableCell:
    """One figure of one student.

    ``value`` ends with † if the student was trained on what the figure measures.
    ``limit`` is set if the figure is below it. ``floor``, ``gain`` and ``reference`` are set if the figure has one.
    """

    value: str | None
    interval: str | None = None
    n: str | None = None
    skipped: str | None = None
    limit: str | None = None
    floor: str | None = None
    gain: str | None = None
    reference: str | None = None


@dataclass(frozen=True)
class Row:
    """One figure with a cell per student, ``None`` if a student does not have the figure."""

    name: str
    title: str
    direction: str
    meaning: str | None
    cells: Sequence[TableCell | None]


@dataclass(frozen=True)
class Group:
    """Rows that belong together; ``name`` is the group's name in ``audit.json``."""

    name: str
    title: str
    rows: Sequence[Row]


def cell(estimate: Any, limit: Any = None, places: int = 3) -> TableCell | None:
    """An estimate (``value``, ``low``, ``high``, ``n``) as a cell of text; ``None`` for anything else."""
    if not isinstance(estimate, Mapping):
        return None
    shown = interval(estimate, places)
    reference = estimate.get("reference")
    skipped = count(estimate.get("skipped"))
    value = decimal_below(estimate.get("value"), limit, places)
    return TableCell(
        value=value and value + DAGGER * bool(estimate.get(TRAINED_ON)),
        interval=shown and shown + CLIPPED * bool(estimate.get("clipped")),
        n=count(estimate.get("n")),
        skipped=None if skipped == "0" else skipped,
        limit=decimal_limit(limit),
        floor=decimal(estimate.get("floor")),
        gain=decimal(estimate.get("gain")),
        reference=decimal(reference.get("value") if isinstance(reference, Mapping) else reference),
    )


def trained_note_of(audit: Mapping[str, Any]) -> str | None:
    """The note on †, if a figure of a student has it."""
    figures = (_mapping(student.get("figures")) for student in students_of(audit))
    return trained_note(
        entry for groups in figures for part in groups.values() for entry in _mapping(part).values()
    )


def direction_of(name: str) -> str:
    """The good direction of a figure: ``↑`` more, ``↓`` less, ``→ 1`` near 1. Empty if there is none."""
    return DIRECTIONS.get(name, UP)


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as ``1 label`` and ``1,200 labels``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def capital(text: str) -> str:
    """The text with a capital first; ``str.capitalize`` would make F1 f1."""
    return text[:1].upper() + text[1:]


def shown_names(audit: Mapping[str, Any]) -> dict[str, str]:
    """The display name of every model: unique, and without folders of this machine.

    Two runs often end in the same folder name; such names are numbered in the order of the audit.
    """
    models = [audit.get("teacher") or {}, *students_of(audit)]
    raw = list(dict.fromkeys(str(model.get("name") or "unnamed") for model in models))
    bare = {name: public_name(name) for name in raw}
    taken: set[str] = set()
    shown: dict[str, str] = {}
    for name in raw:
        candidate, number = bare[name], 1
        while candidate in taken:
            number += 1
            candidate = f"{bare[name]} ({number})"
        taken.add(candidate)
        shown[name] = candidate
    return shown


def students_of(audit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The students of the audit, in its order."""
    return list(audit.get("students") or [])


def student_names(audit: Mapping[str, Any]) -> list[str]:
    """The display names of the students."""
    shown = shown_names(audit)
    return [shown[str(student.get("name") or "unnamed")] for student in students_of(audit)]


def figure_groups(audit: Mapping[str, Any]) -> list[Group]:
    """All figures of all students, grouped, in the order of their first occurrence."""
    students, limits, meanings = students_of(audit), _limits(audit), audit.get("meanings") or {}
    groups = []
    for group in ordered(student.get("figures") for student in students):
        parts = [_mapping(_mapping(student.get("figures")).get(group)) for student in students]
        rows = []
        for name in ordered(parts):
            limits_of_group = {} if group == CHALLENGE else limits
            failed = [limits_of_group.get((str(s.get("name")), name)) for s in students]
            cells = [cell(part.get(name), limit) for part, limit in zip(parts, failed, strict=True)]
            if any(cells):
                meaning = meanings.get(name) or meanings.get(name.partition("_")[2])  # of either model
                rows.append(Row(name, title_of(name), direction_of(name), meaning, cells))
        if rows:
            groups.append(Group(group, title_of(group), rows))
    return groups


def ordered(parts: Iterable[Any]) -> list[str]:
    """The keys of all mappings among the parts, each once, in the order of their first occurrence."""
    return list(dict.fromkeys(key for part in parts for key in _mapping(part)))


def failures(audit: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """The figures below their limits, as text for a page."""
    names = shown_names(audit)
    return [
        {
            "student": names.get(str(entry.get("student")), public_name(str(entry.get("student")))),
            "figure": title_of(_last(entry)),
            "value": decimal_below(entry.get("value"), entry.get("limit")),
            "limit": decimal_limit(entry.get("limit")),
        }
        for entry in audit.get("failed") or []
    ]


def _limits(audit: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (str(entry.get("student")), _last(entry)): entry.get("limit") for entry in audit.get("failed") or []
    }


def _last(entry: Mapping[str, Any]) -> str:
    """The name of an entry's figure without its group: ``label_loyalty`` of ``loyalty.label_loyalty``."""
    return str(entry.get("figure")).rsplit(".", 1)[-1]


def _mapping(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}
