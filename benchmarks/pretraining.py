"""What a pre-trained student gains: distilled from a checkpoint of ``gradistill pretrain``, against without.

    python benchmarks/pretraining.py TEACHER DATA OUTPUT --task TASK --texts FOLDER [FOLDER …] [--rows 2000]

Two kinds of student of 3 layers: ``same``, as wide as the teacher, which starts from its layers or from the
checkpoint; and ``narrow``, half as wide, which starts from random weights or from the checkpoint. The checkpoints are
pre-trained once, from the packaged model, on ``--pretraining-texts`` of the texts. KD and AD-KD, three seeds, two at a
time on one core each; finished runs in OUTPUT are left alone. Below each pre-trained student: the mean difference from
the one without, paired by seed, with a 95 % t interval.
"""

from __future__ import annotations

import argparse
import subprocess
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from distilling import arguments, distilled, figures, precision, rows_over_seeds, shortened, two_at_a_time
from measuring import markdown, publish

from gradistill.bench.plan import KEEP_LAST
from gradistill.models.packaged import PACKAGED

SEEDS = (0, 1, 2)
METHODS = ("kd", "adkd")
WIDTHS = {"same": (), "narrow": ("student.width=192",)}
LEARNING = {"same": (), "narrow": ("training.learning_rate=1e-3",)}
"""From the teacher's layers at the recipe's own rate; from random weights at ten times that."""
ALIKE = ("training.learning_rate=1e-4", "training.batch_size=16", *KEEP_LAST)


def main() -> None:
    parser = arguments(__doc__, rows=2000, bf16=True)
    parser.add_argument("--texts", nargs="+", required=True)
    parser.add_argument("--pretraining-texts", type=int, default=20000)
    parser.add_argument("--pretraining-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--validation-rows", type=int, default=500)
    parser.add_argument("--kinds", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    given = parser.parse_args()
    given.data = shortened(
        Path(given.data), given.output / "data" / given.task, validation=given.validation_rows
    )
    checkpoints = {kind: pretrained(given, kind) for kind in given.kinds}
    cells = list(product(given.kinds, METHODS, (False, True), SEEDS))
    found = two_at_a_time(partial(run, given, checkpoints), cells)
    rows: list[dict[str, str]] = []
    for kind, method in product(given.kinds, METHODS):
        without, with_it = (
            [found[kind, method, given_one, seed] for seed in SEEDS] for given_one in (False, True)
        )
        name = f"{method}, {kind}"
        rows += rows_over_seeds(name, without, without, name)
        rows += rows_over_seeds(f"{name}, pre-trained", with_it, without, name)
    every = {", ".join(map(str, cell)): values for cell, values in found.items()}
    command = (
        f"python benchmarks/pretraining.py TEACHER DATA OUTPUT --task {given.task} --texts … --rows {given.rows} "
        f"--epochs {given.epochs} --pretraining-texts {given.pretraining_texts} "
        f"--pretraining-epochs {given.pretraining_epochs} --validation-rows {given.validation_rows} "
        f"--kinds {' '.join(given.kinds)}{' --bf16' if given.bf16 else ''}"
    )
    title = f"{given.task}, {given.rows} rows, {given.epochs} epochs, {len(SEEDS)} seeds"
    publish(f"pretraining_{given.task}", f"{title}\n\n{markdown(rows)}", every, command=command)


def pretrained(given: argparse.Namespace, kind: str) -> Path:
    """The checkpoint of a kind of student, made once for all tasks."""
    folder = given.output / f"pretrained-{kind}"
    if not (folder / "metrics.json").is_file():
        changes = ("training.arguments.save_strategy=no", *LEARNING[kind], *WIDTHS[kind], *precision(given))
        relations = ("objectives.self_attention_relations.heads=6",) if kind == "narrow" else ()
        command = [
            "gradistill", "pretrain", "--teacher", PACKAGED, "--output", str(folder), "--student-layers", "3",
            "--max-train-rows", str(given.pretraining_texts), "--epochs", str(given.pretraining_epochs),
            *(part for text in given.texts for part in ("--texts", text)),
            *(part for change in (*changes, *relations) for part in ("--set", change)),
        ]  # fmt: skip
        subprocess.run(command, check=True)
    return folder


def run(
    given: argparse.Namespace, checkpoints: dict[str, Path], kind: str, method: str, from_it: bool, seed: int
) -> dict[str, Any]:
    folder = given.output / given.task / f"{method}-{kind}-{'pretrained' if from_it else 'plain'}-{seed}"
    options = ("--method", method, "--epochs", str(given.epochs), "--seed", str(seed))
    start = (f"student.checkpoint={checkpoints[kind].resolve()}",) if from_it else WIDTHS[kind]
    layers = None if from_it else 3
    changes = (*ALIKE, *start, *precision(given))
    return figures(distilled(given, folder, options, changes, layers=layers))


if __name__ == "__main__":
    main()
