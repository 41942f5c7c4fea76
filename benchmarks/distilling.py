"""What the benchmarks of whole runs share: their arguments, and students that are distilled once."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.bench.results import estimate


def two_at_a_time(
    run: Callable[..., dict[str, Any]], cells: Sequence[tuple[Any, ...]]
) -> dict[Any, dict[str, Any]]:
    """What ``run`` gives for each cell, on one core each: their times are not to be compared."""
    os.environ |= {"OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(2) as workers:
        return dict(zip(cells, workers.map(lambda cell: run(*cell), cells), strict=True))


def arguments(description: str | None, *, rows: int, bf16: bool = False) -> argparse.ArgumentParser:
    """TEACHER DATA OUTPUT --task TASK [--rows N], and --bf16 where ``bf16``; finished runs in OUTPUT are left alone."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--rows", type=int, default=rows)
    if bf16:
        parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    return parser


def precision(given: argparse.Namespace) -> list[str]:
    """The changes of a recipe that ``--bf16`` asks for."""
    return ["training.arguments.bf16=true"] if given.bf16 else []


def distilled(
    given: argparse.Namespace,
    folder: Path,
    options: Sequence[str],
    changes: Sequence[str] = (),
    *,
    layers: int | None = 3,
) -> dict[str, Any]:
    """The metrics of a student of the teacher's layers in ``folder``, trained now unless that was done.

    Without ``layers`` a checkpoint among the ``changes`` says how deep it is.

    The store of signals stands in OUTPUT, not in the user's cache. Our settings hold, not the papers'.
    """
    if not (folder / "metrics.json").is_file():
        command = [
            "gradistill", "distill", "--teacher", given.teacher, "--data", given.data, "--task", given.task,
            *(("--student-layers", str(layers)) if layers else ()), "--max-train-rows", str(given.rows),
            "--settings", "default", "--output", str(folder), *options,
            *(part for change in changes for part in ("--set", change)),
        ]  # fmt: skip
        subprocess.run(command, env=os.environ | {"GRADISTILL_CACHE": str(cache(given))}, check=True)
    return json.loads((folder / "metrics.json").read_text())


def shortened(data: Path, folder: Path, *, validation: int, train: int | None = None) -> str:
    """A folder with the first rows of each file of the task; without ``train``, with all of its training rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train.csv", train), ("validation.csv", validation)):
        with (data / name).open(encoding="utf-8", newline="") as whole:
            first = list(islice(csv.reader(whole), None if rows is None else rows + 1))
        with (folder / name).open("w", encoding="utf-8", newline="") as part:
            csv.writer(part).writerows(first)
    return str(folder)


def cache(given: argparse.Namespace) -> Path:
    return (given.output / "cache").resolve()


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The task's metrics and the loyalties."""
    loyal = {f"{kind} loyalty": entry["value"] for kind, entry in metrics["loyalty"].items() if entry}
    return {**metrics["eval"], **loyal}


def rows_over_seeds(
    name: str, found: Sequence[dict[str, float]], reference: Sequence[dict[str, float]], called: str
) -> list[dict[str, str]]:
    """Each figure as mean [range] over the seeds; below it the mean difference from the reference, paired by seed,
    with a 95 % t interval."""
    values = {figure: np.array([run[figure] for run in found]) for figure in found[0]}
    means = {k: f"{v.mean():.3f} [{v.min():.3f}, {v.max():.3f}]" for k, v in values.items()}
    if name == called:
        return [{"setting": name, **means}]
    apart = {k: paired(v - np.array([run[k] for run in reference])) for k, v in values.items()}
    return [{"setting": name, **means}, {"setting": f"  from {called}", **apart}]


def paired(differences: np.ndarray) -> str:
    """The mean difference and its 95 % t interval."""
    found = estimate(differences.tolist())
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
