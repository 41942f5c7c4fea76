"""The code cells of a notebook, run in this process.

As a script it runs the notebooks of the documentation with the real model, and writes what they print into them:
``python tests/notebook_cells.py docs/notebooks/*.ipynb``.
"""

from __future__ import annotations

import ast
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cells(sources: list[str], name: str) -> Iterator[list[dict[str, Any]]]:
    """The outputs of each cell: what it prints, and the value of its last expression."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for source in sources:
        parsed = ast.parse(source)
        last = parsed.body.pop() if parsed.body and isinstance(parsed.body[-1], ast.Expr) else None
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile(parsed, name, "exec"), names)
            value = eval(compile(ast.Expression(last.value), name, "eval"), names) if last else None
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
        if value is not None:
            data = {"text/plain": _lines(repr(value))}
            outputs.append(
                {"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"}
            )
        yield outputs


def _lines(text: str) -> list[str]:
    return text.rstrip("\n").splitlines(keepends=True)


def main() -> None:
    import logging

    logging.getLogger("gradistill").setLevel("WARNING")
    before = Path.cwd()
    for notebook in map(Path, sys.argv[1:]):
        whole = json.loads(notebook.read_text(encoding="utf-8"))
        code = [cell for cell in whole["cells"] if cell["cell_type"] == "code"]
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for cell, outputs in zip(
                code, run_cells(["".join(c["source"]) for c in code], notebook.name), strict=True
            ):
                cell["outputs"] = outputs
                print(notebook.name, outputs)
            os.chdir(before)
        notebook.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
