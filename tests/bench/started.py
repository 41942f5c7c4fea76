"""A bench in a process of its own, whose cells have a process each: what test_bench.py kills."""

from __future__ import annotations

from pathlib import Path

from gradistill.bench.plan import read_plan
from gradistill.bench.runner import bench


def run_bench(file: Path, output: Path) -> None:
    """One cell at a time."""
    bench(read_plan(file), output, at_once=1)
