"""The tutorial on one's own CSV: every command runs, on a tiny model, fewer rows, and with options that shorten it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doc_commands import FENCE, ROOT
from typed_command import exit_code

PAGE = ROOT / "docs" / "tutorial_csv.md"
SHORTER = {
    "finetune": "--set training.epochs=1",
    "distill": "--set training.epochs=1 --set objectives.coalition_matching.sets=1",
    "audit": "--response-rows 3 --shapley-rows 1 --expected-gradients-rows 1 --faithfulness-rows 0 "
    "--perturbed-rows 0 --floor-rows 4",
    "export": "--no-timing",
}


@pytest.mark.slow
def test_the_csv_tutorial_runs(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = {"minilm-l6": str(small.base), "make_reviews(1500)": "make_reviews(30)", "layers 3": "layers 1"}
    page = PAGE.read_text(encoding="utf-8")
    for whole, part in smaller.items():
        assert whole in page
        page = page.replace(whole, part)
    ran = 0
    for block in FENCE.finditer(page):
        if block["kind"] == "python":
            exec(compile(block["text"], PAGE.name, "exec"), {})
            continue
        assert not block["mark"]
        for command in _commands(block["text"]):
            if command[0] == "finetune":
                _run_installed(command)
            else:
                assert exit_code(monkeypatch, tuple(command)) == 0, command
            ran += 1
    assert ran == 7
    for file in ("runs/audit/audit.html", "runs/export/onnx/model_quantized.onnx"):
        assert (tmp_path / file).is_file()
    assert (
        len((tmp_path / "predicted.csv").read_text().splitlines())
        == len((tmp_path / "predicted_int8.csv").read_text().splitlines())
        == 31
    )
    metrics = json.loads((tmp_path / "runs" / "student" / "metrics.json").read_text())
    assert metrics["student"]["layers"] == 1


def _run_installed(command: list[str]) -> None:
    """In a process of its own: the entry point, real pipes, nothing patched."""
    words = [sys.executable, "-m", "gradistill", *command]
    here = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=here)
    assert done.returncode == 0, done.stderr
    assert "written to runs/teacher" in done.stdout


def _commands(text: str) -> list[list[str]]:
    found = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("gradistill")]
    return [[*words, *SHORTER.get(words[0], "").split()] for words in found]
