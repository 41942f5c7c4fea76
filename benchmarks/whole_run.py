"""A whole training run, ours beside the papers' way of computing it (benchmarks/reference.yaml): time and loyalty.

    python benchmarks/whole_run.py TEACHER DATA OUTPUT --task sst2 [--rows 2000] [--epochs 2]

All train the same 3-layer student on the same rows with the same seed; ours in float32 and in bf16 from a store that
is built first, once in float32 with the teacher online, and the reference with its teacher online. Each run is a
process of its own, one after the other; finished runs in OUTPUT are left alone. Examples a second count training alone;
what the store took stands apart, with the epoch at which it has paid.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from distilling import arguments, cache, distilled
from measuring import markdown, publish

from gradistill.bench.plan import KEEP_LAST

HERE = Path(__file__).parent
ONLINE = ("reference", "float32, online")
ALIKE = ("training.learning_rate=1e-4", *KEEP_LAST)


def main() -> None:
    parser = arguments(__doc__, rows=2000)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    ways: dict[str, list[str]] = {
        "reference": ["--recipe", str(HERE / "reference.yaml"), "--signals", "online"],
        "float32": ["--method", "adkd"],
        "float32, online": ["--method", "adkd", "--signals", "online"],
        "bf16": ["--method", "adkd", "--set", "training.arguments.bf16=true"],
        "kd, bf16": ["--method", "kd", "--set", "training.arguments.bf16=true"],
    }
    found = {name: run(given, name, options) for name, options in ways.items()}
    text = markdown([row(name, found[name], found["reference"]) for name in found])
    text += (
        f"\n\nThe store has paid after {epochs_to_pay(given, found):.1f} epochs: what it took, against the time by "
        "which an epoch with the teacher online is longer."
    )
    options = f"--task {given.task} --rows {given.rows} --epochs {given.epochs}"
    command = f"python benchmarks/whole_run.py TEACHER DATA OUTPUT {options}"
    publish("whole_run", text, found, command=command)


def run(given: argparse.Namespace, name: str, options: list[str]) -> dict[str, Any]:
    folder = given.output / name.replace(", ", "-")
    if not folder.is_dir():
        shutil.rmtree(cache(given), ignore_errors=True)  # each way pays for its own store
    return distilled(given, folder, ["--epochs", str(given.epochs), *options], ALIKE)


def row(name: str, metrics: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    timing, slow = metrics["timing"], reference["timing"]
    stored = 0.0 if name in ONLINE else timing["signals_s"]
    return {
        "run": name,
        **{key: f"{value:.3f}" for key, value in metrics["eval"].items()},
        **{f"{kind} loyalty": interval(entry) for kind, entry in metrics["loyalty"].items() if entry},
        "examples/s": f"{timing['examples_per_s']:.1f}",
        "times the reference": f"{timing['examples_per_s'] / slow['examples_per_s']:.1f}",
        "store, s": f"{stored:.1f}",
        "peak MB": f"{timing['peak_rss_mb']:.0f}",
    }


def epochs_to_pay(given: argparse.Namespace, found: dict[str, dict[str, Any]]) -> float:
    stored, online = found["float32"]["timing"], found["float32, online"]["timing"]
    return stored["signals_s"] / (online["train_s"] - stored["train_s"]) * given.epochs


def interval(entry: dict[str, float]) -> str:
    return f"{entry['value']:.3f} ({entry['low']:.3f}–{entry['high']:.3f})"


if __name__ == "__main__":
    main()
