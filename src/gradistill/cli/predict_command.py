"""``gradistill predict``: a file of rows, and the same rows with predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import LogOptions, Overwrite, TextColumns, listed, output_option, prompt_of
from gradistill.printing import close_stdout, progress_shown, write

_PIPE_CLOSED = 141
"""The exit code of a program that SIGPIPE ends."""


@dataclass(frozen=True, kw_only=True)
class PredictedRows:
    """Which rows are read, and where they are written."""

    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FILE",
            help="A file of rows (.csv, .tsv, .jsonl, .parquet, .txt), or - for stdin, one text a line.",
        ),
    ]
    output: Annotated[
        Path,
        output_option(
            "A .csv, .tsv, .jsonl or .parquet file, or - for JSON lines on stdout.", metavar="FILE"
        ),
    ]
    text_columns: TextColumns = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="A prompt around each row for the model, text columns in braces: 'Review: {text}\\nIs it good?'",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=3, help="Most tokens of a text (default: as the model was trained)."
        ),
    ] = None
    overwrite: Overwrite = False


def predict(
    model: Annotated[
        str, typer.Option("--model", help="A fine-tuned classifier: folder (PyTorch or ONNX) or hub id.")
    ],
    rows: PredictedRows,
    log: LogOptions,
) -> None:
    """Predict every row of a file; the same command resumes after a stop."""
    log.set_up()
    from gradistill.commands.predict import PIPE
    from gradistill.commands.predict import predict as predicted
    from gradistill.commands.teacher_prompt import prompted

    read: Any = prompted(model, prompt_of(rows.template))
    piped = str(rows.output) == PIPE
    try:
        counts = predicted(
            read, rows.data, rows.output,
            text_columns=listed(rows.text_columns), max_length=rows.max_length, overwrite=rows.overwrite,
        )  # fmt: skip
    except BrokenPipeError:  # the reader of stdout has closed it, as head does
        close_stdout()
        raise typer.Exit(_PIPE_CLOSED) from None
    if progress_shown() or not piped:
        write(_throughput(counts), error=piped)
    if not piped:
        write(f"written to {rows.output}")


def _throughput(found: dict[str, Any]) -> str:
    seconds, computed, rows = found["seconds"], found["computed"], found["rows"]
    rate = f"{computed:,} rows in {seconds:.1f} s, {computed / max(seconds, 1e-9):,.0f} rows/s"
    if incomplete := found.get("incomplete", 0):
        rate += f"; {incomplete:,} of {rows:,} have nothing to read"
    before = rows - computed - incomplete
    return f"{rate}; {before:,} of {rows:,} rows were predicted before" if before else rate
