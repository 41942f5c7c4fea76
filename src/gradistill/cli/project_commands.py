"""``gradistill init`` and ``gradistill run``: from a data file to a student."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import LogOptions, Positive, PrintOptions, TableOptions
from gradistill.commands.defaults import PROJECT_FILE
from gradistill.printing import write


@dataclass(frozen=True, kw_only=True)
class InitData(TableOptions):
    """The rows to read. Options that are given are kept, the others are proposed."""

    data: Annotated[
        str,
        typer.Argument(
            help="A file (.csv, .tsv, .json, .jsonl, .parquet), a folder with one file a split, or a hub id."
        ),
    ]
    positive: Positive = None


def init(
    data: InitData,
    log: LogOptions,
    output: Annotated[Path, typer.Option("--output", help="The file to write.")] = Path(PROJECT_FILE),
    model: Annotated[
        str | None, typer.Option("--model", help="The model that becomes the teacher (default: minilm-l6).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Read your file and propose columns, teacher, student and settings in gradistill.yaml."""
    log.set_up()
    from gradistill.commands.init import drafted

    file, proposal = drafted(data.choice(), output, model=model, force=force)
    write(file.read_text(encoding="utf-8").rstrip("\n"), fold=False)
    name = "" if str(file) == PROJECT_FILE else f" {shlex.quote(str(file))}"
    doubts = f" Not certain: {', '.join(proposal.doubts)}." if proposal.doubts else ""
    write(f"\nwritten to {file}.{doubts} Read it, change what does not fit, then: gradistill run{name}")


def run(
    log: PrintOptions,
    project: Annotated[Path, typer.Argument(help="The file that gradistill init wrote.")] = Path(
        PROJECT_FILE
    ),
) -> None:
    """Run the stages of gradistill.yaml: fine-tune, distil, audit, export, one page. Resumes after a stop."""
    log.set_up()
    from gradistill.commands.run import run as carried_through
    from gradistill.errors import RecipeError
    from gradistill.report.run_summary import project_view

    if not project.exists() and str(project) == PROJECT_FILE:
        raise RecipeError(
            f"there is no {PROJECT_FILE} here",
            expected="the file that gradistill init writes",
            remedy="gradistill init my_rows.csv, or name another file",
        )
    result = carried_through(project)
    log.report(project_view(result), f"written to {result['page']}: open it in a browser", _short(result))


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """The part of the result that ``--json`` prints: the figures that a pipeline checks."""
    audit, student = found["audit"] or {}, found["student"]
    return {
        "page": found["page"],
        "stages": found["stages"],
        "eval": student["eval"],
        "teacher_eval": student["teacher_eval"],
        "loyalty": student["loyalty"],
        "verdict": (audit.get("assessment") or {}).get("outcome"),
        "failed": found["failed"],
    }
