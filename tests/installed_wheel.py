"""Whether the installed package has every file of the source, and its commands start.

python tests/installed_wheel.py SOURCE        (by ``make wheel``, in the environment of the wheel)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gradistill

SOURCE, INSTALLED = Path(sys.argv[1]).resolve(), Path(gradistill.__file__).resolve().parent


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


if INSTALLED == SOURCE:
    sys.exit(f"{SOURCE} is the source itself, and no wheel")
if missing := sorted(files(SOURCE) ^ files(INSTALLED)):
    sys.exit(f"source and wheel differ in {', '.join(missing)}")
for command in (["methods", "adkd"], ["tasks"], ["distill", "--help"]):
    subprocess.run(
        [str(Path(sys.executable).parent / "gradistill"), *command], check=True, capture_output=True
    )
