"""The plots of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradistill.auditing.figure_titles import title_of
from gradistill.report.audit_tables import (
    capital,
    counted,
    direction_of,
    ordered,
    shown_names,
    student_names,
    students_of,
)
from gradistill.report.number_text import decimal, finite
from gradistill.report.svg import COLOURS, INK, Plot, short, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = tuple(
    zip(COLOURS, ("o", "s", "^", "D", "v"), ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))), strict=True)
)
"""Colour, marker and line style of each series."""

LABELS_SHOWN = 24
BY_LABEL = ("label", "saliency")


def slice_plots(audit: Mapping[str, Any]) -> list[Plot]:
    """The plots of parts of the examples, as far as the audit has figures for them."""
    labels = [_by_label(audit, figure) for figure in BY_LABEL]
    confidence = [_by_confidence(audit, figure) for figure in _confidence_figures(audit)]
    return [plot for plot in (*labels, *confidence) if plot is not None]


def output_plots(audit: Mapping[str, Any]) -> list[Plot]:
    """The plot of calibration, if the audit has figures for it."""
    plot = _calibration(audit)
    return [] if plot is None else [plot]


def _by_label(audit: Mapping[str, Any], figure: str) -> Plot | None:
    """One row per label, with one point and its interval for each student."""
    estimates = [
        {str(part.get("label")): estimate for part, estimate in _estimates(student, "by_label", figure)}
        for student in students_of(audit)
    ]
    labels = ordered(estimates)
    if not labels:
        return None
    lowest = sorted(labels, key=lambda label: min(part[label][0] for part in estimates if label in part))
    shown = [label for label in labels if label in lowest[:LABELS_SHOWN]]
    names = student_names(audit)

    def draw(axes: Axes) -> None:
        spread = 0.5 / max(1, len(estimates))
        for number, part in enumerate(estimates):
            rows = [(row, part[label]) for row, label in enumerate(shown) if label in part]
            offset = (number - (len(estimates) - 1) / 2) * spread
            _marks(axes, number, names[number], [(y + offset, e) for y, e in rows], across=True)
        axes.set_yticks(range(len(shown)), [short(label) for label in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)  # the first label on top, as in the table
        axes.set_xlabel(f"{title_of(figure)} {direction_of(figure)}")

    note = "With 95 % intervals."
    if len(shown) < len(labels):
        note += f" The {len(shown)} of {counted(len(labels), 'label')} where it is lowest."
    title = f"{capital(title_of(figure))} by label"
    height = 1.2 + 0.3 * len(shown) * max(1.0, 0.6 * len(estimates))
    return Plot(title, note, svg(draw, title, height, legend=len(estimates)))


def _confidence_figures(audit: Mapping[str, Any]) -> list[str]:
    parts = [part for student in students_of(audit) for part in student.get("by_confidence") or []]
    return ordered(part.get("figures") for part in parts)


def _by_confidence(audit: Mapping[str, Any], figure: str) -> Plot | None:
    """One line per student over bins of the teacher's confidence."""
    series = []
    for student in students_of(audit):
        bins = [(_middle(part), e) for part, e in _estimates(student, "by_confidence", figure)]
        series.append([(x, e) for x, e in bins if x is not None])
    if not any(series):
        return None
    names = student_names(audit)

    def draw(axes: Axes) -> None:
        for number, points in enumerate(series):
            shift = 0.006 * (number - (len(series) - 1) / 2)  # so that intervals do not overlap
            _marks(axes, number, names[number], [(x + shift, e) for x, e in points], across=False)
        axes.set_xlabel("teacher’s confidence")
        axes.set_ylabel(f"{title_of(figure)} {direction_of(figure)}")

    title = f"{capital(title_of(figure))} against confidence"
    note = "Bins of the teacher’s confidence, each with its 95 % interval."
    return Plot(title, note, svg(draw, title, 3.2, legend=len(series)))


def _calibration(audit: Mapping[str, Any]) -> Plot | None:
    """Accuracy against confidence. On the diagonal a model's accuracy equals its confidence."""
    names, teacher = shown_names(audit), str((audit.get("teacher") or {}).get("name"))
    order = [str(student.get("name")) for student in students_of(audit)]
    lines: list[tuple[int | None, str, str | None, list[tuple[float, float]]]] = []
    for model in audit.get("calibration") or []:
        raw = str(model.get("name"))
        is_teacher = raw in ("teacher", teacher) and raw not in order
        bins = [(finite(b.get("confidence")), finite(b.get("accuracy"))) for b in model.get("bins") or []]
        points = [(x, y) for x, y in bins if x is not None and y is not None]
        number = None if is_teacher else order.index(raw) if raw in order else len(lines)
        name = "teacher" if is_teacher else names.get(raw, raw)
        lines.append((number, name, decimal(model.get("error")), points))
    if not any(points for *_, points in lines):
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.45, linewidth=1, linestyle=(0, (1, 2)))
        for number, name, _, points in lines:
            colour, marker, line = (INK, "x", "-") if number is None else SERIES[number % len(SERIES)]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axes.plot(
                xs,
                ys,
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=5,
                linewidth=1.4,
                label=short(name),
            )
        low = max(0.0, min(min(point) for *_, points in lines for point in points) - 0.05)
        for along in (axes.xaxis, axes.yaxis):
            along.set_view_interval(low, 1.02, ignore=True)
            along.set_ticks([tick for tick in along.get_majorticklocs() if low <= tick <= 1])
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("accuracy")

    errors = "; ".join(f"{short(name)} {error}" for _, name, error, _ in lines if error)
    note = "On the dotted line a model's accuracy equals its confidence."
    note += f" Expected calibration error {direction_of('calibration_error')}: {errors}." if errors else ""
    return Plot("Calibration", note, svg(draw, "Calibration", 3.4, legend=len(lines)))


def _marks(axes: Axes, number: int, name: str, points: Sequence[Any], *, across: bool) -> None:
    """Draw one series. ``across``: the figure is on the horizontal axis, and points are not connected."""
    colour, marker, line = SERIES[number % len(SERIES)]
    values = [value for _, (value, _, _) in points]
    # An interval may exclude its value (a bootstrap may be biased); matplotlib refuses a negative length.
    errors = [
        [max(0.0, v - low) for _, (v, low, _) in points],
        [max(0.0, high - v) for _, (v, _, high) in points],
    ]
    places = [place for place, _ in points]
    axes.errorbar(
        values if across else places,
        places if across else values,
        xerr=errors if across else None,
        yerr=None if across else errors,
        color=colour, marker=marker, markersize=5, linestyle="none" if across else line, linewidth=1.4,
        elinewidth=1.1, capsize=2, label=short(name),
    )  # fmt: skip


def _estimates(
    student: Mapping[str, Any], part: str, figure: str
) -> list[tuple[Any, tuple[float, float, float]]]:
    """The entries of a breakdown with a value for the figure, each with (value, low, high)."""
    entries = []
    for entry in student.get(part) or []:
        estimate = (entry.get("figures") or {}).get(figure) or {}
        value = finite(estimate.get("value"))
        if value is not None:
            low, high = finite(estimate.get("low")), finite(estimate.get("high"))
            entries.append((entry, (value, value if low is None else low, value if high is None else high)))
    return entries


def _middle(part: Mapping[str, Any]) -> float | None:
    low, high = finite(part.get("low")), finite(part.get("high"))
    return None if low is None or high is None else (low + high) / 2
