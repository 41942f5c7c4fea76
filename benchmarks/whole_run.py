"""A whole training run, ours beside the papers' way of computing it (benchmarks/reference.yaml): time and loyalty.

    python benchmarks/whole_run.py TEACHER DATA OUTPUT --task sst2 [--rows 2000] [--epochs 2] [--rounds 3]

All train the same 3-layer student on the same rows with the same seed; ours in float32 and in bf16 from a store that
is built first, once in float32 with the teacher online, and the reference with its teacher online. Each run is a
process of its own, one after the other; finished runs in OUTPUT are left alone. Ours are repeated, in turns: a few
seconds of theirs say little (the reference takes minutes). Examples a second count training alone, median and range;
what the store took stands apart, with the epoch at which it has paid.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from distilling import arguments, cache, distilled
from measuring import markdown, publish

from gradistill.bench.plan import KEEP_LAST

HERE = Path(__file__).parent
ONLINE = ("reference", "float32, online")
ALIKE = ("training.learning_rate=1e-4", *KEEP_LAST)
Metrics = dict[str, Any]


def main() -> None:
    parser = arguments(__doc__, rows=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ways: dict[str, list[str]] = {
        "reference": ["--recipe", str(HERE / "reference.yaml"), "--signals", "online"],
        "float32": ["--method", "adkd"],
        "float32, online": ["--method", "adkd", "--signals", "online"],
        "bf16": ["--method", "adkd", "--set", "training.arguments.bf16=true"],
        "kd, bf16": ["--method", "kd", "--set", "training.arguments.bf16=true"],
    }
    found: dict[str, list[Metrics]] = {name: [] for name in ways}
    for count in range(given.rounds):
        for name, options in ways.items():
            if name != "reference" or not found[name]:
                found[name].append(run(given, name, count, options))
    text = markdown([row(name, found[name], found["reference"][0]) for name in found])
    text += (
        f"\n\nThe store has paid after {epochs_to_pay(given, found):.1f} epochs: what it took, against the time by "
        "which an epoch with the teacher online is longer."
    )
    options = f"--task {given.task} --rows {given.rows} --epochs {given.epochs} --rounds {given.rounds}"
    command = f"python benchmarks/whole_run.py TEACHER DATA OUTPUT {options}"
    publish("whole_run", text, found, command=command)


def run(given: argparse.Namespace, name: str, count: int, options: list[str]) -> Metrics:
    folder = given.output / f"{name.replace(', ', '-')}-{count}"
    if not folder.is_dir():
        shutil.rmtree(cache(given), ignore_errors=True)  # each way pays for its own store
    return distilled(given, folder, ["--epochs", str(given.epochs), *options], ALIKE)


def row(name: str, runs: Sequence[Metrics], reference: Metrics) -> dict[str, Any]:
    """What a way gave, which is the same each time, and the times that it took."""
    slow, first = reference["timing"]["examples_per_s"], runs[0]
    speeds = [one["timing"]["examples_per_s"] for one in runs]
    stored = 0.0 if name in ONLINE else median(one["timing"]["signals_s"] for one in runs)
    return {
        "run": name,
        **{key: f"{value:.3f}" for key, value in first["eval"].items()},
        **{f"{kind} loyalty": interval(entry) for kind, entry in first["loyalty"].items() if entry},
        "examples/s": f"{median(speeds):.1f} ({min(speeds):.1f}–{max(speeds):.1f})",
        "times the reference": f"{median(speeds) / slow:.1f}",
        "store, s": f"{stored:.1f}",
        "peak MB": f"{max(one['timing']['peak_rss_mb'] for one in runs):.0f}",
    }


def epochs_to_pay(given: argparse.Namespace, found: dict[str, list[Metrics]]) -> float:
    def taken(name: str, what: str) -> float:
        return median(one["timing"][what] for one in found[name])

    longer = taken("float32, online", "train_s") - taken("float32", "train_s")
    return taken("float32", "signals_s") / longer * given.epochs


def interval(entry: dict[str, float]) -> str:
    return f"{entry['value']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"


if __name__ == "__main__":
    main()
