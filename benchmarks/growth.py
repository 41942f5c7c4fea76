"""How time and memory of AD-KD training grow with examples, tokens, labels and layers, beside the arithmetic.

    python benchmarks/growth.py [--rounds 3]

One epoch from a store, batches of 8, float32, trimmed; each axis grows from the same start: 64 rows of 32 tokens,
2 labels, 3 layers. Times of an axis are taken in turns, as multiples of its first point; in theory examples and
labels are the arithmetic of a step (docs/performance.md), tokens and layers too. Peak memory is that of a process of
its own which builds its store and trains.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from measuring import alternating, markdown, peak_rss_mb, publish, ratio, shown
from step_cost import Bench
from transformers import Trainer


@dataclass(frozen=True)
class Point:
    examples: int = 64
    tokens: int = 32
    labels: int = 2
    layers: int = 3


AXES = {"examples": (64, 256, 1024), "tokens": (32, 128, 512), "labels": (2, 3, 10, 50), "layers": (3, 6, 12)}
BATCH = 8


def benched(point: Point, folder: Path) -> tuple[Bench, Trainer]:
    bench = Bench(
        folder, point.layers, point.tokens, point.labels, "float32", batch=BATCH, examples=point.examples
    )
    trainer = bench.distilling("adkd")
    trainer.args.max_steps = point.examples // BATCH
    return bench, trainer


def epoch(trainer: Trainer) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        trainer.train()
        return perf_counter() - start

    return run


def grown(axis: str, rounds: int) -> list[dict[str, Any]]:
    points = [replace(Point(), **{axis: value}) for value in AXES[axis]]
    with tempfile.TemporaryDirectory() as folder:
        made = [benched(point, Path(folder) / str(k)) for k, point in enumerate(points)]
        seconds = alternating({str(k): epoch(trainer) for k, (_, trainer) in enumerate(made)}, rounds)
    work = [
        point.examples * bench.encoder().step_flops(point.labels - 1, trimmed=True)
        for point, (bench, _) in zip(points, made, strict=True)
    ]
    return [
        {
            "axis": axis, **asdict(point), "time": ratio(seconds[str(k)], seconds["0"]),
            "arithmetic": round(work[k] / work[0], 3), **memory(point),
        }
        for k, point in enumerate(points)
    ]  # fmt: skip


def memory(point: Point) -> dict[str, float]:
    command = [sys.executable, __file__, "--memory", *map(str, asdict(point).values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured_memory(point: Point) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        _, trainer = benched(point, Path(folder))
        trainer.train()
    return {"peak MB": round(peak_rss_mb())}


def row(cell: dict[str, Any]) -> dict[str, Any]:
    return {**cell, "time": shown(cell["time"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print(json.dumps(measured_memory(Point(*given.memory))))
        return
    cells = [cell for axis in AXES for cell in grown(axis, given.rounds)]
    text = markdown([row(cell) for cell in cells])
    publish("growth", text, cells, command=f"python benchmarks/growth.py --rounds {given.rounds}")


if __name__ == "__main__":
    main()
