"""How many times as long as that of the predictions is the gradient of the gradient objectives, in the first steps?

    python benchmarks/gradient_balance.py DATA TASK… --size NAME --teacher FOLDER [--layers 3] [--learning-rate 2e-4]

Eleven steps of 32 rows are trained without a rule, each method with the weights of its recipe; a training compares both
gradients on the first, the sixth and the eleventh. ``FOLDER`` may hold ``{task}``. SIZE is what the table calls the
teacher's size. A line a task, a size and a method.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measuring import markdown, measured_before, publish

from gradistill.commands.prepared_run import prepared_run
from gradistill.data import DataChoice
from gradistill.recipe import load_recipe
from gradistill.training.gradient_balance import COMPARISONS, STEPS_BETWEEN

STEPS = (COMPARISONS - 1) * STEPS_BETWEEN + 1
METHODS = ("rationale", "adkd", "gkd")
BY = ("size", "task", "method")


def measured(given: argparse.Namespace, task: str, method: str) -> dict[str, Any]:
    """The line of one student."""
    arguments = {"max_steps": STEPS, "eval_strategy": "'no'", "save_strategy": "'no'", "disable_tqdm": "true"}
    changes = [f"training.arguments.{name}={value}" for name, value in arguments.items()]
    changes += [
        f"student.layers={given.layers}",
        f"training.learning_rate={given.learning_rate}",
        "compute.gradient_conflict=off",
    ]
    recipe = load_recipe(method, changes=changes)
    teacher = str(given.teacher).format(task=task)
    run = prepared_run(teacher, DataChoice(given.data / task, task=task), recipe)
    encoded = run.encode()
    with tempfile.TemporaryDirectory() as folder:
        trainer = run.trainer(run.arguments(Path(folder)), encoded, run.models.online)
        trainer.train()
    balance = trainer.gradient_balance
    assert balance is not None, f"{method} has no gradient objective beside predictions"
    weights = {term.name: term.weight for term in trainer.step.terms if term.objective.second_order}
    return {
        "size": given.size, "task": task, "method": method, "layers": given.layers, "weights": weights,
        "ratio": round(balance["ratio"], 3), "ratios": [round(ratio, 3) for ratio in balance["ratios"]],
    }  # fmt: skip


def row(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "teacher": line["size"], "task": line["task"], "method": f"`{line['method']}`",
        "weight": ", ".join(f"{weight:g}" for weight in line["weights"].values()),
        "median ratio": f"{line['ratio']:.3g}", "steps 1, 6, 11": ", ".join(f"{r:.3g}" for r in line["ratios"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--size", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--learning-rate", default="2e-4")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    given = parser.parse_args()
    for task in given.tasks:
        for method in given.methods:
            line = measured(given, task, method)
            kept = [old for old in measured_before("gradient_balance") if any(old[k] != line[k] for k in BY)]
            lines = sorted([*kept, line], key=lambda one: [one[k] for k in BY])
            command = "python benchmarks/gradient_balance.py DATA TASK… --size SIZE --teacher FOLDER"
            publish("gradient_balance", markdown([row(one) for one in lines]), lines, command=command)


if __name__ == "__main__":
    main()
