"""What the suite found, where people read it: docs/suite.md, the tables of docs/results.md, the lines of its students.

gradistill bench benchmarks/suite.yaml --data DATA --output OUTPUT
python benchmarks/suite_tables.py OUTPUT [--layers 3]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, markdown, publish

from gradistill.bench.lines import RESULTS, read_lines, write_lines

HERE = Path(__file__).parent
COMMAND = "gradistill bench benchmarks/suite.yaml --data DATA --output OUTPUT"
TITLES = {
    "metric": "The task's metric (Matthews correlation on cola, f1 on mrpc, Spearman's correlation on stsb, "
    "accuracy elsewhere)",
    "label loyalty": "Label loyalty (on stsb prediction loyalty)",
    "probability loyalty": "Probability loyalty",
    "saliency loyalty": "Saliency loyalty",
    "retention": "Retention: the metric as a share of the teacher's",
}
UNLEARNT = ("cola", "stsb")
"""Where so few rows teach no student: the mean retention is given without them as well."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    given = parser.parse_args()
    found = json.loads((given.output / "bench.json").read_text(encoding="utf-8"))
    panels = [panel for panel in found["panels"] if panel["layers"] == given.layers]
    parts = [f"**{title}**\n\n{markdown(table(panels, figure))}" for figure, title in TITLES.items()]
    rows = [row for panel in panels for row in panel["rows"]]
    tested = sum(a["p"] is not None for row in rows for a in row["apart"].values() if a)
    parts.append(f"A star: p < 0.05 after Holm's correction for all {tested} differences from KD.")
    publish(
        "suite", "\n\n".join(parts), retention(panels), command=COMMAND, page=PAGE.with_name("results.md")
    )
    tables = (given.output / "bench.md").read_text(encoding="utf-8")
    PAGE.with_name("suite.md").write_text(f"<!-- {COMMAND}: OUTPUT/bench.md -->\n{tables}", encoding="utf-8")
    lines = [line for line in read_lines(given.output / RESULTS).values() if line["layers"] == given.layers]
    write_lines(HERE / "results" / "suite.jsonl", lines)


def table(panels: Sequence[Mapping[str, Any]], figure: str) -> list[dict[str, str]]:
    """A row a method, a column a task."""
    rows = []
    if figure == "metric":
        taught = {panel["task"]: short(panel["teacher"][panel["select"]]) for panel in panels}
        rows.append({"method": "*teacher*", **taught})
    for method in (row["method"] for row in panels[0]["rows"]):
        rows.append({"method": method, **{panel["task"]: shown(panel, method, figure) for panel in panels}})
    return rows


def shown(panel: Mapping[str, Any], method: str, figure: str) -> str:
    row = next(row for row in panel["rows"] if row["method"] == method)
    name = panel["select"] if figure == "metric" else figure
    if name == "label loyalty" and name not in row["figures"]:
        name = "prediction loyalty"
    if name not in row["figures"]:
        return "–"
    apart = row["apart"].get(name) or {}
    star = "\\*" if (apart.get("p_corrected") or 1) < 0.05 else ""
    return short(row["figures"][name]["value"]) + star


def short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def retention(panels: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each method, over all tasks and without those that nobody learnt."""
    kept: dict[str, dict[str, float]] = {}
    for panel in panels:
        for row in panel["rows"]:
            kept.setdefault(row["method"], {})[panel["task"]] = row["figures"]["retention"]["value"]
    return {
        method: {
            "all": round(float(np.mean(list(of.values()))), 3),
            "learnt": round(float(np.mean([v for task, v in of.items() if task not in UNLEARNT])), 3),
        }
        for method, of in kept.items()
    }


if __name__ == "__main__":
    main()
