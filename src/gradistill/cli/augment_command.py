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
        "--teacher", help="The model whose embeddings define near words (default: no word is replaced)."
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
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed of all draws.")] = 0
    overwrite: Overwrite = False


def augment(data: CopiedData, copies: CopyOptions, log: LogOptions, teacher: NearTeacher = None) -> None:
    """Write changed copies of training rows, without labels, for distill --unlabelled."""
    log.set_up()
    from gradistill.commands.augment import ROWS
    from gradistill.commands.augment import augment as augmented

    report = augmented(
        data.choice(), copies.output,
        teacher=teacher, times=copies.times, seed=copies.seed, overwrite=copies.overwrite,
    )  # fmt: skip
    write_result(f"{report['rows']:,} rows without labels written to {copies.output / ROWS}")
