"""How many nodes a path of expected gradients needs: agreement of teacher and student by paths and nodes a path.

    gradistill bench benchmarks/suite_dropout.yaml --data DATA --output BENCH
    python benchmarks/path_nodes.py measure BENCH DATA TASK ...   (adds to results/path_nodes.jsonl: a line a student)
    python benchmarks/path_nodes.py show                          (docs/results/yardstick.md)

The figure is ``expected_gradients`` of an audit, with other numbers of paths and nodes, on ``ROWS`` validation rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from full_rows import ORDER, models_of, shown_name
from measuring import RESULTS, YARDSTICK, json_lines, markdown, publish
from separation import data_of

from gradistill.auditing.methods import IntegratedGradients
from gradistill.auditing.model_comparison import ModelComparison
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.statistics import mean_estimate
from gradistill.commands.row_sample import WORD_POOL_ROWS, drawn_rows
from gradistill.data import DataChoice, read_splits
from gradistill.data.raw_words import row_texts, word_pool
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.signals.baselines import Baseline

LINES = RESULTS / "path_nodes.jsonl"
GRID: tuple[tuple[Baseline, int, int], ...] = (("tokens", 6, 4), ("tokens", 3, 8), ("tokens", 6, 16))
"""Where paths start, their number, and the nodes of each."""
WIDE: tuple[tuple[Baseline, int, int], ...] = (
    ("tokens", 1, 8), ("tokens", 6, 8), ("tokens", 12, 8),
    ("mask", 1, 24), ("mask", 1, 96), ("zero", 1, 24), ("zero", 1, 96),
)  # fmt: skip
"""Further ones, on the shortest texts."""
SHORT = "banking77"
ROWS = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("bench", type=Path)
    measuring.add_argument("data", type=Path)
    measuring.add_argument("tasks", nargs="+")
    measuring.set_defaults(run=lambda given: measure(given.bench, given.data, given.tasks))
    commands.add_parser("show").set_defaults(run=lambda _: show())
    given = parser.parse_args()
    given.run(given)


def measure(bench: Path, data: Path, tasks: Sequence[str]) -> None:
    """All students of these tasks that the bench kept, and that have no line yet."""
    known = [line["name"] for line in json_lines(LINES)]
    for task in tasks:
        teacher, kept = models_of(bench, task)
        named = {
            path: dict(zip(("task", "method", "seed"), (task, *own), strict=True))
            for path, own in kept.items()
        }
        new = {path: name for path, name in named.items() if name not in known}
        grid = (*GRID, *WIDE) if task == SHORT else GRID
        found = agreements(teacher, [*new], data_of(data, task), grid) if new else []
        with LINES.open("a", encoding="utf-8") as stream:
            for name, figures in zip(new.values(), found, strict=True):
                stream.write(json.dumps({"name": name, "figures": figures}) + "\n")


def agreements(
    teacher: str, students: Sequence[str], data: DataChoice, grid: Sequence[tuple[Baseline, int, int]]
) -> list[list[dict[str, Any]]]:
    """For each student the figure by each grid."""
    splits, tokenizer = read_splits(data, ("validation",)), load_tokenizer(teacher)
    rows = splits.rows["validation"]
    pool = word_pool(row_texts(drawn_rows(rows, WORD_POOL_ROWS, 0), splits.task))
    models = [ClassifierPredictor(load_classifier(path)[0], tokenizer) for path in (teacher, *students)]
    found: list[list[dict[str, Any]]] = [[] for _ in students]
    for start, paths, nodes in grid:
        method = _OfPaths(paths * nodes, baseline=start, draws=paths)
        comparison = ModelComparison(models[0], models[1:], splits.task, method, pool=pool)
        for own, columns in zip(found, comparison.agreement(drawn_rows(rows, ROWS, 0)), strict=True):
            figure = mean_estimate(columns["signed"], bounds=(-1.0, 1.0))
            own.append({"start": start, "paths": paths, "nodes": nodes, **figure.as_dict()})
    return found


class _OfPaths(IntegratedGradients):
    """As many paths as ``draws``, however few nodes each has."""

    @property
    def _paths(self) -> int:
        return self.draws


def show() -> None:
    known = sorted(
        json_lines(LINES), key=lambda line: (line["name"]["task"], ORDER.index(line["name"]["method"]))
    )
    rows = []
    for line in known:
        found = {
            (part["start"], part["paths"], part["nodes"]): f"{part['value']:.2f}" for part in line["figures"]
        }
        named = {"task": line["name"]["task"], "student": shown_name(line["name"]["method"])}
        rows.append(named | {f"{a} {b} × {c}": found.get((a, b, c), "") for a, b, c in (*GRID, *WIDE)})
    command = "python benchmarks/path_nodes.py show"
    publish("path_nodes", markdown(rows), rows, command=command, page=YARDSTICK)


if __name__ == "__main__":
    main()
