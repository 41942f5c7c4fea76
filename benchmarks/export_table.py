"""What ``gradistill export`` writes of trained students: size, speed, metric and loyalty beside teacher and student.

    python benchmarks/export_table.py --models MODELS --data DATA [--tasks sst2,mrpc]
    python benchmarks/export_table.py --models MODELS --data DATA --trim
    python benchmarks/export_table.py --show

``MODELS/TASK/teacher`` and ``MODELS/TASK/kd`` are run folders, ``DATA/TASK`` the data. A result line a task goes to
``results/export.jsonl`` as soon as it is there, and tasks with a line are left out. ``--trim`` adds INT8 with a
smaller vocabulary and embeddings in four bits. ``--show`` writes the table to docs/export.md. Models take turns, so
ratios hold on a busy machine; milliseconds do not. ``--max-rows 50`` only shows that all works: it keeps no line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import RESULTS, machine, markdown, publish

from gradistill import DataChoice, ExportChoice, export_model

LINES = RESULTS / "export.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "export.md"
COLUMNS: dict[str, dict[str, Any]] = {
    "banking77": {"label_column": "category", "text_columns": ("text",)},
}
"""How the data of a task that is not known by name are read."""

ROWS = 1000
SMALL = {"sst2": 26_500}
"""Tokens that stay with ``--trim``: as many as are 8 times smaller than the teacher. All that occur for other tasks."""

TASKS = ("sst2", "mrpc", "snli", "stsb", "banking77")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--trim", action="store_true")
    parser.add_argument(
        "--max-rows", type=int, default=ROWS, help="fewer only show that all works: no line is kept"
    )
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    if not given.show:
        for task in given.tasks.split(","):
            if given.max_rows != ROWS:
                line = _exported(task, given, rows=given.max_rows)
                print(markdown(_rows(line)))
            elif (task, given.trim) not in {(line["task"], _is_trimmed(line)) for line in _lines()}:
                _append(_exported(task, given, rows=ROWS))
    if given.max_rows == ROWS:
        _publish()


def _exported(task: str, given: argparse.Namespace, *, rows: int) -> dict[str, Any]:
    models, data = given.models / task, given.data / task
    source = DataChoice(str(data), **COLUMNS.get(task, {"task": task}))
    choice = ExportChoice(quantize="int8", max_rows=rows)
    if given.trim:
        choice = replace(
            choice, trim_vocabulary=str(data), vocabulary_size=SMALL.get(task), embedding_bits=4
        )  # fmt: skip
    with TemporaryDirectory() as folder:
        output, teacher = Path(folder) / "out", str(models / "teacher")
        found = export_model(str(models / "kd"), output, choice, data=source, teacher=teacher)
    kept = (
        "data",
        "parity",
        "metrics",
        "loyalty",
        "costs",
        "int8",
        "versions",
        *(["vocabulary"] if given.trim else []),
    )
    return {"task": task, "machine": machine(), **{name: found[name] for name in kept}}


def _lines() -> list[dict[str, Any]]:
    if not LINES.is_file():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def _append(line: dict[str, Any]) -> None:
    with LINES.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _publish() -> None:
    lines = sorted(_lines(), key=lambda line: (TASKS.index(line["task"]), _is_trimmed(line)))
    rows = [row for line in lines for row in _rows(line)]
    figures = {row["task"] + " " + row["model"]: row for row in rows}
    command = "python benchmarks/export_table.py --models MODELS --data DATA"
    if rows:
        publish("export_table", markdown(rows), figures, command=command, page=PAGE)


def _rows(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a model: sizes and times as multiples of the teacher's. Of a trimmed export only INT8 is shown."""
    loyal, costs, trimmed = line["loyalty"], line["costs"], _is_trimmed(line)
    bits = "4-bit embeddings, " if line["int8"].get("embedding_bits") == 4 else ""
    found = []
    for name in ["int8"] if trimmed else costs:
        cost, one = costs[name], costs[name].get("cores", {}).get("1")
        to_student = loyal["student"].get(name, {})
        to_teacher = loyal["teacher"].get(name, {})
        found.append({
            "task": line["task"], "model": f"{name}, {bits}trimmed" if trimmed else name,
            "MB": f"{cost['bytes'] / 1e6:.1f}",
            "smaller": f"{costs['teacher']['bytes'] / cost['bytes']:.1f} ×",
            "batch 1": f"{one['times']:.1f} ×" if one else "", "batch 32": f"{one['times_batch']:.1f} ×" if one else "",
            "peak MB": f"{cost['peak_mb']:.0f}" if one else "",
            "metric": _shown(next(iter(line["metrics"][name].values()))),
            "label, student": _main(to_student), "response, student": _shown(to_student.get("response")),
            "label, teacher": _main(to_teacher), "response, teacher": _shown(to_teacher.get("response")),
        })  # fmt: skip
    return found


def _is_trimmed(line: dict[str, Any]) -> bool:
    return "vocabulary" in line


def _main(figures: dict[str, Any]) -> str:
    """Label loyalty, or in a regression the correlation of the predictions."""
    return _shown(figures.get("label") or figures.get("prediction"))


def _shown(figure: dict[str, Any] | None) -> str:
    if not figure or figure["value"] is None:
        return ""
    value = f"{figure['value']:.3f}"
    return value if figure["low"] is None else f"{value} ({figure['low']:.3f}–{figure['high']:.3f})"


if __name__ == "__main__":
    main()
