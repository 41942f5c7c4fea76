"""The plots of the documentation are those of the committed result files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLOTS = ROOT / "docs" / "plots"


def test_plots_are_of_the_committed_results() -> None:
    """Hashes stand for drawing again, which takes seconds; ``python benchmarks/plots.py`` writes both."""
    inputs = json.loads((PLOTS / "inputs.json").read_text(encoding="utf-8"))
    now = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in inputs}
    changed = [name for name in inputs if inputs[name] != now[name]]
    assert not changed, f"run python benchmarks/plots.py: {changed}"
    assert {"benchmarks/plots.py", "src/gradistill/report/svg.py"} < set(inputs)


def test_every_plot_is_shown_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert [plot.name for plot in PLOTS.glob("*.svg") if f"plots/{plot.name}" not in pages] == []
