"""From lines of results to a comparison: means with intervals, paired differences, ranks.

Seeds are the sample: an interval is Student's t over seeds, and a difference is paired by seed. An interval that would
leave the figure's range ends at its limit, and is marked as ``clipped``. Equal values have no interval. p-values of all
differences of the bench together are corrected by Holm's method. Ranks are averaged over tasks (Demšar 2006, JMLR 7,
section 3.2.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np
from scipy import stats

from gradistill.auditing.comparison import holm
from gradistill.auditing.loyalty_measures import NAMES
from gradistill.auditing.per_example import bounds_of
from gradistill.auditing.statistics import EQUAL, Bounds
from gradistill.auditing.trained_figures import (
    TRAINED_ON,
    trained_figures,
    trained_on_of,
    united,
    with_trained_on,
)
from gradistill.bench.plan import BenchPlan, recipe_of
from gradistill.recipe.catalogue import catalogue

LEVEL = 0.95
CORRELATIONS = ("matthews_correlation", "pearson", "spearman")
"""Metrics from −1 to 1; the others are shares."""
COMPARED = ("retention", *(f"{kind} loyalty" for kind in NAMES if kind != "prediction"))
"""The figures that are averaged over tasks and compared with the baseline."""
Line = Mapping[str, Any]


def summary(
    lines: Sequence[Line], broken: Sequence[Line], teachers: Mapping[str, Any], plan: BenchPlan
) -> dict[str, Any]:
    """The content of ``bench.json``: a panel for each task and depth, the methods over all tasks, and failed cells."""
    panels = [_panel(group, plan) for group in _grouped(lines, ("task", "layers")).values()]
    _correct(panels)
    return {
        "title": plan.title,
        "baseline": plan.baseline,
        "level": LEVEL,
        "panels": panels,
        "over_tasks": _over_tasks(panels, plan),
        "teachers": dict(teachers),
        "failed": [{k: e[k] for k in ("task", "layers", "method", "seed", "error")} for e in broken],
        "at_once": max((line["at_once"] for line in lines), default=0),
        "versions": lines[0]["versions"] if lines else {},
    }


def figures_of(line: Line) -> dict[str, float]:
    """One student's metrics, the selecting one also as a share of the teacher's (retention), and loyalties."""
    select, teacher_metrics = line["select"], line["teacher_eval"] or {}
    loyal = {f"{k} loyalty": v["value"] for k, v in (line["loyalty"] or {}).items() if k in NAMES and v}
    kept = (
        {"retention": line["eval"][select] / teacher_metrics[select]} if teacher_metrics.get(select) else {}
    )
    return {**line["eval"], **kept, **{k: v for k, v in loyal.items() if v is not None}}


def _panel(lines: Sequence[Line], plan: BenchPlan) -> dict[str, Any]:
    """One task at one depth: every method that has results, in the plan's order."""
    by_method = _grouped(lines, ("method",))
    first, baseline = lines[0], by_method.get((plan.baseline,), [])
    rows = [_row(by_method[(name,)], baseline, plan) for name in plan.methods if (name,) in by_method]
    return {
        "task": first["task"],
        "layers": first["layers"],
        "select": first["select"],
        "positive": first.get("positive"),
        "teacher": first["teacher_eval"],
        "constant": first.get("constant_eval"),
        "untrained": _untrained(lines),
        "rows": rows,
    }


def _untrained(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """The loyalties of the untrained students: the floors above which a loyalty comes from training."""
    of_seed = [[_floors(line) for line in group] for group in _grouped(lines, ("seed",)).values()]
    floors_by_name = {}
    for name in dict.fromkeys(name for group in of_seed for floors in group for name in floors):
        means = [_mean(floors.get(name) for floors in group) for group in of_seed]
        floors_by_name[name] = estimate(
            [mean for mean in means if mean is not None], range_of(name, lines[0])
        )
    return floors_by_name


def _floors(line: Line) -> dict[str, float]:
    loyal = {f"{kind} loyalty": entry for kind, entry in (line["loyalty"] or {}).items() if kind in NAMES}
    return {name: entry["floor"] for name, entry in loyal.items() if entry and entry.get("floor") is not None}


def _row(lines: Sequence[Line], baseline: Sequence[Line], plan: BenchPlan) -> dict[str, Any]:
    method = lines[0]["method"]
    trained = _trained(lines[0], plan)
    of_seed = {line["seed"]: figures_of(line) for line in lines}
    reference = {line["seed"]: figures_of(line) for line in baseline}
    names = list(dict.fromkeys(name for found in of_seed.values() for name in found))
    shared = [seed for seed in of_seed if seed in reference]
    return {
        "method": method,
        "seeds": sorted(of_seed),
        "figures": with_trained_on(
            {
                name: estimate([f[name] for f in of_seed.values() if name in f], range_of(name, lines[0]))
                for name in names
            },
            trained,
        ),
        "apart": {}
        if method == plan.baseline
        else with_trained_on(
            {
                name: _apart(
                    [
                        of_seed[seed][name] - reference[seed][name]
                        for seed in shared
                        if name in of_seed[seed] and name in reference[seed]
                    ],
                    range_of(name, lines[0]),
                )
                for name in names
            },
            trained,
        ),
        "train_s": float(np.median([line["timing"]["train_s"] for line in lines])),
    }


def _trained(line: Line, plan: BenchPlan) -> dict[str, list[str]]:
    """The loyalties that a student was trained on, each with its objectives: from its recipe, and from the marks in its
    line, which include the checkpoints that it started from."""
    recipe = recipe_of(plan, line["task"], line["method"], line["layers"], line["seed"])
    objectives_by_figure = united(trained_figures(recipe), trained_on_of(line["loyalty"] or {}))
    return {f"{kind} loyalty": objectives for kind, objectives in objectives_by_figure.items()}


def range_of(figure: str, line: Line) -> Bounds:
    """The smallest and the largest possible value of a metric or a loyalty: 0 to 1 for shares, −1 to 1 for
    correlations."""
    if figure == "retention":
        teacher_metric = line["teacher_eval"][line["select"]]
        ends = [end / teacher_metric for end in range_of(line["select"], line)]
        return min(ends), max(ends)
    loyalty = figure.removesuffix(" loyalty")
    if loyalty == figure:
        return (-1.0, 1.0) if figure in CORRELATIONS else (0.0, 1.0)
    return _range_of_loyalty(loyalty)


def _range_of_loyalty(kind: str) -> Bounds:
    return (-1.0, 1.0) if kind == "prediction" else bounds_of(kind)


def _of_differences(bounds: Bounds) -> Bounds:
    """The smallest and the largest difference of two values within these bounds."""
    width = bounds[1] - bounds[0]
    return -width, width


def estimate(values: Sequence[float], bounds: Bounds = (-inf, inf)) -> dict[str, Any]:
    """The mean and its t interval within ``bounds``, with ``clipped`` if it would leave them. One seed, or equal
    values, have no interval."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or np.ptp(values) <= EQUAL:
        return {"value": mean, "low": None, "high": None, "n": n}
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    clipped = {"clipped": True} if (low, high) != (mean - half, mean + half) else {}
    return {"value": mean, "low": low, "high": high, "n": n, **clipped}


def _apart(differences: Sequence[float], bounds: Bounds) -> dict[str, Any] | None:
    """The mean difference from the baseline; ``p`` by the paired t test, None where the seeds do not differ in it: a
    few rows make for few different values, and equal ones are no proof."""
    if not differences:
        return None
    p = None
    if len(differences) > 1 and np.ptp(differences) > EQUAL:
        found: Any = stats.ttest_1samp(differences, 0)
        p = float(found.pvalue)
    return {**estimate(differences, _of_differences(bounds)), "p": p if p is None or isfinite(p) else None}


def _correct(panels: Iterable[Mapping[str, Any]]) -> None:
    """Add to every difference its p-value, corrected for all differences."""
    every = [
        a
        for panel in panels
        for row in panel["rows"]
        for a in row["apart"].values()
        if a and a["p"] is not None
    ]
    for apart, p in zip(every, holm([a["p"] for a in every]), strict=True):
        apart["p_corrected"] = p


def _over_tasks(panels: Sequence[Mapping[str, Any]], plan: BenchPlan) -> list[dict[str, Any]]:
    """Each method at each depth over the tasks on which all methods of that depth have results.

    A figure is a mean over those of these tasks on which all methods have it that have it anywhere.
    """
    costs = {entry.method: entry.cost for entry in catalogue()}
    rows = []
    for (layers,), group in _grouped(panels, ("layers",)).items():
        names = [name for name in plan.methods if any(_of(panel, name) for panel in group)]
        common = [panel for panel in group if all(_of(panel, name) for name in names)]
        shared = {figure: _panels_of_all(common, names, figure) for figure in COMPARED}
        rows += [
            {
                "method": name,
                "layers": layers,
                "tasks": [panel["task"] for panel in common],
                "step": costs.get(plan.methods[name].method),
                "figures": {
                    figure: _mean(_value(_of(panel, name), figure) for panel in shared[figure])
                    for figure in COMPARED
                },
                "ranks": {
                    figure: _mean(_rank(panel, names, name, figure) for panel in common)
                    for figure in ("metric", "response loyalty", "saliency loyalty")
                },
                "gains": with_trained_on(
                    {figure: _gain(shared[figure], name, figure) for figure in COMPARED}, trained
                ),
                TRAINED_ON: [figure for figure in COMPARED if figure in trained],
            }
            for name in names
            for trained in [_trained_over(common, name)]
        ]
    return rows


def _panels_of_all(
    panels: Sequence[Mapping[str, Any]], names: Sequence[str], figure: str
) -> list[Mapping[str, Any]]:
    """The panels in which every method has a figure, of the methods that have it in any."""
    having = [{name for name in names if _value(_of(panel, name), figure) is not None} for panel in panels]
    return [panel for panel, found in zip(panels, having, strict=True) if found == set().union(*having)]


def _trained_over(panels: Sequence[Mapping[str, Any]], method: str) -> dict[str, list[str]]:
    """The figures that the method is trained on, in any of these tasks."""
    return united(*(trained_on_of(_of(panel, method)["figures"]) for panel in panels))


def _of(panel: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    return next((row for row in panel["rows"] if row["method"] == method), {})


def _value(row: Mapping[str, Any], figure: str) -> float | None:
    estimate = row.get("figures", {}).get(figure)
    return estimate["value"] if estimate else None


def _rank(panel: Mapping[str, Any], names: Sequence[str], method: str, figure: str) -> float | None:
    """The rank of a method in a panel, 1 for the best; equal values share the mean of their ranks."""
    name = panel["select"] if figure == "metric" else figure
    values = [_value(_of(panel, other), name) for other in names]
    if any(value is None for value in values):
        return None
    return float(stats.rankdata([-value for value in values if value is not None])[names.index(method)])


def _gain(panels: Sequence[Mapping[str, Any]], method: str, figure: str) -> dict[str, Any] | None:
    """The mean over tasks of the difference between method and baseline, with its interval over tasks."""
    apart = [(_of(panel, method)["apart"] or {}).get(figure) for panel in panels]
    values = [entry["value"] for entry in apart if entry]
    loyalty = figure.removesuffix(" loyalty")
    bounds = (
        (-inf, inf) if loyalty == figure else _range_of_loyalty(loyalty)
    )  # retention and metrics have no bounds here
    return estimate(values, _of_differences(bounds)) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _grouped(entries: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry[key] for key in keys), []).append(entry)
    return groups
