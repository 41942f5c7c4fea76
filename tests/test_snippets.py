"""Every Python block of the README and the docs runs as it stands, on tiny models and tables of the same names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import gradistill
from small import texts, write_table

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(
        page,
        block,
        id=f"{page.name}-{number}",
        marks=[pytest.mark.slow] if "export_model(" in block else [],
    )
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    for number, block in enumerate(re.findall(r"(?s)```python\n(.*?)```", page.read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def project(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``DATA/mrpc``, and a teacher of it in ``runs/teacher``."""
    folder = tmp_path_factory.mktemp("project")
    rows = [
        {"sentence1": row["text"], "sentence2": row["other"], "label": k % 2, "index": k}
        for k, row in enumerate(texts("three", 16))
    ]
    for split in ("train", "validation"):
        write_table(folder / "DATA" / "mrpc" / f"{split}.csv", rows)
    recipe = gradistill.load_recipe("finetune", changes=["training.epochs=1"])
    choice = gradistill.DataChoice(folder / "DATA" / "mrpc", task="mrpc")
    gradistill.finetune(str(small.base), choice, folder / "runs" / "teacher", recipe)
    return folder


def names_of(project: Path) -> dict[str, Any]:
    """What the blocks take for granted."""
    tokenizer = gradistill.load_tokenizer(project / "runs" / "teacher")
    model, _ = gradistill.load_classifier(project / "runs" / "teacher")
    splits = gradistill.load_splits(project / "DATA" / "mrpc", task="mrpc")
    rows = gradistill.encode(splits.rows["train"], tokenizer, splits.task, max_length=32).dataset
    frame = pd.read_csv(project / "DATA" / "mrpc" / "train.csv")
    return {"rows": rows, "tokenizer": tokenizer, "model": model, "frame": frame, "other_frame": frame}


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_block_runs(
    page: Path, block: str, project: Path, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project"))
    block = block.replace('"minilm-l6"', repr(str(small.base)))
    exec(compile(block, str(page), "exec"), names_of(project))
