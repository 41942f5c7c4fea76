"""Suite v2: students of all training rows, beside teachers of all rows and a second teacher of each task.

    gradistill bench benchmarks/suite_full.yaml --data DATA --output BENCH
    python benchmarks/full_rows.py collect BENCH ...        (results/suite_full.jsonl: a line a student)
    python benchmarks/full_rows.py audit BENCH DATA TASK ...  (results/suite_full_audits.jsonl; needs the kept students)
    python benchmarks/full_rows.py show                     (docs/results/full_rows.md)

Metric, labels and response loyalty are those of the bench, on the whole validation split (responses on some of it).
The audits add what no bench measures: flips, Shapley values of words, and signed Integrated Gradients, on which no
method trains. Means over tasks are over those that all methods have; a task counts by the mean of its seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, RESULTS, markdown, publish
from scipy.stats import t

from gradistill import AuditChoice, DataChoice, audit
from gradistill.auditing.methods import IntegratedGradients
from gradistill.bench.result_lines import read_lines, write_lines
from gradistill.bench.results import figures_of
from gradistill.recipe.catalogue import catalogue

LINES, AUDITS = RESULTS / "suite_full.jsonl", RESULTS / "suite_full_audits.jsonl"
ROWS = RESULTS / "suite_rows.jsonl"
ALL_ROWS = 9842
"""Of snli."""
FULL_PAGE = PAGE.parent / "results" / "full_rows.md"
CHOICE = AuditChoice(
    method=IntegratedGradients(steps=20), max_rows=200, response_rows=100, shapley_rows=40, faithfulness_rows=0,
    perturbed_rows=0, floor_rows=100, examples=10,
)  # fmt: skip
REFERENCE = "second teacher"
ORDER = (
    REFERENCE, "finetune", "kd", "pkd", "tinybert", "minilm", "gkd, view teacher", "adkd", "rationale", "coalition",
    "coalition_minilm", "coalition_rationale", "kd, same time",
)  # fmt: skip
AUDITED = {"flips": "flips", "Shapley": "shapley", "IG": "signed"}
"""Columns of the table and the audit's figures. Of a model under a random head they are the floor."""
Line = Mapping[str, Any]
Values = dict[str, dict[str, float]]
"""By method and task."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("benches", type=Path, nargs="+")
    collecting.set_defaults(run=lambda given: collect(given.benches))
    auditing = commands.add_parser("audit")
    auditing.add_argument("bench", type=Path)
    auditing.add_argument("data", type=Path)
    auditing.add_argument("tasks", nargs="+")
    auditing.set_defaults(run=lambda given: audit_tasks(given.bench, given.data, given.tasks))
    commands.add_parser("show").set_defaults(run=lambda _: show())
    given = parser.parse_args()
    given.run(given)


def collect(benches: Sequence[Path]) -> None:
    """Add the students that ended well; one that was measured again takes the place of its line."""
    found = read_lines(LINES)
    for bench in benches:
        new = read_lines(bench / "results.jsonl")
        found |= {key: line for key, line in new.items() if line["status"] == "done"}
    write_lines(LINES, found.values())


def audit_tasks(bench: Path, data: Path, tasks: Sequence[str]) -> None:
    """One audit a task, of all its students that have none yet."""
    for task in tasks:
        known = {(line["method"], line["seed"]) for line in audits() if line["task"] == task}
        cells = [line for line in read_lines(bench / "results.jsonl").values() if line["task"] == task]
        new = {
            folder.name: (line["method"], line["seed"])
            for line in cells
            if line["status"] == "done" and (line["method"], line["seed"]) not in known
            and (folder := student_folder(bench, line)).is_dir()
        }  # fmt: skip
        if new:
            folders = [str(bench / task / f"{cells[0]['layers']}-layers" / name) for name in new]
            teacher = str(next((bench / task / "teachers").glob("*/config.json")).parent)
            found = audit(
                teacher, folders, data_of(data, task), bench / task / "audit", CHOICE, overwrite=True
            )
            with AUDITS.open("a", encoding="utf-8") as stream:
                for student in found["students"]:
                    method, seed = new[student["name"]]
                    line = {"task": task, "method": method, "seed": seed, "figures": student["figures"]}
                    stream.write(json.dumps(line) + "\n")


def student_folder(bench: Path, line: Line) -> Path:
    name = line["method"].replace(", ", "-").replace(" ", "-")
    return bench / line["task"] / f"{line['layers']}-layers" / f"{name}-{line['seed']}"


def data_of(data: Path, task: str) -> DataChoice:
    if task == "banking77":
        return DataChoice(str(data / task), label_column="category", text_columns=("text",))
    return DataChoice(str(data / task), task=task)


def audits() -> list[dict[str, Any]]:
    text = AUDITS.read_text(encoding="utf-8") if AUDITS.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def show() -> None:
    lines = [line for line in read_lines(LINES).values() if line["layers"] == 3]
    columns = figures(lines)
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    methods = [name for name in ORDER if any(line["method"] == name for line in lines)]
    parts = {
        "suite_full": markdown(over_tasks(columns, methods, tasks)),
        "suite_full_gains": markdown([*gains(columns, methods)]),
        "suite_full_tasks": "\n\n".join(
            markdown(by_task(lines, columns, title, methods, tasks))
            for title in ("metric", "labels", "response")
        ),
    }
    for name, text in parts.items():
        command = "python benchmarks/full_rows.py show"
        publish(name, text, {"lines": len(lines), "audits": len(audits())}, command=command, page=FULL_PAGE)


def measured() -> tuple[dict[str, Values], list[str], list[str]]:
    """Figures of students of 3 layers, their methods in order, and the tasks that all methods have."""
    lines = [line for line in read_lines(LINES).values() if line["layers"] == 3]
    columns = figures(lines)
    methods = [name for name in ORDER if any(line["method"] == name for line in lines)]
    tasks = dict.fromkeys(line["task"] for line in lines)
    return columns, methods, [t for t in tasks if all(t in columns["metric"][name] for name in methods)]


def by_rows(figure: str, task: str = "snli") -> dict[str, dict[int, float]]:
    """By method and number of rows: the mean over seeds, of suite_rows.yaml and of all rows."""
    all_rows = [line for line in read_lines(LINES).values() if line["layers"] == 3 and line["task"] == task]
    fewer = [line for line in read_lines(ROWS).values() if line["task"].startswith(f"{task}_")]
    found: dict[str, dict[int, float]] = {}
    for rows, lines in _by_count(fewer, all_rows):
        for method, of in figures(lines)[figure].items():
            if method not in ("floor", REFERENCE):
                found.setdefault(method, {})[rows] = float(np.mean([*of.values()]))
    return {method: points for method, points in found.items() if len(points) > 1}


def _by_count(fewer: Sequence[Line], all_rows: Sequence[Line]) -> Iterator[tuple[int, list[Line]]]:
    for name in sorted({line["task"] for line in fewer}, key=_count):
        yield _count(name), [line for line in fewer if line["task"] == name]
    yield ALL_ROWS, [*all_rows]


def _count(task: str) -> int:
    return int(task.rsplit("_", 1)[1])


def figures(lines: Sequence[Line]) -> dict[str, Values]:
    """Column, method, task: the mean over seeds; ``floor`` is a method too."""
    measured: dict[str, Callable[[Line], float | None]] = {
        "metric": lambda line: line["eval"][line["select"]],
        "metric kept": lambda line: figures_of(line)["retention"],
        "labels": lambda line: loyalty(line, "label", "prediction"),
        "response": lambda line: loyalty(line, "response"),
        "gradient × input": lambda line: loyalty(line, "saliency"),
    }
    floors = {
        "labels": lambda line: loyalty(line, "label", "prediction", part="floor"),
        "response": lambda line: loyalty(line, "response", part="floor"),
        "gradient × input": lambda line: loyalty(line, "saliency", part="floor"),
    }
    students = [line for line in lines if line["method"] != REFERENCE]
    found = {title: means(lines, measure) for title, measure in measured.items()}
    for title, measure in floors.items():
        found[title] |= means([{**line, "method": "floor"} for line in students], measure)
    for title, name in AUDITED.items():
        found[title] = means(audits(), lambda line, name=name: audited(line, name))
        under = [{**line, "method": "floor"} for line in audits() if line["method"] != REFERENCE]
        found[title] |= means(under, lambda line, name=name: audited(line, name, "floor"))
    return found


def loyalty(line: Line, *names: str, part: str = "value") -> float | None:
    return next((entry[part] for name in names if (entry := line["loyalty"].get(name))), None)


def audited(line: Line, name: str, part: str = "value") -> float | None:
    groups = line["figures"]
    entry = groups["loyalty"].get(name) or groups["agreement"].get(name)
    return entry and entry.get(part)


def means(lines: Sequence[Line], measure: Callable[[Line], float | None]) -> Values:
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if (value := measure(line)) is not None:
            values.setdefault(line["method"], {}).setdefault(line["task"], []).append(value)
    return {
        method: {task: float(np.mean(of)) for task, of in tasks.items()} for method, tasks in values.items()
    }


def over_tasks(
    columns: Mapping[str, Values], methods: Sequence[str], tasks: Sequence[str]
) -> list[dict[str, str]]:
    """Means over the tasks that every method of the table has, and the step's cost."""
    steps = {entry.method: entry.cost for entry in catalogue()}
    common = [task for task in tasks if all(task in columns["metric"][method] for method in methods)]
    rows = []
    for method in ("floor", *methods):
        row = {"method": title_of(method), "step": f"{steps[method]:.2f}" if steps.get(method) else ""}
        for title in ("metric kept", "labels", "response", *AUDITED, "gradient × input"):
            of = columns[title].get(method, {})
            row[title] = (
                f"{np.mean([of[task] for task in common]):.3f}" if common and set(common) <= {*of} else ""
            )
        rows.append(row)
    print(f"common tasks: {', '.join(common)}")
    return rows


def title_of(method: str) -> str:
    return method if method in ("floor", REFERENCE) else f"`{method}`"


def gains(columns: Mapping[str, Values], methods: Sequence[str]) -> Iterator[dict[str, str]]:
    """What each method has more than KD, in means over their common tasks, with t intervals over tasks."""
    for method in methods:
        if method not in ("kd", REFERENCE):
            row = {"from `kd`": title_of(method)}
            for title in ("metric kept", "labels", "response", "IG"):
                own, base = columns[title].get(method, {}), columns[title].get("kd", {})
                row[title] = interval([own[task] - base[task] for task in own if task in base])
            yield row


def interval(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) < 2:
        return f"{values[0]:+.3f} (one task)"
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):+.3f} ± {half:.3f}"


def by_task(
    lines: Sequence[Line],
    columns: Mapping[str, Values],
    title: str,
    methods: Sequence[str],
    tasks: Sequence[str],
) -> list[dict[str, str]]:
    """One figure of each method on each task, with how many seeds it has where there are several."""
    rows = []
    if title == "metric":
        taught = {line["task"]: line["teacher_eval"][line["select"]] for line in lines}
        rows.append({title: "teacher", **{task: f"{taught[task]:.3f}" for task in tasks}})
    for method in ("floor", *methods):
        of = columns[title].get(method)
        if of:
            seeds = {
                task: len({n["seed"] for n in lines if (n["task"], n["method"]) == (task, method)})
                for task in of
            }
            shown = {task: f"{of[task]:.3f}{f' ({seeds[task]})' if seeds[task] > 1 else ''}" for task in of}
            rows.append({title: title_of(method), **{task: shown.get(task, "") for task in tasks}})
    return rows


if __name__ == "__main__":
    main()
