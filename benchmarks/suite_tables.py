"""What a suite found, where people read it: a page of all its figures, its tables by task, its lines.

    gradistill bench benchmarks/suite.yaml --data DATA --output OUTPUT
    python benchmarks/suite_tables.py OUTPUT [--suite suite]

Writes docs/results/SUITE_figures.md, the sections SUITE (and SUITE_2 for students of 2 layers, …) of
docs/results/suite_by_task.md, and benchmarks/results/SUITE.jsonl.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PAGE, markdown, publish

from gradistill.bench.result_lines import RESULTS, read_lines, write_lines

HERE = Path(__file__).parent
PAGES = PAGE.parent / "results"
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
    parser.add_argument("--suite", default="suite", help="the name of its file in this folder")
    given = parser.parse_args()
    command = f"gradistill bench benchmarks/{given.suite}.yaml --data DATA --output OUTPUT"
    found = json.loads((given.output / "bench.json").read_text(encoding="utf-8"))
    tables = (given.output / "bench.md").read_text(encoding="utf-8")
    for layers in dict.fromkeys(panel["layers"] for panel in found["panels"]):
        panels = [panel for panel in found["panels"] if panel["layers"] == layers]
        text = "\n\n".join((*by_task(panels), stars(found), over_tasks(tables, layers)))
        name = given.suite if layers == found["panels"][0]["layers"] else f"{given.suite}_{layers}"
        publish(name, text, retention(panels), command=command, page=PAGES / "suite_by_task.md")
    page = PAGES / f"{given.suite}_figures.md"
    page.write_text(f"<!-- {command}: OUTPUT/bench.md -->\n{tables}", encoding="utf-8")
    compared = {row["method"] for panel in found["panels"] for row in panel["rows"]}
    lines = [line for line in read_lines(given.output / RESULTS).values() if line["method"] in compared]
    write_lines(HERE / "results" / f"{given.suite}.jsonl", lines)


def by_task(panels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for figure, title in TITLES.items():
        yield f"**{title}**\n\n{markdown(table(panels, figure))}"


def stars(found: Mapping[str, Any]) -> str:
    apart = [a for panel in found["panels"] for row in panel["rows"] for a in row["apart"].values() if a]
    tested = sum(a["p"] is not None for a in apart)
    starred = sum(map(proven, apart))
    return f"A star: p < 0.05 after Holm's correction for all {tested} differences of the bench; {starred} have one."


def proven(apart: Mapping[str, Any]) -> bool:
    """After the correction for all differences of the bench."""
    corrected = apart.get("p_corrected")
    return corrected is not None and corrected < 0.05


def over_tasks(tables: str, layers: int) -> str:
    """The table over tasks of one depth, out of the bench's own page."""
    found = re.search(rf"## (Over \d+ tasks?), {layers} layers\n.*?(\| method .*?)\n\n", tables, re.DOTALL)
    assert found, f"OUTPUT/bench.md has no table over tasks for {layers} layers"
    return f"**{found[1]}**\n\n{found[2]}"


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
    star = "\\*" if proven(row["apart"].get(name) or {}) else ""
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
