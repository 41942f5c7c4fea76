"""Suite v2: students of all training rows, beside teachers of all rows and a second teacher of each task; and of few.

    gradistill bench benchmarks/suite_full.yaml --data DATA --output BENCH
    gradistill bench benchmarks/suite_rows.yaml --data DATA --output FEWER
    python benchmarks/full_rows.py collect suite_full BENCH ...   (adds to results/suite_full.jsonl: a line a student)
    python benchmarks/full_rows.py collect suite_rows FEWER ...   (the same for the other suites of all rows)
    python benchmarks/full_rows.py audit SUITE BENCH DATA TASK ... (adds to results/SUITE_audits.jsonl)
    python benchmarks/full_rows.py show                           (README.md, docs/results.md, docs/results/)

Metric, labels and response loyalty are those of the bench, on the whole validation split (responses on some of it).
The audits of the students that the bench kept add what no bench measures: flips, Shapley values of words, and expected
gradients. A task counts by the mean of its seeds. Lines of audits with a ``baseline`` hold signed Integrated Gradients
from it, as an earlier version computed them: from tokens along six paths of four nodes (``path_nodes.py``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, RESULTS, YARDSTICK, json_lines, markdown, publish
from separation import data_of

from gradistill import AuditChoice, audit
from gradistill.auditing.methods import GradientXInput, IntegratedGradients
from gradistill.auditing.trained_figures import DAGGER, trained_figures
from gradistill.auditing.verdict import SIGNIFICANT, reference_comparisons
from gradistill.bench.result_lines import read_lines, write_lines
from gradistill.bench.results import estimate, figures_of
from gradistill.recipe import load_recipe, shipped_methods
from gradistill.recipe.catalogue import catalogue

OVERVIEW, DETAILS = PAGE.with_name("results.md"), PAGE.parent / "results" / "full_rows.md"
README = PAGE.parent.parent / "README.md"
AUDIT = AuditChoice(
    max_rows=200,
    response_rows=100,
    shapley_rows=40,
    expected_gradients_rows=60,
    faithfulness_rows=0,
    perturbed_rows=0,
    floor_rows=0,
    examples=10,
)
LAYERS = {
    "suite_full": (3,),
    "suite_rows": (3,),
    "suite_base": (6, 3),
    "suite_depth": (2, 4),
    "suite_third": (2,),
    "suite_dropout": (3,),
    "suite_rates": (3,),
    "weak_teacher": (3,),
}
"""Of the students of each suite; the usual is half of their teacher's."""
CONSTANT, UNTRAINED, RANDOM_HEADS = "constant prediction", "untrained student", "random heads"
"""What a figure is compared with: one prediction for every row, the student before its first step, and the trained
student with random heads."""
REFERENCE = "second teacher"
NOT_METHODS = (CONSTANT, UNTRAINED, RANDOM_HEADS, REFERENCE)
ORDER = (
    REFERENCE, "finetune", "kd", "kd, 2e-5", "kd, 5e-5", "kd, 5e-5, 20 epochs", "kd, 1e-4", "kd, 2e-4", "kd, 4e-4",
    "kd, no dropout", "kd_same_time", "pkd", "tinybert", "gkd, view teacher", "adkd", "minilm",
    "minilm, no dropout", "rationale, dropout", "rationale, weight 0.1", "rationale, capped", "rationale, uncapped",
    "rationale", "coalition", "coalition, no dropout",
    "coalition, weight 0.33", "coalition, weight 3", "coalition, copies alone", "coalition_rationale",
    "coalition_minilm, dropout", "coalition_minilm", "coalition_minilm, rationale",
    "coalition_minilm, rationale 0.1",
    "coalition_minilm, 5e-5", "coalition_minilm, 1e-4",
    "coalition_minilm, 2e-4", "coalition_minilm, 4e-4", "coalition_minilm, two copies",
    "coalition_minilm, two copies, dropout",
)  # fmt: skip
OF_ALL_SEEDS = ("kd", "minilm", "rationale", "coalition", "coalition_minilm")
"""Methods that have students of all seeds with few rows; variants of them have one."""
MAIN = (REFERENCE, *OF_ALL_SEEDS)
"""Means are over the tasks that all of these have."""
HARDLY_LEARNT = ("cola",)
"""In no mean but one: its teacher has a Matthews correlation of .25, so there is little to keep."""
KEPT = "metric kept"
FEWEST = 3
"""Tasks of which a method's gains are shown."""
WITH_ALL = "with cola"
"""The share of the metric that is kept in all tasks."""
MEASURED = {
    "labels": ("label", "prediction"),
    "response": ("response",),
    "gradient × input": ("saliency",),
}
"""Columns, with the loyalties of a bench that are one of them."""
AUDITED = {
    "flips": ("flips", None),
    "Shapley": ("shapley", None),
    "Integrated Gradients": ("signed", "tokens"),
    "from masks": ("signed", "mask"),
    "from zero": ("signed", "zero"),
    "expected gradients": ("expected_gradients", None),
}
"""Columns, with the figures of the audits and their baselines."""
AUDITED_HERE = ("flips", "Shapley", "Integrated Gradients")
BEYOND = ("response", "flips", "Shapley", "expected gradients")
"""Figures in which students are compared with a second teacher, example by example."""
COMPARED = (KEPT, "labels", "response", *AUDITED_HERE)
Line = Mapping[str, Any]
Values = dict[str, dict[str, float]]
"""Of a figure, by method and task."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("suite", choices=LAYERS)
    collecting.add_argument("benches", type=Path, nargs="+")
    collecting.set_defaults(run=lambda given: collect(given.suite, given.benches))
    auditing = commands.add_parser("audit")
    auditing.add_argument("suite", choices=LAYERS)
    auditing.add_argument("bench", type=Path)
    auditing.add_argument("data", type=Path)
    auditing.add_argument("tasks", nargs="+")
    auditing.set_defaults(run=lambda given: audit_tasks(given.suite, given.bench, given.data, given.tasks))
    commands.add_parser("show").set_defaults(run=lambda _: show())
    given = parser.parse_args()
    given.run(given)


def collect(suite: str, benches: Sequence[Path]) -> None:
    """Add the students that ended well; one that was trained again takes the place of its line."""
    file = RESULTS / f"{suite}.jsonl"
    found = read_lines(file)
    for bench in benches:
        new = read_lines(bench / "results.jsonl")
        found |= {key: line for key, line in new.items() if line["status"] == "done"}
    write_lines(file, found.values())


def audits_of(suite: str) -> Path:
    return RESULTS / f"{suite}_audits.jsonl"


def audit_tasks(suite: str, bench: Path, data: Path, tasks: Sequence[str]) -> None:
    """An audit a task, of all its students that have none yet. The second teacher is the audit's reference where it has
    none either: differences from it are corrected over the students of one audit."""
    known = {
        (line["task"], line["method"], line["seed"]) for line in audits(suite) if not line.get("baseline")
    }
    for task in tasks:
        teacher, kept = models_of(bench, task)
        new = {path: name for path, name in kept.items() if (task, *name) not in known}
        second = next((path for path, (method, _) in new.items() if method == REFERENCE), None)
        students = [path for path in new if path != second]
        if students:
            folder = bench.parent / f"{bench.name}_audits" / task
            choice = replace(AUDIT, reference=second)
            found = audit(teacher, students, data_of(data, task), folder, choice, overwrite=True)["students"]
            figures = {path: student["figures"] for path, student in zip(students, found, strict=True)}
            if second is not None:
                figures[second] = of_reference(found[0]["figures"])
            with audits_of(suite).open("a", encoding="utf-8") as stream:
                for path, own in figures.items():
                    method, seed = new[path]
                    line = {"task": task, "method": method, "seed": seed, "figures": own}
                    stream.write(json.dumps(line) + "\n")


def of_reference(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The second teacher's own figures, as a student's audit has them."""
    return {
        group: {name: entry["reference"] for name, entry in part.items() if "reference" in entry}
        for group, part in figures.items()
    }


def models_of(bench: Path, task: str) -> tuple[str, dict[str, tuple[str, int]]]:
    """The teacher that a bench fine-tuned for a task, and the students that it kept of it, with method and seed."""
    every = read_lines(bench / "results.jsonl").values()
    lines = [line for line in every if line["task"] == task and line["status"] == "done"]
    kept = {
        str(folder): (line["method"], line["seed"])
        for line in lines
        if (folder := bench / task / f"{line['layers']}-layers" / line["student"]["name"]).is_dir()
    }
    (teacher,) = {line["teacher"]["name"] for line in lines}
    return str(bench / task / "teachers" / teacher), kept


def lines_of(suite: str) -> list[dict[str, Any]]:
    lines = read_lines(RESULTS / f"{suite}.jsonl").values()
    return [line for line in lines if line["layers"] in LAYERS[suite]]


def by_depth(suite: str, of_half: str) -> list[dict[str, Any]]:
    """The lines of a suite of other depths, and those of its tasks and methods at half of the depth, which another
    suite has; each task with the student's layers in its name."""
    others = lines_of(suite)
    tried = {(line["task"], line["method"]) for line in others}
    half = [line for line in lines_of(of_half) if (line["task"], line["method"]) in tried]
    every = sorted([*others, *half], key=lambda line: (line["task"], line["layers"]))
    return [{**line, "task": f"{line['task']}, {line['layers']} layers"} for line in every]


def at_base_size() -> list[dict[str, Any]]:
    """The lines of base size; students of a quarter of the depth have it in the name of their task."""
    return [
        line if line["layers"] == 6 else {**line, "task": f"{line['task']}, {line['layers']} layers"}
        for line in lines_of("suite_base")
    ]


def by_rate() -> list[dict[str, Any]]:
    """The lines of mrpc by learning rate, with the students at the usual one, which are those of ``suite_dropout``."""
    usual = [
        {**line, "method": f"{line['method']}, 2e-4"}
        for line in lines_of("suite_dropout")
        if line["task"] == "mrpc" and line["method"] in ("kd", "coalition_minilm")
    ]
    return [*lines_of("suite_rates"), *usual]


def by_teacher() -> list[dict[str, Any]]:
    """The lines of banking77 with the teacher in the place of the task: the weak one of before, and that of the suite,
    for the seeds and methods that both have."""
    weak = lines_of("weak_teacher")
    tried = {(line["method"], line["seed"]) for line in weak}
    strong = [line for line in lines_of("suite_full") if line["task"] == weak[0]["task"]]
    both = tried & {(line["method"], line["seed"]) for line in strong}
    named = [("weak teacher", weak), ("strong teacher", strong)]
    return [
        {**line, "task": name}
        for name, own in named
        for line in own
        if (line["method"], line["seed"]) in both
    ]


def audits(suite: str) -> list[dict[str, Any]]:
    return json_lines(audits_of(suite))


def show() -> None:
    """Write the tables of the four pages."""
    found, rows = Comparison(lines_of("suite_full"), audits("suite_full")), lines_of("suite_rows")
    few = Comparison([line for line in rows if line["method"] in OF_ALL_SEEDS], [])
    variants = Comparison([line for line in rows if line["seed"] == 0], [])
    third = Comparison(by_depth("suite_third", of_half="suite_dropout"), [])
    depth = Comparison(by_depth("suite_depth", of_half="suite_full"), [])
    base = Comparison(at_base_size(), [])
    teachers = Comparison(by_teacher(), [])
    rates = Comparison(by_rate(), [])
    dropout = Comparison(lines_of("suite_dropout"), audits("suite_dropout"))
    shared = ("metric", "labels", "response")
    tables = [
        ("suite_full", OVERVIEW, found, markdown([*found.over_tasks()])),
        ("suite_full_short", README, found, markdown([*found.in_short()])),
        ("suite_full_tasks", DETAILS, found, found.tables(*shared, *AUDITED_HERE)),
        ("suite_full_gains", DETAILS, found, markdown([*found.differences()])),
        ("suite_rows", DETAILS, few, few.tables(*shared)),
        ("suite_rows_variants", DETAILS, variants, variants.tables(*shared)),
        ("suite_depth", DETAILS, depth, depth.tables(*shared)),
        ("suite_third", DETAILS, third, third.tables("metric", "metric kept", "labels", "response")),
        ("suite_base", DETAILS, base, base.tables("metric", "metric kept", "labels", "response")),
        ("weak_teacher", DETAILS, teachers, teachers.tables(*shared)),
        ("suite_rates", DETAILS, rates, rates.tables(*shared)),
        (
            "suite_dropout",
            DETAILS,
            dropout,
            dropout.tables(*shared, "flips", "Shapley", "expected gradients") + dropout.beyond_tables(),
        ),
        (
            "suite_full_paths",
            YARDSTICK,
            found,
            found.tables("Integrated Gradients", "from masks", "from zero"),
        ),
    ]
    for name, page, part, text in tables:
        of = {"lines": len(part.lines), "audits": len(part.audited)}
        command = "python benchmarks/full_rows.py show"
        publish(name, text, of, command=command, page=page, source=trained_with(part.lines))


def trained_with(lines: Sequence[Line]) -> str:
    """The libraries of the students' training, whatever writes their tables."""
    found = {
        name: sorted({line["versions"][name].partition("+")[0] for line in lines})
        for name in ("torch", "transformers")
    }
    return "of students trained with " + ", ".join(f"{name} {' and '.join(of)}" for name, of in found.items())


class Comparison:
    """Figures of a suite: ``columns`` holds each by its title. Floors are methods too."""

    def __init__(self, lines: Sequence[Line], audited: Sequence[Line]) -> None:
        self.lines, self.audited = lines, audited
        self.every_task = list(dict.fromkeys(line["task"] for line in lines))
        there = {line["method"] for line in lines}
        self.methods = [name for name in ORDER if name in there] + sorted(there - {*ORDER})
        self.columns = {
            "metric": means(lines, lambda line: line["eval"][line["select"]]),
            KEPT: means(lines, lambda line: figures_of(line)["retention"])
            | means([{**line, "method": CONSTANT} for line in lines], constant_share),
            **{
                title: with_floor(
                    UNTRAINED, lines, lambda line, part, names=names: loyalty(line, part, *names)
                )
                for title, names in MEASURED.items()
            },
            **{
                title: with_floor(
                    RANDOM_HEADS,
                    [line for line in audited if line.get("baseline") == baseline],
                    lambda line, part, name=name: agreement(line, part, name),
                )
                for title, (name, baseline) in AUDITED.items()
            },
        }

    @property
    def tasks(self) -> list[str]:
        """Those that all of the main methods have."""
        return self.tasks_of("metric")

    def tasks_of(self, title: str, without: Sequence[str] = HARDLY_LEARNT) -> list[str]:
        """Those in which all of the main methods have a figure: a regression has no flips."""
        of = self.columns[title]
        tasks = [task for task in self.every_task if task not in without]
        return [task for task in tasks if all(task in of.get(name, {}) for name in MAIN)]

    @property
    def whole(self) -> list[str]:
        """The methods that have students of all these tasks."""
        return [name for name in self.methods if {*self.columns["metric"][name]} >= {*self.tasks}]

    def mean(self, title: str, method: str, without: Sequence[str] = HARDLY_LEARNT) -> float | None:
        """Of a figure over its tasks; None where the method lacks one."""
        of, tasks = self.columns[title].get(method, {}), self.tasks_of(title, without)
        return float(np.mean([of[task] for task in tasks])) if tasks and {*of} >= {*tasks} else None

    def over_tasks(self) -> Iterator[dict[str, str]]:
        steps = {entry.method: entry.cost for entry in catalogue()}
        for method in (CONSTANT, UNTRAINED, RANDOM_HEADS, *self.whole):
            row = {"method": shown_name(method), "step": f"{cost:.2f}" if (cost := steps.get(method)) else ""}
            for title in (*COMPARED, "gradient × input"):
                row[title] = shown(self.mean(title, method)) + dagger(title, method)
                if title == KEPT:
                    row[WITH_ALL] = shown(self.mean(title, method, without=()))
            yield row

    def in_short(self) -> Iterator[dict[str, str]]:
        """The main methods by what most readers ask first. Each figure has its own floor; the metric's is that of the
        constant prediction."""
        titles = (KEPT, "labels", "response", "flips", "Shapley")
        floors = {title: next(iter(self.floors(title)), None) for title in titles}
        yield {"method": "floor"} | {title: shown(floor) for title, floor in floors.items()}
        for method in self.methods:
            if method in MAIN:
                row = {"method": shown_name(method)}
                yield row | {
                    title: shown(self.mean(title, method)) + dagger(title, method) for title in titles
                }

    def floors(self, title: str) -> Iterator[float]:
        means = (self.mean(title, floor) for floor in (CONSTANT, UNTRAINED, RANDOM_HEADS))
        return (mean for mean in means if mean is not None)

    def differences(self) -> Iterator[dict[str, str]]:
        """What each method has more than KD, and some more than others, over the learnt tasks that both have, of
        which there are ``FEWEST`` or more. Intervals are over these (Student's t); ``tasks`` counts those of the
        metric, and a figure that fewer have is followed by their number."""
        pairs = [
            (method, "kd")
            for method in self.methods
            if method != "kd" and len(self.apart("metric", method, "kd")) >= FEWEST
        ]
        main = [
            ("rationale", "coalition"),
            ("rationale", "coalition_minilm"),
            ("coalition_minilm", "coalition"),
            ("coalition_minilm", "minilm"),
            ("rationale", "minilm"),
        ]
        others = [pair for pair in main if {*pair} <= {*self.whole}]
        for method, other in (*pairs, *others):
            tasks = str(len(self.apart("metric", method, other)))
            yield {"method": shown_name(method), "more than": shown_name(other), "tasks": tasks} | {
                title: self.difference(title, method, other) for title in COMPARED
            }

    def apart(self, title: str, method: str, other: str) -> list[float]:
        """The differences of two methods in the learnt tasks that both have."""
        ours, theirs = (self.columns[title].get(name, {}) for name in (method, other))
        tasks = [task for task in self.every_task if task in ours and task in theirs]
        return [ours[task] - theirs[task] for task in tasks if task not in HARDLY_LEARNT]

    def difference(self, title: str, method: str, other: str) -> str:
        if not (apart := self.apart(title, method, other)):
            return ""
        gain = estimate(apart)
        half = "" if gain["low"] is None else f" ± {gain['value'] - gain['low']:.3f}"
        fewer = f" ({len(apart)})" if len(apart) < len(self.apart("metric", method, other)) else ""
        return f"{gain['value']:+.3f}{half}{dagger(title, method)}{fewer}"

    def tables(self, *titles: str) -> str:
        return "\n\n".join(markdown([*self.by_task(title)]) for title in titles if self.columns[title])

    def by_task(self, title: str) -> Iterator[dict[str, str]]:
        """A row a method; the first of the metric are the constant prediction's and the teacher's (of several teachers
        the mean)."""
        if title == "metric":
            for owner, key in ((CONSTANT, "constant_eval"), ("teacher", "teacher_eval")):
                of: dict[str, set[float]] = {}
                for line in self.lines:
                    of.setdefault(line["task"], set()).add(line[key][line["select"]])
                yield {title: owner} | {task: shown(float(np.mean([*of[task]]))) for task in self.every_task}
        for method in (CONSTANT, UNTRAINED, RANDOM_HEADS, *self.methods):
            if method in self.columns[title]:
                yield {title: shown_name(method) + dagger(title, method)} | {
                    task: self.cell(title, method, task) for task in self.every_task
                }

    def beyond_tables(self) -> str:
        """A table a figure of ``BEYOND``, each behind an empty line; nothing without audits that have a reference."""
        tables = ([*self.beyond(title)] for title in BEYOND)
        return "".join(f"\n\n{markdown(rows)}" for rows in tables if rows)

    def beyond(self, title: str) -> Iterator[dict[str, str]]:
        """How far each student of an audit differs from the second teacher, with a star where that is clear. Of several
        seeds, the first."""
        name = AUDITED[title][0] if title in AUDITED else title
        for method in self.methods:
            found = {
                line["task"]: entry
                for line in reversed(self.audited)
                if line["method"] == method
                for entry in reference_comparisons(line)
                if entry["figure"] == name
            }
            if found:
                yield {f"{title} − second teacher": shown_name(method) + dagger(title, method)} | {
                    task: _difference(found[task]) if task in found else "" for task in self.every_task
                }

    def cell(self, title: str, method: str, task: str) -> str:
        """The mean over seeds, with the mean of their intervals over examples where they have some."""
        value = self.columns[title][method].get(task)
        ends = [
            [bound(line, part) for part in ("low", "high")]
            for line, bound in self.bounds(title)
            if (line["method"], line["task"]) == (method, task)
        ]
        if value is None or not ends or any(None in own for own in ends):
            return shown(value)
        low, high = map(_end, np.mean(ends, axis=0))
        return f"{value:.3f} ({low} to {high})"

    def bounds(self, title: str) -> Iterator[tuple[Line, Callable[[Line, str], float | None]]]:
        """The lines of a figure, and what reads the ends of its interval from one."""
        if title in AUDITED:
            name, baseline = AUDITED[title]
            for line in self.audited:
                if line.get("baseline") == baseline:
                    yield line, lambda line, part: agreement(line, part, name)
        elif title in MEASURED:
            for line in self.lines:
                yield line, lambda line, part: loyalty(line, part, *MEASURED[title])


def constant_share(line: Line) -> float:
    """The share of the teacher's metric that one prediction for every row keeps."""
    return line["constant_eval"][line["select"]] / line["teacher_eval"][line["select"]]


def means(lines: Sequence[Line], measure: Callable[[Line], float | None]) -> Values:
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if (value := measure(line)) is not None:
            values.setdefault(line["method"], {}).setdefault(line["task"], []).append(value)
    return {
        method: {task: float(np.mean(of)) for task, of in tasks.items()} for method, tasks in values.items()
    }


def with_floor(floor: str, lines: Sequence[Line], measure: Callable[[Line, str], float | None]) -> Values:
    """The means of a figure, and of its floor over all students but the reference."""
    students = [{**line, "method": floor} for line in lines if line["method"] != REFERENCE]
    own, floors = (lambda line: measure(line, "value")), (lambda line: measure(line, "floor"))
    return means(lines, own) | means(students, floors)


def _difference(entry: Mapping[str, Any]) -> str:
    value, low, high = (entry["difference"][part] for part in ("value", "low", "high"))
    if low is None:
        return f"{value:+.3f}"
    star = " \\*" * (entry["p_corrected"] < SIGNIFICANT)
    return f"{value:+.3f} ({_end(low, '+')} to {_end(high, '+')}){star}"


def _end(value: float, sign: str = "") -> str:
    """An end of an interval, without a zero before the point."""
    return f"{value:{sign}.2f}".replace("0.", ".")


def loyalty(line: Line, part: str, *names: str) -> float | None:
    return next((entry[part] for name in names if (entry := line["loyalty"].get(name))), None)


def agreement(line: Line, part: str, name: str) -> float | None:
    entry = line["figures"]["loyalty"].get(name) or line["figures"]["agreement"].get(name)
    return entry and entry.get(part)


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def dagger(title: str, method: str) -> str:
    """The mark of a figure that a method trains on."""
    if title in AUDITED:
        figure, maps_by = AUDITED[title][0], IntegratedGradients.name
    else:
        figure, maps_by = MEASURED.get(title, ("",))[0], GradientXInput.name
    recipe = method.partition(",")[0]
    return f" {DAGGER}" if recipe in shipped_methods() and figure in trained_on(recipe, maps_by) else ""


@cache
def trained_on(recipe: str, maps_by: str) -> Mapping[str, list[str]]:
    return trained_figures(load_recipe(recipe), maps_by)


def shown_name(method: str) -> str:
    return method if method in NOT_METHODS else f"`{method}`"


if __name__ == "__main__":
    main()
