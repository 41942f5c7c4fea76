"""What an audit costs: seconds by part and peak memory, for more and more rows.

    python benchmarks/audit_cost.py TEACHER STUDENT DATA --task TASK [--split validation] [--rows 1000 10000]

Each audit is a process of its own, with gradient × input and the default numbers of rows for faithfulness and
perturbations. Rows are drawn by the seed; a split that has fewer is taken whole.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from measuring import markdown, publish


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("teacher", "student", "data"):
        parser.add_argument(name)
    parser.add_argument("--task", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000])
    given = parser.parse_args()
    found = [audited(given, rows) for rows in sorted(given.rows)]
    rows = " ".join(map(str, given.rows))
    options = f"--task {given.task} --split {given.split} --rows {rows}"
    command = f"python benchmarks/audit_cost.py TEACHER STUDENT DATA {options}"
    publish("audit_cost", markdown(found), found, command=command)


def audited(given: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Peak memory is that of the largest process so far: ask for few rows first."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                "gradistill", "audit", "--teacher", given.teacher, "--student", given.student, "--data", given.data,
                "--task", given.task, "--split", given.split, "--max-rows", str(rows), "--output", folder,
            ],
            check=True,
        )  # fmt: skip
        found = json.loads((Path(folder) / "audit.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    layers = f"{found['teacher']['layers']} and {found['students'][0]['layers']}"
    seconds = {f"{part}, s": f"{taken:.1f}" for part, taken in found["seconds"].items()}
    return {"rows": found["data"]["rows"], "layers": layers, **seconds, "peak MB": round(peak)}


if __name__ == "__main__":
    main()
