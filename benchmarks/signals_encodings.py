"""Does it matter how a store writes its numbers? Students from each encoding beside students of other seeds.

    python benchmarks/signals_encodings.py TEACHER DATA OUTPUT --task TASK [--rows 800] [--method gkd_cls]

GKD-CLS asks for everything that is written narrower than float32: states, and gradients at the input and inside.
Finished runs in OUTPUT are left alone. Prints each figure by seed and encoding, and the largest distance from
float32 beside the range over seeds.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from distilling import arguments, distilled, figures
from rich.console import Console

from gradistill.report.terminal import results_table

ENCODINGS, SEEDS = ("float32", "int8"), (0, 1, 2)
ALIKE = ("training.learning_rate=1e-4", "training.batch_size=16", "compute.trim_last_block=false")


def main() -> None:
    parser = arguments(__doc__, rows=800)
    parser.add_argument("--method", default="gkd_cls")
    given = parser.parse_args()
    found = {(seed, encoding): figures_of(given, seed, encoding) for seed in SEEDS for encoding in ENCODINGS}
    names = list(next(iter(found.values())))
    rows: list[dict[str, Any]] = [
        {"seed": seed, "encoding": encoding, **{name: values[name] for name in names}}
        for (seed, encoding), values in found.items()
    ]
    for encoding in ENCODINGS[1:]:
        apart = {n: max(abs(found[s, encoding][n] - found[s, "float32"][n]) for s in SEEDS) for n in names}
        rows.append({"seed": "largest distance", "encoding": encoding, **shown(apart)})
    spread = {n: np.ptp([found[seed, "float32"][n] for seed in SEEDS]) for n in names}
    rows.append({"seed": "range over seeds", "encoding": "float32", **shown(spread)})
    Console(width=140).print(results_table(rows, title=f"{given.method} on {given.task}, {given.rows} rows"))


def shown(values: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:.1e}" for name, value in values.items()}


def figures_of(given: argparse.Namespace, seed: int, encoding: str) -> dict[str, float]:
    folder = given.output / given.task / f"{encoding}-{seed}"
    options = ("--method", given.method, "--epochs", "2", "--seed", str(seed), "--encoding", encoding)
    return figures(distilled(given, folder, options, ALIKE))


if __name__ == "__main__":
    main()
