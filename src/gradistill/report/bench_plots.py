"""The plots of a bench: metric against loyalty for each task, and the gain in loyalty against the cost of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gradistill.auditing.trained_figures import title_with_dagger, trained_note
from gradistill.report.number_text import finite
from gradistill.report.svg import COLOURS, INK, Plot, short, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
"""The numbers of markers and of colours have no common divisor, so 55 methods look different."""
GAINED = ("response loyalty", "label loyalty")


class PlotPoint(NamedTuple):
    """A method in a plot; each of ``x`` and ``y`` is a value with its interval."""

    name: str
    number: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def bench_plots(bench: Mapping[str, Any]) -> list[Plot]:
    """All plots for which the bench has figures."""
    numbers = {name: k for k, name in enumerate(_methods(bench))}
    panels = [_metric_against_loyalty(panel, numbers) for panel in bench["panels"]]
    depths = dict.fromkeys(entry["layers"] for entry in bench["over_tasks"])
    gains = [_cost_against_gain(bench, layers, gained, numbers) for layers in depths for gained in GAINED]
    return [plot for plot in (*panels, *gains) if plot is not None]


def _methods(bench: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["method"] for panel in bench["panels"] for row in panel["rows"]))


def _metric_against_loyalty(panel: Mapping[str, Any], numbers: Mapping[str, int]) -> Plot | None:
    select = panel["select"]
    figures = [
        (row["method"], row["figures"].get(select), row["figures"].get("response loyalty"))
        for row in panel["rows"]
    ]
    points = [
        PlotPoint(title_with_dagger(name, y), numbers[name], _spread(x), _spread(y))
        for name, x, y in figures
        if x and y
    ]
    if not points:
        return None
    teacher_metric = finite((panel["teacher"] or {}).get(select))

    def draw(axes: Axes) -> None:
        if teacher_metric is not None:
            axes.axvline(teacher_metric, color=INK, alpha=0.45, linewidth=1, linestyle=(0, (1, 2)))
        _draw(axes, points)
        axes.set_xlabel(select.replace("_", " "))
        axes.set_ylabel("response loyalty")

    note = "Means over seeds with t intervals." + " The dotted line is the teacher." * (
        teacher_metric is not None
    )
    note += _on_marks(loyalty for _, _, loyalty in figures)
    title = f"{panel['task']}, {panel['layers']} layers"
    return Plot(title, note, svg(draw, title, 3.4, legend=len(points)))


def _cost_against_gain(
    bench: Mapping[str, Any], layers: int, gained: str, numbers: Mapping[str, int]
) -> Plot | None:
    entries = [entry for entry in bench["over_tasks"] if entry["layers"] == layers and entry["step"]]
    none = {"value": 0.0, "low": None, "high": None}
    gains = [(e, none if e["method"] == bench["baseline"] else e["gains"][gained]) for e in entries]
    points = [
        PlotPoint(title_with_dagger(e["method"], gain), numbers[e["method"]], (e["step"],) * 3, _spread(gain))
        for e, gain in gains
        if gain
    ]
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=INK, alpha=0.45, linewidth=1, linestyle=(0, (1, 2)))
        _draw(axes, points)
        axes.set_xlabel("time of a step (plain cross-entropy: 1)")
        axes.set_ylabel(f"{gained} above {bench['baseline']}")

    title = f"{gained} gained against cost, {layers} layers"
    tasks = len(entries[0]["tasks"])
    over = (
        f"Means over {tasks} tasks with intervals over them" if tasks > 1 else "One task, without intervals"
    )
    note = f"{over}; costs are those of gradistill methods."
    note += _on_marks(gain for _, gain in gains)
    return Plot(title[0].upper() + title[1:], note, svg(draw, title, 3.4, legend=len(points)))


def _on_marks(figures: Iterable[Any]) -> str:
    """The sentence that explains † in the legend, if it occurs there; otherwise blank."""
    note = trained_note(figures)
    return f" {note}." if note else ""


def _draw(axes: Axes, points: Sequence[PlotPoint]) -> None:
    for point in points:
        (x, *across), (y, *upright) = point.x, point.y
        axes.errorbar(
            [x], [y],
            xerr=[[x - across[0]], [across[1] - x]], yerr=[[y - upright[0]], [upright[1] - y]],
            color=COLOURS[point.number % len(COLOURS)], marker=MARKERS[point.number % len(MARKERS)],
            linestyle="none", markersize=6, elinewidth=0.9, capsize=2, label=short(point.name),
        )  # fmt: skip


def _spread(estimate: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return value, value if low is None else low, value if high is None else high
