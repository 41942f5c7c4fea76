"""Does a student learn a shortcut that its teacher does not use? By how far the shortcut agrees with the label.

    python benchmarks/shortcut.py OUTPUT [--rates 0.7 0.9 1.0] [--seeds 0 1 2] [--jobs 2]

The demo at several rates and seeds: one teacher of clean reviews, and students of 3 layers distilled on 600 of the same
reviews with a weekday that agrees with the label at each rate, for eight epochs. Measured on 400 unseen reviews: clean
ones, and the same with the weekday of another label (challenge). Response loyalty is that of each run, on validation
rows with the weekday. OUTPUT goes on with what it holds; the students are a bench of their own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from distilling import paired
from measuring import PAGE, markdown, publish

from gradistill.bench.plan import cells, read_plan
from gradistill.bench.runner import bench
from gradistill.commands.finetune import finetune
from gradistill.commands.run_folder import finished_run
from gradistill.demo.corpus import make_corpus, write_corpus
from gradistill.demo.run_demo import CORPUS, Figures, corpus_choice, measured_model, unseen_rows
from gradistill.models.packaged import PACKAGED
from gradistill.recipe import load_recipe

STUDENT_ROWS = 600
METHODS = ("kd", "coalition", "coalition_minilm", "rationale", "adkd", "minilm", "gkd", "finetune")
ALIKE = ["training.learning_rate=1e-4", "training.batch_size=16", "training.arguments.bf16=true"]
FIGURES = ("accuracy", "challenge accuracy", "label loyalty", "response loyalty", "shortcut share")
RESULTS = PAGE.parent / "results" / "shortcuts.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.7, 0.9, 1.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    output = given.output.resolve()
    clean, teacher = output / "clean", output / "teacher"
    corpora = {rate: make_corpus(**CORPUS, shortcut_rate=rate) for rate in given.rates}
    first = corpora[given.rates[0]]
    write_corpus({name: first[name] for name in ("train", "validation", "test", "challenge")}, clean)
    recipe = load_recipe("finetune", changes=[*ALIKE, "training.epochs=3"])
    if not finished_run(teacher, recipe):
        finetune(PACKAGED, corpus_choice(clean), teacher, recipe)
    for rate, corpus in corpora.items():
        biased = {name: corpus[f"{name}_shortcut"] for name in ("train", "validation")}
        write_corpus(biased, output / "rates" / f"{rate:g}")
    plan, benched = planned(output, given.rates, given.seeds), output / "bench"
    bench(plan, benched, at_once=given.jobs)

    unseen = unseen_rows(teacher, clean, first)
    of_teacher, taught = measured_model(teacher, {}, unseen)
    students = [
        {
            "rate": float(cell.task), "method": cell.method, "seed": cell.seed,
            **values(measured_model(benched / cell.folder, taught, unseen)[0]),
        }
        for cell in cells(plan)
    ]  # fmt: skip
    found = {"teacher": values(of_teacher), "students": students}
    (output / "shortcut.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    rows = table(found)
    asked = f"--rates {' '.join(map(str, given.rates))} --seeds {' '.join(map(str, given.seeds))}"
    command = f"python benchmarks/shortcut.py OUTPUT {asked}"
    publish("shortcut", markdown(rows), found, command=command, page=RESULTS)


def table(found: Mapping[str, Any]) -> list[dict[str, str]]:
    taught = {name: f"{found['teacher'][name]:.3f}" for name in FIGURES}
    rates = dict.fromkeys(cell["rate"] for cell in found["students"])
    rows = [{"rate": "", "method": "*teacher*", **taught, "challenge, from kd": ""}]
    return rows + [row for rate in rates for row in of_rate(rate, found["students"])]


def planned(output: Path, rates: Sequence[float], seeds: Sequence[int]) -> Any:
    plan = {
        "tasks": {f"{r:g}": {"data": f"rates/{r:g}", "teacher": "teacher"} for r in rates},
        "methods": [*METHODS], "seeds": [*seeds], "layers": [3], "train_rows": STUDENT_ROWS,
        "set": [*ALIKE, "training.epochs=8"],
    }  # fmt: skip
    file = output / "bench.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    return read_plan(file)


def values(figures: Figures) -> dict[str, float]:
    found = {name: float(estimate.value) for name, estimate in figures.over_reviews.items()}
    response = figures.response or {"value": 1.0, "floor": 1.0}  # a teacher's to itself
    return found | {"response loyalty": response["value"], "response floor": response["floor"]}


def of_rate(rate: float, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each method's means over seeds, and of the challenge the difference from KD, paired by seed."""
    by_method = {m: [c for c in cells if (c["rate"], c["method"]) == (rate, m)] for m in METHODS}
    baseline = np.array([cell["challenge accuracy"] for cell in by_method["kd"]])
    rows = []
    for method, found in by_method.items():
        apart = np.array([cell["challenge accuracy"] for cell in found]) - baseline
        means = {name: f"{np.mean([cell[name] for cell in found]):.3f}" for name in FIGURES}
        from_kd = paired(apart) if len(apart) > 1 else f"{apart[0]:+.3f}"
        rows.append({"rate": f"{rate:g}", "method": method, **means, "challenge, from kd": from_kd})
    return rows


if __name__ == "__main__":
    main()
