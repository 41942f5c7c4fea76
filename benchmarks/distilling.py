"""What the benchmarks of whole runs share: their arguments, and students that are distilled once."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def arguments(description: str | None, *, rows: int) -> argparse.ArgumentParser:
    """TEACHER DATA OUTPUT --task TASK [--rows N]; finished runs in OUTPUT are left alone."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--rows", type=int, default=rows)
    return parser


def distilled(
    given: argparse.Namespace, folder: Path, options: Sequence[str], changes: Sequence[str] = ()
) -> dict[str, Any]:
    """The metrics of a 3-layer student in ``folder``, trained now unless that was done.

    The store of signals stands in OUTPUT, not in the user's cache. Our settings hold, not the papers'.
    """
    if not (folder / "metrics.json").is_file():
        command = [
            "gradistill", "distill", "--teacher", given.teacher, "--data", given.data, "--task", given.task,
            "--student-layers", "3", "--max-train-rows", str(given.rows), "--settings", "default",
            "--output", str(folder), *options, *(part for change in changes for part in ("--set", change)),
        ]  # fmt: skip
        subprocess.run(command, env=os.environ | {"GRADISTILL_CACHE": str(cache(given))}, check=True)
    return json.loads((folder / "metrics.json").read_text())


def cache(given: argparse.Namespace) -> Path:
    return (given.output / "cache").resolve()


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """The task's metrics and the loyalties."""
    loyal = {f"{kind} loyalty": entry["value"] for kind, entry in metrics["loyalty"].items() if entry}
    return {**metrics["eval"], **loyal}
