"""The results of a bench as JSON lines, one a cell. A finished cell is not run again; a failed one has its error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradistill.bench.plan import Cell
from gradistill.errors import RecipeError
from gradistill.io import write_whole

RESULTS = "results.jsonl"
_NEEDED = ("task", "method", "layers", "seed", "fingerprint", "status")
Key = tuple[str, int, str, int]
"""The key of a cell: task, layers, method, seed."""


def done(
    cell: Cell, fingerprint: str, metrics: Mapping[str, Any], select: str, at_once: int
) -> dict[str, Any]:
    """The line of a cell that ended well, from its ``metrics.json``."""
    kept = (
        "eval",
        "teacher_eval",
        "constant_eval",
        "loyalty",
        "timing",
        "student",
        "teacher",
        "inputs",
        "versions",
        "positive",
    )
    about = {"select": select, "at_once": at_once}
    return {**_head(cell, fingerprint, "done"), **about, **{name: metrics.get(name) for name in kept}}


def failed(cell: Cell, fingerprint: str, why: str) -> dict[str, Any]:
    return {**_head(cell, fingerprint, "failed"), "error": why}


def _head(cell: Cell, fingerprint: str, status: str) -> dict[str, Any]:
    key = {"task": cell.task, "layers": cell.layers, "method": cell.method, "seed": cell.seed}
    return {**key, "fingerprint": fingerprint, "status": status}


def read_lines(file: Path) -> dict[Key, dict[str, Any]]:
    """The lines of a file by cell; empty without a file. Raises RecipeError, with its number, for any other line."""
    if not file.is_file():
        return {}
    lines_by_cell: dict[Key, dict[str, Any]] = {}
    lines = io.StringIO(file.read_text(encoding="utf-8"))  # splitlines would divide a label at U+2028
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            if missing := [name for name in _NEEDED if name not in line]:
                raise ValueError(f"it lacks {missing[0]}")
            lines_by_cell[line["task"], line["layers"], line["method"], line["seed"]] = line
        except (ValueError, TypeError) as error:
            raise RecipeError(
                f"{file}, line {number}, is no result of a bench: {error}",
                expected="one JSON object a line, as gradistill bench writes them",
                remedy="remove that line: its cell is run again",
            ) from error
    return lines_by_cell


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_whole(file, text.encode())
