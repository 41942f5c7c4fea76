"""Do the gradients of answers and of reasons pull apart? And what does a step cost that tells them from each other?

    python benchmarks/gradient_cosine.py DATA TASK… --teachers TEACHERS [--method rationale] [--steps 60]
    python benchmarks/gradient_cosine.py --cost [--rounds 5]

A student of half of the teacher's layers is distilled from TEACHERS/TASK/teacher with ``gradient_conflict: log``, which
changes nothing of what it learns. Of each step the cosine of both gradients is kept, and the ratio of their lengths.
A line a task: the mean cosine over all steps, over their first and their last third, the share of steps on which it is
negative, and the ratio ‖rest‖ / ‖answers‖. ``--cost`` times a step under each rule, as ``step_cost.py`` does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import alternating, markdown, measured_before, publish, ratio, shown
from step_cost import Bench, counted, timed

from gradistill.commands.prepared_run import prepared_run
from gradistill.data import DataChoice
from gradistill.recipe import ComputeSettings, load_recipe

RULES = ("off", "log", "project", "cap")
KEYS = ("gradient_cosine", "gradient_norm_ratio")


def measured(given: argparse.Namespace, task: str) -> dict[str, Any]:
    """The figures of one task, and what was logged at every step."""
    arguments = {
        "max_steps": given.steps,
        "logging_steps": 1,
        "eval_strategy": "'no'",
        "save_strategy": "'no'",
        "disable_tqdm": "true",
    }
    changes = [f"training.arguments.{name}={value}" for name, value in arguments.items()]
    recipe = load_recipe(given.method, task=task, changes=[*changes, "compute.gradient_conflict=log"])
    teacher = given.teachers / task / "teacher"
    run = prepared_run(teacher, DataChoice(given.data / task, task=task), recipe)
    encoded = run.encode()
    with tempfile.TemporaryDirectory() as folder:
        settings = run.arguments(Path(folder))
        trainer = run.trainer(settings, encoded, run.models.online)
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if KEYS[0] in entry]
    cosines, ratios = (np.asarray([entry[key] for entry in logs]) for key in KEYS)
    third = len(cosines) // 3
    return {
        "task": task, "method": given.method, "steps": len(cosines), "rows": recipe.training.batch_size,
        "cosine": round(float(cosines.mean()), 4), "sd": round(float(cosines.std(ddof=1)), 4),
        "first third": round(float(cosines[:third].mean()), 4),
        "last third": round(float(cosines[-third:].mean()), 4),
        "negative": round(float((cosines < 0).mean()), 3),
        "ratio": {"median": round(float(np.median(ratios)), 3), "low": round(float(ratios.min()), 3),
                  "high": round(float(ratios.max()), 3)},
        "every step": {"cosine": cosines.round(4).tolist(), "ratio": ratios.round(4).tolist()},
    }  # fmt: skip


def row(cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": cell["task"], "method": cell["method"], "steps": cell["steps"],
        "cosine, mean ± SD": f"{cell['cosine']:+.3f} ± {cell['sd']:.3f}",
        "first third": f"{cell['first third']:+.3f}", "last third": f"{cell['last third']:+.3f}",
        "share negative": f"{cell['negative']:.0%}", "‖rest‖ / ‖answers‖": shown(cell["ratio"]),
    }  # fmt: skip


def cost(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "store", 3, 64, 2, "float32", recipes=("rationale",))
        trainers = {
            rule: bench.distilling("rationale", compute=ComputeSettings(gradient_conflict=rule))
            for rule in RULES
        }
        seconds = alternating({rule: timed(trainer) for rule, trainer in trainers.items()}, rounds)
        flops = {rule: counted(trainer) for rule, trainer in trainers.items()}
    ratios = {
        rule: {"time": ratio(taken, seconds["off"]), "flops": round(flops[rule] / flops["off"], 3)}
        for rule, taken in seconds.items()
    }
    table = [
        {
            "gradient_conflict": rule,
            "FLOPs, off = 1": f"{cell['flops']:.3f}",
            "time, off = 1": shown(cell["time"]),
        }
        for rule, cell in ratios.items()
    ]
    command = f"python benchmarks/gradient_cosine.py --cost --rounds {rounds}"
    publish("conflict_cost", markdown(table), ratios, command=command)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--teachers", type=Path)
    parser.add_argument("--method", default="rationale")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cost", action="store_true", help="time a step under each rule")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.cost:
        cost(given.rounds)
    elif given.data is None or not given.tasks or given.teachers is None:
        parser.error("give DATA, at least one TASK and --teachers, or --cost")
    for task in given.tasks:
        cell = measured(given, task)
        kept = [
            c for c in measured_before("gradient_cosine") if (c["task"], c["method"]) != (task, given.method)
        ]
        cells = sorted([*kept, cell], key=lambda c: (c["method"], c["task"]))
        command = f"python benchmarks/gradient_cosine.py DATA TASK… --teachers TEACHERS --steps {given.steps}"
        publish("gradient_cosine", markdown([row(c) for c in cells]), cells, command=command)


if __name__ == "__main__":
    main()
