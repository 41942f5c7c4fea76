"""``gradistill bench``: tasks × methods × seeds × depths, resumed and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import LogOptions, one_of, output_option, write_result
from gradistill.printing import show


@dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """Where teachers and students are trained."""

    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            help="Students trained at once (default: by cores; 1 with an accelerator; 100 under Slurm).",
        ),
    ] = None
    launcher: Annotated[
        str, typer.Option("--launcher", help="local: this machine. slurm: jobs of a cluster (extra slurm).")
    ] = "local"
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="NAME=VALUE",
            help="An option of sbatch, such as partition=gpu; may be repeated.",
        ),
    ] = None

    def cluster(self, folder: Path) -> Any:
        """The cluster, with its files in ``folder``; None for this machine. Raises RecipeError for invalid options."""
        from gradistill.errors import RecipeError

        one_of("--launcher", self.launcher, ("local", "slurm"))
        options = dict(pair.split("=", 1) for pair in self.slurm or () if "=" in pair)
        if len(options) < len(self.slurm or ()):
            raise RecipeError(
                f"--slurm {' '.join(self.slurm or ())}",
                expected="NAME=VALUE, each name once",
                remedy="write --slurm partition=gpu --slurm time=120",
            )
        if self.launcher == "local":
            if options:
                raise RecipeError(
                    "--slurm was given, and the launcher is local",
                    expected="--launcher slurm with it",
                    remedy="add --launcher slurm, or leave --slurm out",
                )
            return None
        from gradistill.bench.cluster import Cluster

        return Cluster.slurm(folder, options, self.jobs)


def bench(
    log: LogOptions,
    launching: LauncherOptions,
    file: Annotated[
        Path | None, typer.Argument(help="A bench in YAML: tasks, methods, seeds, layers.")
    ] = None,
    output: Annotated[
        Path, output_option("The folder for runs, results.jsonl, bench.md, bench.html.")
    ] = Path("runs/bench"),
    suite: Annotated[
        str | None, typer.Option("--suite", help="A shipped bench instead of a file: glue.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="A folder with a folder for each task.")] = None,
) -> None:
    """Compare methods on tasks over seeds; the same command resumes after a stop."""
    log.set_up()
    from gradistill.bench.runner import JOBS, PAGE
    from gradistill.bench.runner import bench as benched
    from gradistill.report.bench_page import bench_rows
    from gradistill.report.terminal import results_table

    cluster = launching.cluster(output / JOBS)
    results = benched(_plan(file, suite, data), output, at_once=launching.jobs, cluster=cluster)
    if rows := bench_rows(results):
        show(results_table(rows, title=results["title"] or "bench"))
    write_result(f"written to {output}: open {output / PAGE} in a browser")
    if results["failed"]:
        write_result(f"{len(results['failed'])} students failed; the same command tries them again")
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
