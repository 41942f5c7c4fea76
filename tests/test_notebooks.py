"""The notebooks of the documentation run as they stand, on a tiny model and fewer rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notebook_cells import code_cells, run_cells

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = code_cells(notebook)
    smaller = {'"minilm-l6"': repr(str(small.base)), "ROWS = 300": "ROWS = 30", "epochs=5": "epochs=1"}
    sources = ["".join(cell["source"]) for cell in cells]
    for whole, part in smaller.items():
        assert any(whole in source for source in sources)
        sources = [source.replace(whole, part) for source in sources]
    found = list(run_cells(sources, notebook.name))
    kinds = [[output["output_type"] for output in outputs] for outputs in found]
    shown = [[output["output_type"] for output in cell["outputs"]] for cell in cells]
    for here, committed in zip(
        kinds, shown, strict=True
    ):  # a model that learnt nothing also prints a warning
        assert set(committed) <= set(here)
