"""The tables of ``docs/training.md``: run as a script it prints them."""

from __future__ import annotations

from pathlib import Path

from gradistill.recipe import TrainingSettings
from gradistill.training.argument_table import ARGUMENTS, Refusal
from gradistill.training.arguments import MetricNames, _defaults
from training.parity import as_markdown


def arguments_as_markdown() -> str:
    """One row an argument: in a recipe, given to DistillationTrainer, and what else there is to say."""
    defaults = _defaults(TrainingSettings(), Path("RUN"), MetricNames("METRIC", ("METRIC",)))
    machine = {
        "use_cpu": "where there is no accelerator",
        "dataloader_pin_memory": "where there is an accelerator",
    }
    lines = []
    for name, handling in ARGUMENTS.items():
        run = _refusal(handling.run) if handling.run else "applied"
        if name in defaults and not handling.run:
            value = machine.get(name, f"`{defaults[name]}`".replace("METRIC", "the task's"))
            run = f"applied; by default {value}"
        trainer = _refusal(handling.trainer) if handling.trainer else "applied"
        lines.append(f"| `{name}` | {run} | {trainer} | {handling.note} |")
    head = "| argument | in a recipe | DistillationTrainer | notes |"
    return "\n".join([head, "|---|---|---|---|", *lines])


def _refusal(refusal: Refusal) -> str:
    return f"refused: {refusal.why}. To do: {refusal.instead}"


if __name__ == "__main__":
    print(arguments_as_markdown(), end="\n\n")
    print(as_markdown())
