"""``gradistill bench``: tasks × methods × seeds × depths, resumed and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import LogOptions, output_option, write_result
from gradistill.printing import show


def bench(
    log: LogOptions,
    file: Annotated[
        Path | None, typer.Argument(help="A bench in YAML: tasks, methods, seeds, layers.")
    ] = None,
    output: Annotated[Path, output_option("Where runs, results.jsonl, bench.md and bench.html go.")] = Path(
        "runs/bench"
    ),
    suite: Annotated[
        str | None, typer.Option("--suite", help="A shipped bench instead of a file: glue.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="A folder with a folder for each task.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Students at once (default: by cores; 1 with an accelerator)."),
    ] = None,
) -> None:
    """Compare methods on tasks over seeds; the same command goes on with what is not done."""
    log.set_up()
    from gradistill.bench.runner import PAGE
    from gradistill.bench.runner import bench as benched
    from gradistill.report.bench_page import bench_rows
    from gradistill.report.terminal import results_table

    found = benched(_plan(file, suite, data), output, at_once=jobs)
    if rows := bench_rows(found):
        show(results_table(rows, title=found["title"] or "bench"))
    write_result(f"written to {output}: open {output / PAGE} in a browser")
    if found["failed"]:
        write_result(f"{len(found['failed'])} students failed; the same command tries them again")
        raise typer.Exit(1)


def _plan(file: Path | None, suite: str | None, data: str | None) -> Any:
    from gradistill.bench.plan import read_plan
    from gradistill.bench.plan import suite as shipped
    from gradistill.errors import RecipeError

    if (file is None) == (suite is None):
        raise RecipeError(
            "A bench file and a suite are given." if file else "Neither a bench file nor a suite is given.",
            expected="one of them",
            remedy="write gradistill bench BENCH.yaml, or gradistill bench --suite glue",
        )
    return read_plan(shipped(str(suite)) if file is None else file, data)
