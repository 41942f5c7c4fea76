"""Markdown tables from the run folders of main_job.sh: python benchmarks/main_job_table.py OUTPUT"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

METHODS = ("finetune", "kd", "kd_still", "pkd", "gkd", "gkd_cls", "adkd", "adkd_heavy")


def main(output: Path) -> None:
    for task in ("mrpc", "stsb", "snli", "sst2"):
        runs = {
            name: json.loads((output / task / name / "metrics.json").read_text())
            for name in METHODS
            if (output / task / name / "metrics.json").is_file()
        }
        if runs:
            print(f"### {task}\n")
            print_table(runs)


def print_table(runs: dict[str, dict[str, Any]]) -> None:
    first = next(iter(runs.values()))
    metrics = list(first["eval"])
    kinds = [kind for kind, entry in first["loyalty"].items() if isinstance(entry, dict)]
    n = max(first["loyalty"][kind]["n"] for kind in kinds)
    skipped = first["loyalty"]["saliency"]["skipped"]
    head = ["method", *metrics, *(f"{kind} loyalty" for kind in kinds), "train s", "of it teacher s"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    teacher = [f"{first['teacher_eval'][name]:.3f}" for name in metrics]
    print("| " + " | ".join(["*teacher*", *teacher, *[""] * (len(kinds) + 2)]) + " |")
    for method, run in runs.items():
        cells = [f"{run['eval'][name]:.3f}" for name in metrics]
        for kind in kinds:
            entry = run["loyalty"][kind]
            cells.append(f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]")
        cells += [f"{run['timing']['train_s']:.0f}", f"{run['timing']['signals_s']:.0f}"]
        print("| " + " | ".join([method, *cells]) + " |")
    shorter = f" ({skipped} of them too short for a saliency)" if skipped else ""
    print(f"\nn = {n} validation rows{shorter}, seed {first['seed']}, 95 % bootstrap intervals.\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
