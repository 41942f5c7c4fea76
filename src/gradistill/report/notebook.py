"""HTML for notebooks: a run, an audit and an explanation as small escaped tables without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from gradistill.auditing.figure_titles import title_of
from gradistill.auditing.trained_figures import trained_note
from gradistill.data.word_scores import WordScore
from gradistill.printing import printable
from gradistill.report.audit_tables import cell
from gradistill.report.number_text import count, decimal
from gradistill.report.run_summary import run_models

BLUE, ORANGE = "74, 144, 217", "217, 115, 13"
"""The colours of words for the label, and of words against it, as in the terminal."""


def metrics_html(metrics: Mapping[str, Any]) -> str:
    """The content of ``metrics.json``: the models with their metrics, and the loyalties with their floors."""
    if not metrics:
        return "<p>no metrics</p>"
    models = [
        {
            "model": m.role,
            "layers": count(m.about.get("layers")),
            "parameters": count(m.about.get("parameters")),
        }
        | {title: decimal(value) for title, value in m.scores.items()}
        for m in run_models(metrics)
    ]
    title = f"{metrics.get('method')} on {metrics.get('task')}, seed {metrics.get('seed')}"
    figures = metrics.get("loyalty") or {}
    loyalty = _agreement(figures, "loyalty")
    return _table(models, title) + (_table(loyalty) if loyalty else "") + _note(figures)


def audit_html(audit: Mapping[str, Any]) -> str:
    """The main content of ``audit.json``: the verdict, and the loyalties of each student."""
    parts = [Markup("<p><strong>{}</strong></p>").format(_text(audit.get("verdict") or ""))]
    for student in audit.get("students") or []:
        figures = (student.get("figures") or {}).get("loyalty") or {}
        parts.append(
            Markup(_table(_agreement(figures, "loyalty"), str(student.get("name"))) + _note(figures))
        )
    return "".join(parts)


def explanation_html(
    title: str, words: Sequence[WordScore], texts: Sequence[str], signed: bool = True
) -> str:
    """Texts with words shaded by score: blue for the label, orange against it. The score is the tooltip."""
    top = max((abs(word.score) for word in words), default=0.0) or 1.0
    parts = [Markup("<p><strong>{}</strong></p>").format(_text(title))]
    for segment, text in enumerate(texts):
        shown, place = Markup(), 0
        for word in sorted((w for w in words if w.segment == segment), key=lambda w: w.start):
            colour = ORANGE if signed and word.score < 0 else BLUE
            shade = f"background: rgba({colour}, {0.6 * abs(word.score) / top:.2f})"
            shown += escape(_text(text[place : word.start]))
            shown += Markup('<span style="{}" title="{}">{}</span>').format(
                shade, f"{word.score:+.3f}", _text(text[word.start : word.end])
            )
            place = word.end
        parts.append(Markup("<p>{}{}</p>").format(shown, _text(text[place:])))
    return "".join(parts)


def _note(figures: Mapping[str, Any]) -> str:
    note = trained_note(figures.values())
    return str(Markup("<p>{}</p>").format(note)) if note else ""


def _agreement(figures: Mapping[str, Any], head: str) -> list[dict[str, Any]]:
    cells = {name: cell(figure) for name, figure in figures.items()}
    return [
        {head: title_of(name), "value": c.value, "95 % interval": c.interval, "n": c.n, "floor": c.floor}
        for name, c in cells.items()
        if c is not None
    ]


def _table(rows: Sequence[Mapping[str, Any]], title: str = "") -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = Markup().join(Markup("<th>{}</th>").format(_text(column)) for column in columns)
    body = Markup().join(
        Markup("<tr>{}</tr>").format(
            Markup().join(Markup("<td>{}</td>").format(_text(row.get(column))) for column in columns)
        )
        for row in rows
    )
    caption = Markup("<caption>{}</caption>").format(_text(title)) if title else Markup()
    return str(
        Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(caption, head, body)
    )


def _text(value: Any) -> str:
    """A value as text without control characters."""
    return "–" if value is None else printable(str(value))
