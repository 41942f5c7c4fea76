"""The plots of docs/results, from the result files in this folder: ``python benchmarks/plots.py``.

Writes docs/plots/*.svg, and docs/plots/inputs.json with the hash of every file that they are made from.
tests/test_plots.py compares the hashes, so a changed result file asks for new plots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import full_rows
import numpy as np
from full_rows import UNTRAINED, Comparison, lines_of

from gradistill.bench.results import estimate
from gradistill.recipe.catalogue import catalogue
from gradistill.report import svg as drawing
from gradistill.report.svg import COLOURS, INK, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
RESULTS, PLOTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "plots"
READ = (
    "separation.jsonl", "coalition_means.json", "method_costs.json", "suite.jsonl", "export.jsonl", "suite_full.jsonl",
    "suite_rows.jsonl",
)  # fmt: skip

TASKS = {"mrpc": "F1", "snli": "accuracy", "stsb": "Spearman", "sst2": "accuracy", "banking77": "accuracy"}
STYLES = {
    "kd": ("o", COLOURS[0]), "minilm": ("s", COLOURS[1]), "rationale": ("^", COLOURS[2]),
    "coalition": ("D", COLOURS[3]), "coalition_rationale": ("P", COLOURS[4]), "adkd": ("v", COLOURS[4]),
    "tinybert": ("X", COLOURS[0]), "gkd": ("<", COLOURS[1]), "pkd": (">", COLOURS[2]), "finetune": ("h", COLOURS[3]),
    "coalition_minilm": ("p", COLOURS[4]),
}  # fmt: skip
DOTTED = {"color": INK, "alpha": 0.45, "linewidth": 1, "linestyle": (0, (1, 2))}
HEIGHT = 3.2  # inches of a plot, without its legend


def main() -> None:
    PLOTS.mkdir(exist_ok=True)
    for file in PLOTS.glob("*.svg"):
        file.unlink()
    for name, drawn in plots():
        (PLOTS / f"{name}.svg").write_text(drawn + "\n", encoding="utf-8")
        print(name)
    (PLOTS / "inputs.json").write_text(json.dumps(inputs(), indent=1) + "\n", encoding="utf-8")


def inputs() -> dict[str, str]:
    """SHA-256 of each file that the plots depend on, by its path from the root."""
    files = [
        *(RESULTS / name for name in READ),
        Path(__file__),
        Path(full_rows.__file__),
        Path(drawing.__file__),
    ]
    return {
        str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)
    }


def plots() -> Iterator[tuple[str, str]]:
    """Name and SVG of every plot."""
    yield "full_reasons", full_answers_and_reasons()
    yield "full_cost", full_cost_and_gain()
    yield "rows_metric", by_rows("metric", "accuracy of the student")
    yield "rows_response", by_rows("response", "response loyalty")
    for task in TASKS:
        yield f"reasons_{task}", answers_and_reasons(task)
    yield "cost_reasons", cost_against_gain("integrated_gradients", "agreement by Integrated Gradients")
    yield "cost_metric", cost_against_gain("metric", "the task's metric")
    yield "suite_saliency", suite_gain("saliency", "saliency loyalty")
    yield "suite_label", suite_gain("label", "label loyalty")
    yield "size_rows", size_against_latency("times", "single rows")
    yield "size_batches", size_against_latency("times_batch", "batches of 32")


def read_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines()]


def read_figures(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))["figures"]


def full_answers_and_reasons() -> str:
    """Students of all rows: what they keep of their teacher's metric against response loyalty, in means over tasks."""
    found = Comparison(lines_of("suite_full"), [])
    floor = found.mean("response", UNTRAINED)

    def draw(axes: Axes) -> None:
        axes.axhline(floor, label="before training", **DOTTED)
        for method in found.whole:
            marker, colour = STYLES.get(method, ("*", INK))
            place = [[found.mean(title, method)] for title in ("metric kept", "response")]
            axes.plot(*place, marker=marker, color=colour, label=method, linestyle="none", markersize=8)
        axes.set_title(f"mean of {len(found.tasks)} tasks")
        axes.set_xlabel("share of the teacher's metric (answers)")
        axes.set_ylabel("response loyalty (reasons)")

    return svg(draw, "All rows, answers and reasons", HEIGHT, legend=len(found.whole) + 1)


def full_cost_and_gain() -> str:
    """Students of all rows: what a step costs against the gain over KD in the teacher's labels."""
    found = Comparison(lines_of("suite_full"), [])
    costs = {entry.method: entry.cost for entry in catalogue() if entry.cost}
    labels = {name: found.mean("labels", name) for name in found.whole}
    gains = {name: value - labels["kd"] for name, value in labels.items() if name in costs}

    def draw(axes: Axes) -> None:
        axes.axhline(0, **DOTTED)
        for name, gain in gains.items():
            marker, colour = STYLES[name]
            axes.plot(
                [costs[name]], [gain], marker=marker, color=colour, label=name, linestyle="none", markersize=8
            )
        axes.set_title(f"label loyalty, mean of {len(found.tasks)} tasks")
        axes.set_xlabel("time of a step, in plain ones")
        axes.set_ylabel("gain over kd")

    return svg(draw, "All rows, cost and gain", HEIGHT, legend=len(gains))


def by_rows(figure: str, title: str) -> str:
    """How a figure of snli's students grows with their rows, in means over seeds."""
    suites = {name: Comparison(lines_of(name), []).columns[figure] for name in ("suite_rows", "suite_full")}
    tasks = {500: ("suite_rows", "snli_500"), 2000: ("suite_rows", "snli_2000"), 9842: ("suite_full", "snli")}
    methods = [name for name in suites["suite_rows"] if name in STYLES and name in suites["suite_full"]]

    def draw(axes: Axes) -> None:
        for method in methods:
            marker, colour = STYLES[method]
            points = {
                rows: of[task]
                for rows, (suite, task) in tasks.items()
                if task in (of := suites[suite].get(method, {}))
            }
            axes.plot([*points], [*points.values()], marker=marker, color=colour, label=method, linewidth=1)
        axes.set_xscale("log")
        there = sorted({rows for line in axes.lines for rows in line.get_xdata()})
        axes.set_xticks(there, labels=[f"{rows:,}" for rows in there])
        axes.minorticks_off()
        axes.set_title("snli")
        axes.set_xlabel("rows of the student")
        axes.set_ylabel(title)

    return svg(draw, f"snli, {title} by rows", HEIGHT, legend=len(methods))


def students_of(task: str) -> dict[str, dict[str, Any]]:
    """Of each audited student of a task: metric, and the figure of response loyalty with interval and floor."""
    found = {}
    for line in read_lines("separation.jsonl"):
        if line["task"] != task or "figures" not in line:
            continue
        metrics = line["metrics"]
        response = line["figures"]["loyalty"]["response"]
        first = next(iter(metrics))
        found[line["student"]] = {"metric": metrics[first], "teacher": line["teacher"][first]} | response
    return found


def answers_and_reasons(task: str) -> str:
    """The task's metric against response loyalty: an untrained student, coarser copies, methods, a second teacher."""
    students = students_of(task)
    bits = [students[name] for k in (2, 3, 4, 5, 6, 8) if (name := f"bits_{k}") in students]
    methods = [name for name in STYLES if name in students]
    shown = 4 + len(methods) + ("second" in students)

    def draw(axes: Axes) -> None:
        axes.axvline(students["cut"]["teacher"], label="the teacher's metric", **DOTTED)
        floors = [students[name]["floor"] for name in methods]
        low, high = (
            min(floors) - 0.01,
            max(floors) + 0.01,
        )  # a band that is seen where all floors are the same
        axes.axhspan(low, high, color=INK, alpha=0.12, linewidth=0, label="floors (random heads)")
        axes.plot(
            [s["metric"] for s in bits], [s["value"] for s in bits], color=INK, alpha=0.35, linewidth=1,
            marker=".", label="teacher in 2 to 8 bits",
        )  # fmt: skip
        _point(axes, students["cut"], "cut, not trained", marker="x", color=INK)
        for name in methods:
            _point(axes, students[name], name, marker=STYLES[name][0], color=STYLES[name][1])
        if "second" in students:
            _point(axes, students["second"], "second teacher", marker="*", color=INK, markersize=9)
        axes.set_title(task)
        axes.set_xlabel(f"{TASKS[task]} (answers)")
        axes.set_ylabel("response loyalty (reasons)")

    return svg(draw, f"{task}, answers and reasons", HEIGHT, legend=shown)


def _point(axes: Axes, student: Mapping[str, Any], label: str, **style: Any) -> None:
    """A point with the interval of its response loyalty."""
    value = student["value"]
    axes.errorbar(
        [student["metric"]], [value], yerr=[[value - student["low"]], [student["high"] - value]], label=label,
        linestyle="none", **{"markersize": 6, "elinewidth": 0.9, "capsize": 2} | style,
    )  # fmt: skip


def cost_against_gain(figure: str, title: str) -> str:
    """What a step costs against what a method gains over KD, in means over seven tasks (one seed)."""
    means, costs = read_figures("coalition_means.json"), read_figures("method_costs.json")
    methods = [name for name in means if name in costs]

    def draw(axes: Axes) -> None:
        axes.axhline(0, **DOTTED)
        for name in methods:
            cost = costs[name]
            across = [[cost["median"] - cost["low"]], [cost["high"] - cost["median"]]]
            gain = means[name][figure] - means["kd"][figure]
            marker, colour = STYLES[name]
            axes.errorbar(
                [cost["median"]], [gain], xerr=across, marker=marker, color=colour, label=name,
                linestyle="none", markersize=7, elinewidth=0.9, capsize=2,
            )  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("time of a step, in plain ones")
        axes.set_ylabel("gain over kd")

    return svg(draw, f"Cost against gain, {title}", HEIGHT, legend=len(methods))


def suite_gains(figure: str) -> dict[str, tuple[float, float, float]]:
    """Mean over tasks of each method's gain over KD, paired by seed, with a t interval over tasks (3 layers)."""
    found: dict[tuple[str, str, int], float] = {}
    for line in read_lines("suite.jsonl"):
        loyalty = line.get("loyalty") or {}
        entry = loyalty.get(figure)  # a regression has no labels
        if line["layers"] == 3 and entry:
            found[line["method"], line["task"], line["seed"]] = entry["value"]
    gains = {}
    for method in dict.fromkeys(method for method, _, _ in found):
        tasks: dict[str, list[float]] = {}
        for (name, task, seed), value in found.items():
            if name == method and ("kd", task, seed) in found:
                tasks.setdefault(task, []).append(value - found["kd", task, seed])
        gain = estimate([float(np.mean(of)) for of in tasks.values()])
        value, low, high = (gain[part] for part in ("value", "low", "high"))
        gains[method] = (value, value if low is None else low, value if high is None else high)
    return gains


def suite_gain(figure: str, title: str) -> str:
    """What a step costs against what a method gains over KD, in means over the seven tasks of the suite."""
    gains, costs = suite_gains(figure), read_figures("method_costs.json")
    methods = [name for name in gains if name in STYLES and name in costs]

    def draw(axes: Axes) -> None:
        axes.axhline(0, **DOTTED)
        for name in methods:
            value, low, high = gains[name]
            marker, colour = STYLES[name]
            axes.errorbar(
                [costs[name]["median"]], [value], yerr=[[value - low], [high - value]], marker=marker, color=colour,
                label=name, linestyle="none", markersize=6, elinewidth=0.9, capsize=2,
            )  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("time of a step, in plain ones")
        axes.set_ylabel("gain over kd")

    return svg(draw, f"Suite, gain in {title}", HEIGHT, legend=len(methods))


def size_against_latency(speed: str, of: str) -> str:
    """Size of each model of an export against its time on one core, as a share of the teacher's in PyTorch."""
    lines = [line for line in read_lines("export.jsonl") if "vocabulary" not in line]
    kinds = {
        "teacher": "teacher, PyTorch",
        "student": "student, PyTorch",
        "onnx": "student, ONNX",
        "int8": "INT8",
    }

    def draw(axes: Axes) -> None:
        for number, (name, label) in enumerate(kinds.items()):
            costs = [line["costs"][name] for line in lines]
            axes.plot(
                [cost["bytes"] / 1e6 for cost in costs], [1 / cost["cores"]["1"][speed] for cost in costs],
                marker="osD^"[number], color=COLOURS[number], linestyle="none", markersize=6, label=label,
            )  # fmt: skip
        axes.set_title(of)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("size, MB")
        axes.set_ylabel("time, teacher = 1")

    return svg(draw, f"Size and latency, {of}", HEIGHT, legend=len(kinds))


if __name__ == "__main__":
    main()
