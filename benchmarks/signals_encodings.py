"""Does it matter how a store writes its numbers? Students from each encoding beside students of other seeds.

    python benchmarks/signals_encodings.py TEACHER DATA OUTPUT --task TASK [--rows 800] [--method gkd_cls]

GKD-CLS asks for everything that is written narrower than float32: states, and gradients at the input and inside.
Finished runs in OUTPUT are left alone. Prints each figure by seed and encoding, and the largest distance from
float32 beside the range over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gradistill.report.terminal import results_table

ENCODINGS, SEEDS = ("float32", "int8"), (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--method", default="gkd_cls")
    parser.add_argument("--rows", type=int, default=800)
    given = parser.parse_args()
    found = {(seed, encoding): figures_of(given, seed, encoding) for seed in SEEDS for encoding in ENCODINGS}
    names = list(next(iter(found.values())))
    rows: list[dict[str, Any]] = [
        {"seed": seed, "encoding": encoding, **{name: figures[name] for name in names}}
        for (seed, encoding), figures in found.items()
    ]
    for encoding in ENCODINGS[1:]:
        apart = {n: max(abs(found[s, encoding][n] - found[s, "float32"][n]) for s in SEEDS) for n in names}
        rows.append({"seed": "largest distance", "encoding": encoding, **shown(apart)})
    spread = {n: np.ptp([found[seed, "float32"][n] for seed in SEEDS]) for n in names}
    rows.append({"seed": "range over seeds", "encoding": "float32", **shown(spread)})
    Console(width=140).print(results_table(rows, title=f"{given.method} on {given.task}, {given.rows} rows"))


def shown(figures: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:.1e}" for name, value in figures.items()}


def figures_of(given: argparse.Namespace, seed: int, encoding: str) -> dict[str, float]:
    folder = given.output / given.task / f"{encoding}-{seed}"
    if not (folder / "metrics.json").is_file():
        command = (
            f"gradistill distill --teacher {given.teacher} --data {given.data} --task {given.task} "
            f"--method {given.method} --student-layers 3 --epochs 2 --max-train-rows {given.rows} --seed {seed} "
            f"--encoding {encoding} --settings default --set training.learning_rate=1e-4 "
            f"--set training.batch_size=16 --set compute.trim_last_block=false --output {folder}"
        )
        cache = {"GRADISTILL_CACHE": str((given.output / "cache").resolve())}
        subprocess.run(command.split(), env=os.environ | cache, check=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    loyal = {f"{kind} loyalty": entry["value"] for kind, entry in metrics["loyalty"].items() if entry}
    return {**metrics["eval"], **loyal}


if __name__ == "__main__":
    main()
