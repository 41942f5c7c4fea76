"""How quick the page of an audit is in a browser: the time to load it, and to search, order and filter its examples.

    python benchmarks/page_speed.py AUDIT [--examples 300 1000 10000] [--rounds 5]

AUDIT is a folder that ``gradistill audit`` wrote. Its examples are repeated under new numbers until there are as many
as asked for. Times are those of headless Chromium: loading ends with the load event, and an action ends after the next
frame is painted. Needs playwright and an installed Chromium, as the tests of the page do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from measuring import markdown, publish
from playwright.sync_api import sync_playwright

from gradistill.report.audit_page import audit_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WORD = "the"

PAINTED = """async (act) => {
  const start = performance.now();
  eval(act);
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}"""

CHANGED = "document.getElementById('{0}').value = '{1}';" + (
    "document.getElementById('{0}').dispatchEvent(new Event('input', {{bubbles: true}}))"
)

ACTIONS = {
    "search": CHANGED.format("search", WORD),
    "order": CHANGED.format("order", "long"),
    "filter": 'document.querySelector(\'input[name="show"][value="same"]\').click()',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audit", type=Path)
    parser.add_argument("--examples", type=int, nargs="+", default=[300, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    figures = json.loads((given.audit / "audit.json").read_text(encoding="utf-8"))
    lines = (given.audit / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for count in given.examples:
        examples = [json.loads(line) | {"index": k} for k, line in enumerate(islice(cycle(lines), count))]
        found.append(timed(audit_page(figures, examples), count, given.rounds))
    counts = " ".join(map(str, given.examples))
    publish(
        "page_speed", markdown(found), found,
        command=f"python benchmarks/page_speed.py AUDIT --examples {counts} --rounds {given.rounds}",
    )  # fmt: skip


def timed(html: str, count: int, rounds: int) -> dict[str, Any]:
    """Size of the page and median milliseconds, with the largest in brackets."""
    seconds: dict[str, list[float]] = {name: [] for name in ("load", *ACTIONS)}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "audit.html"
        file.write_bytes(html.encode("utf-8", "backslashreplace"))
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(file.as_uri())
            seconds["load"].append(
                page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            )
            for name, act in ACTIONS.items():
                seconds[name].append(page.evaluate(PAINTED, act))
            page.close()
        browser.close()
    return {
        "examples": count, "MB": f"{len(html.encode('utf-8', 'replace')) / 1e6:.1f}",
        **{f"{name}, ms": _shown(taken) for name, taken in seconds.items()},
    }  # fmt: skip


def _shown(taken: Sequence[float]) -> str:
    return f"{np.median(taken):.0f} ({max(taken):.0f})"


if __name__ == "__main__":
    main()
