"""One process, two processes, and two accumulated halves: how far the same 20 steps end apart, for every recipe.

    python benchmarks/two_processes.py OUTPUT [--only kd adkd …]

Tiny models on the demo corpus, in float32 and without dropout (each process draws its own), by AdamW: a step of 16 rows
in one process, 8 in each of two (torchrun, gloo), and 8 twice in one. Rows come in the same order, so that what remains
is the order of sums. Prints the largest difference of any weight.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch
from measuring import PAGE, markdown, measured_before, publish
from safetensors.torch import load_file
from tiny import Tiny

from gradistill.commands.distill import distill
from gradistill.printing import LOGGER
from gradistill.recipe import load_recipe, shipped_methods
from gradistill.training.distributed import process_state

WAYS = {"one": (16, 1), "two processes": (8, 1), "two halves": (8, 2)}
"""Rows a device, and steps accumulated."""
STILL = (
    "student.layers=2", "student.dropout=none", "training.arguments.eval_strategy=no",
    "training.arguments.save_strategy=no", "training.arguments.load_best_model_at_end=false",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="+", default=list(shipped_methods()))
    parser.add_argument("--way", choices=WAYS, help="run one way, in this process")
    given = parser.parse_args()
    if given.way:
        for method in given.only:
            run(given.output, method, given.way)
        return
    Tiny.at(given.output)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for way in WAYS:
        command = [sys.executable, *(launcher if way == "two processes" else ()), __file__, str(given.output)]
        subprocess.run([*command, "--way", way, "--only", *given.only], env=environment, check=True)
    figures = dict(measured_before("two_processes")) | {
        method: {way: apart(given.output, method, way) for way in WAYS if way != "one"}
        for method in given.only
    }
    rows = [
        {"recipe": method, **{way: f"{value:.1e}" for way, value in entry.items()}}
        for method, entry in sorted(figures.items())
    ]
    publish(
        "two_processes",
        markdown(rows),
        figures,
        command="python benchmarks/two_processes.py OUTPUT",
        page=PAGE.with_name("several_machines.md"),
    )


def run(output: Path, method: str, way: str) -> None:
    torch.set_num_threads(1)
    rows, accumulated = WAYS[way]
    changes = [
        "training.epochs=2", "training.learning_rate=1e-3", f"training.batch_size={rows}",
        f"training.arguments.gradient_accumulation_steps={accumulated}", *STILL,
    ]  # fmt: skip
    tiny, folder = Tiny.at(output), output / way.replace(" ", "-") / method
    if not process_state().is_main_process:
        LOGGER.setLevel(logging.ERROR)
    distill(
        str(tiny.teacher), tiny.choice, folder, load_recipe(method, changes=changes), overwrite=True,
    )  # fmt: skip
    process_state().wait_for_everyone()


def apart(output: Path, method: str, way: str) -> float:
    one, other = (
        load_file(output / folder.replace(" ", "-") / method / "model.safetensors") for folder in ("one", way)
    )
    return max((one[name] - other[name]).abs().max().item() for name in one)


if __name__ == "__main__":
    main()
