"""``gradistill audit``: figures, a page, an exit code."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import (
    Data,
    KindOfLabels,
    LabelColumn,
    LabelMap,
    Overwrite,
    Positive,
    TaskName,
    Teacher,
    TextColumns,
    ValidationSeed,
    ValidationShare,
    data_choice,
    one_of,
    output_option,
    say,
)
from gradistill.printing import show, write

Students = Annotated[
    list[str], typer.Option("--student", help="The classifier to audit: folder or hub id; may be repeated.")
]
Output = Annotated[Path, output_option("Where audit.html, audit.json and audit.md go.")]
Split = Annotated[str, typer.Option("--split", help="The split to look at: one that neither was fitted to.")]
Attribution = Annotated[
    str,
    typer.Option(
        "--attribution",
        help="gradient_x_input, integrated_gradients, gradient_norm, smoothgrad or occlusion, for both models.",
    ),
]
Steps = Annotated[
    str | None, typer.Option("--steps", help="Of Integrated Gradients: a number (50), or auto.")
]
MaxRows = Annotated[
    int | None, typer.Option("--max-rows", min=1, help="Look at so many rows, drawn by the seed.")
]
Rationale = Annotated[
    str | None, typer.Option("--rationale", help="A column of [start, end] spans that people marked.")
]
Units = Annotated[str, typer.Option("--rationale-units", help="What the spans count: characters or words.")]
Challenge = Annotated[
    str | None, typer.Option("--challenge", help="A split to measure the agreement on as well.")
]
Watch = Annotated[
    str | None,
    typer.Option("--watch", help="Words whose share of the attribution is measured: monday,tuesday"),
]
FailUnder = Annotated[
    str | None, typer.Option("--fail-under", help="Exit 1 below any of these: label_loyalty=0.95,cosine=0.8")
]
Faithful = Annotated[
    int, typer.Option("--faithfulness-rows", min=0, help="Rows for faithfulness (2 T + 30 passes each).")
]
Perturbed = Annotated[int, typer.Option("--perturbed-rows", min=0, help="Rows for each perturbation.")]
Examples = Annotated[
    int, typer.Option("--examples", min=0, help="Examples in the page; all are in examples.jsonl.")
]
Length = Annotated[
    int | None,
    typer.Option(
        "--max-length", min=3, help="Tokens of a text at most (default: as the teacher was trained)."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=2**32 - 1, help="Of drawn rows, perturbations, SmoothGrad and bootstrap."
    ),
]


def audit(
    teacher: Teacher,
    student: Students,
    data: Data,
    output: Output,
    task: TaskName = None,
    split: Split = "validation",
    attribution: Attribution = "gradient_x_input",
    steps: Steps = None,
    max_rows: MaxRows = None,
    rationale: Rationale = None,
    rationale_units: Units = "characters",
    challenge: Challenge = None,
    watch: Watch = None,
    fail_under: FailUnder = None,
    faithfulness_rows: Faithful = 50,
    perturbed_rows: Perturbed = 200,
    examples: Examples = 400,
    max_length: Length = None,
    seed: Seed = 0,
    label_column: LabelColumn = None,
    text_columns: TextColumns = None,
    kind: KindOfLabels = None,
    validation_share: ValidationShare = None,
    validation_seed: ValidationSeed = 0,
    positive: Positive = None,
    label_map: LabelMap = None,
    overwrite: Overwrite = False,
) -> None:
    """Show whether students decide as their teacher does, and for the same reasons."""
    from gradistill.jobs.audit import audit as audited

    choice = _choice(
        attribution, steps, fail_under, watch, split=split, max_rows=max_rows, max_length=max_length,
        rationale=rationale, rationale_units=rationale_units, challenge=challenge, perturbed_rows=perturbed_rows,
        faithfulness_rows=faithfulness_rows, examples=examples, seed=seed,
    )  # fmt: skip
    source = data_choice(
        data, task, label_column=label_column, text_columns=text_columns, kind=kind,
        validation_share=validation_share, validation_seed=validation_seed, positive=positive, label_map=label_map,
    )  # fmt: skip
    _tell(audited(teacher, student, source, output, choice, overwrite=overwrite, say=say), output)


def _choice(
    attribution: str, steps: str | None, fail_under: str | None, watch: str | None, **plain: Any
) -> Any:
    from gradistill.audit.methods import method
    from gradistill.audit.methods.smoothgrad import SmoothGrad
    from gradistill.jobs.audit import AuditChoice

    one_of("--rationale-units", plain["rationale_units"], ("characters", "words"))
    options: dict[str, Any] = {} if steps is None else {"steps": steps_of(steps)}
    if attribution == SmoothGrad.name:
        options["seed"] = plain["seed"]
    return AuditChoice(
        method=method(attribution, **options), limits=limits_of(fail_under), watched=words_of(watch), **plain
    )


def _tell(found: dict[str, Any], output: Path) -> None:
    """The table; exit code 1 where a figure is below its limit."""
    from gradistill.report.summary import audit_view

    show(audit_view(found))
    write(f"written to {output}: open {output / 'audit.html'} in a browser")
    if found["failed"]:
        raise typer.Exit(1)


def steps_of(given: str) -> int | str:
    from gradistill.errors import RecipeError

    if given != "auto" and not (given.isascii() and given.isdigit() and int(given) > 0):
        raise RecipeError(
            f"--steps {given!r}", expected="a number of 1 or more, or auto", remedy="say --steps 50"
        )
    return given if given == "auto" else int(given)


def words_of(given: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (given or "").split(",") if word.strip())


def limits_of(given: str | None) -> dict[str, float]:
    """``figure=number`` pairs with commas between. Raises RecipeError for anything else."""
    from gradistill.errors import RecipeError

    found: dict[str, float] = {}
    for pair in words_of(given):
        name, _, value = (part.strip() for part in pair.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not name or not isfinite(number):
            raise RecipeError(
                f"--fail-under {pair!r}",
                expected="figure=number, the number finite",
                remedy="say --fail-under label_loyalty=0.95",
            )
        found[name] = number
    return found
