"""The page on several labels a row: the suite of goemotions and the softmax beside it, as tables.

    python benchmarks/labels_table.py [BENCH]

BENCH is the output of suite_labels.yaml; its lines are copied to results/suite_labels.jsonl, which is read without it.
results/softmax_baseline.json is that of softmax_baseline.py. Means over seeds, with 95 % t intervals.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, RESULTS, markdown, publish
from scipy.stats import t

LINES = RESULTS / "suite_labels.jsonl"
METRICS = ("micro_f1", "macro_f1", "average_precision", "exact_match")
LOYALTIES = ("label", "exact_match", "probability", "response", "saliency")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", type=Path, nargs="?")
    given = parser.parse_args()
    if given.bench is not None:
        shutil.copyfile(given.bench / "results.jsonl", LINES)
    lines = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["status"] == "done"]
    methods = list(dict.fromkeys(line["method"] for line in lines))
    of_method = {method: [line for line in lines if line["method"] == method] for method in methods}
    rows = [{"model": "teacher", **_means([line["teacher_eval"] for line in lines[:1]])}]
    rows += [
        {"model": f"`{method}`", **_means([line["eval"] for line in own])}
        for method, own in of_method.items()
    ]
    rows += _softmax()
    loyalties = [
        {"loyalty": f"`{method}`", **{name: _loyalty(own, name) for name in LOYALTIES}}
        for method, own in of_method.items()
    ]
    floors = {
        name: f"{np.mean([line['loyalty'][name]['floor'] for line in lines]):.3f}" for name in LOYALTIES
    }
    loyalties.append({"loyalty": "floor", **floors})
    text = f"{markdown(rows)}\n\n{markdown(loyalties)}"
    command = "python benchmarks/labels_table.py BENCH"
    publish(
        "suite_labels", text, {"lines": len(lines)}, command=command,
        page=PAGE.parent / "results" / "several_labels.md",
    )  # fmt: skip


def _softmax() -> list[dict[str, str]]:
    file = RESULTS / "softmax_baseline.json"
    found = json.loads(file.read_text(encoding="utf-8"))["figures"] if file.is_file() else []
    rows = []
    for form in ("top label", "thresholds"):
        for model in ("teacher", "kd"):
            own = [line[form] for line in found if line["model"] == model]
            if own:
                rows.append({"model": f"softmax, {form}: {model}", **_means(own)})
    return rows


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, str]:
    return {name.replace("_", " "): _shown([each[name] for each in figures]) for name in METRICS}


def _loyalty(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    return _shown([line["loyalty"][name]["value"] for line in lines])


def _shown(values: Sequence[float]) -> str:
    """The mean, with half the width of its interval where there are several values."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
