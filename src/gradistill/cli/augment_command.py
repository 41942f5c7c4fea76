"""``gradistill augment``: changed copies of training rows, for a teacher to answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gradistill.cli.options import DATA, LogOptions, Overwrite, TableOptions, output_option, write_result

NearTeacher = Annotated[
    str | None,
    typer.Option(
        "--teacher", help="Whose token embedding decides which words are near; else none is replaced."
    ),
]


@dataclass(frozen=True, kw_only=True)
class CopiedData(TableOptions):
    """The rows that are copied."""

    data: Annotated[str, DATA]


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """How many copies, and where they are written."""

    output: Annotated[Path, output_option("A folder for unlabelled.jsonl and augment.json.")]
    times: Annotated[int, typer.Option("--times", min=1, help="Copies of each row.")] = 10
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of all draws.")] = 0
    overwrite: Overwrite = False


def augment(data: CopiedData, copies: CopyOptions, log: LogOptions, teacher: NearTeacher = None) -> None:
    """Write changed copies of training rows, without labels: distill --unlabelled learns from them."""
    log.set_up()
    from gradistill.commands.augment import ROWS
    from gradistill.commands.augment import augment as augmented

    found = augmented(
        data.choice(), copies.output,
        teacher=teacher, times=copies.times, seed=copies.seed, overwrite=copies.overwrite,
    )  # fmt: skip
    write_result(f"{found['rows']:,} rows without labels written to {copies.output / ROWS}")
