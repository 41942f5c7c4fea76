"""How near to its teacher a student of the demo comes, by rows, epochs and learning rate, and the CPU time it takes.

    python benchmarks/demo_students.py OUTPUT METHOD:ROWS:EPOCHS:RATE … [--seeds 0 1 2]

    python benchmarks/demo_students.py runs/students kd:600:2:1e-4 coalition:1200:6:3e-4 rationale:1200:6:3e-4

The teacher is that of ``gradistill demo``, and so are the reviews with the weekday that agrees with the label nine
times in ten. A student that reads the weekday alone has .90 on such validation rows and a third on clean ones: look at
``clean``. CPU seconds are those of this process (user time), for wall time depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

from measuring import markdown

from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.run_folder import finished_run
from gradistill.commands.signal_stores import StoreChoice
from gradistill.demo import run_demo
from gradistill.demo.corpus import make_corpus, write_corpus
from gradistill.models.packaged import PACKAGED
from gradistill.recipe import Recipe, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("students", nargs="+", help="METHOD:ROWS:EPOCHS:RATE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    rows = [row for seed in given.seeds for row in measured(given.output / str(seed), seed, given.students)]
    print(markdown(rows))


def measured(folder: Path, seed: int, students: list[str]) -> list[dict[str, object]]:
    corpus = make_corpus(train=3000, validation=400, test=400, seed=seed, shortcut_rate=run_demo.RATE)
    clean, shortcut = folder / "clean", folder / "shortcut"
    write_corpus({name: corpus[name] for name in ("train", "validation", "test", "challenge")}, clean)
    write_corpus({name: corpus[f"{name}_shortcut"] for name in ("train", "validation")}, shortcut)
    start = cpu_seconds()
    recipe = _recipe("finetune", seed, run_demo.CORPUS["train"], 4, 1e-4)
    teacher = folder / "teacher"
    if not finished_run(teacher, recipe):
        finetune(PACKAGED, run_demo.corpus_choice(clean), teacher, recipe)
    unseen = run_demo.unseen_rows(teacher, clean, corpus)
    figures, taught = run_demo.measured_model(teacher, {}, unseen)
    rows = [_row(seed, "teacher", figures, cpu_seconds() - start)]
    for student in students:
        method, count, epochs, rate = student.split(":")
        start = cpu_seconds()
        recipe = _recipe(
            method, seed, int(count), float(epochs), float(rate), f"student.layers={run_demo.STUDENT_LAYERS}"
        )
        place = folder / student.replace(":", "-")
        if not finished_run(place, recipe):
            distill(
                str(teacher), run_demo.corpus_choice(shortcut), place, recipe, signals=StoreChoice("online")
            )
        seconds = cpu_seconds() - start
        figures, _ = run_demo.measured_model(place, taught, unseen)
        rows.append(_row(seed, student, figures, seconds))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _recipe(method: str, seed: int, rows: int, epochs: float, rate: float, *changes: str) -> Recipe:
    training = {
        "seed": seed,
        "max_train_rows": rows,
        "epochs": epochs,
        "batch_size": 16,
        "learning_rate": rate,
    }
    return load_recipe(method, changes=[*(f"training.{k}={v}" for k, v in training.items()), *changes])


def _row(seed: int, name: str, figures: run_demo.Figures, seconds: float) -> dict[str, object]:
    measured = {key: f"{estimate.value:.3f}" for key, estimate in figures.over_reviews.items()}
    response = figures.response or {}
    return {
        "seed": seed, "student": name, "clean": measured["accuracy"], "challenge": measured["challenge accuracy"],
        "response": response.get("value"), "floor": response.get("floor"), "CPU s": f"{seconds:.0f}",
    }  # fmt: skip


def cpu_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
