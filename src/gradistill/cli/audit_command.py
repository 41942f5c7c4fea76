"""``gradistill audit``: figures, a page, an exit code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradistill.cli.options import (
    LoadingOptions,
    Overwrite,
    PrintOptions,
    TeacherData,
    TeacherTemplate,
    one_of,
    output_option,
    prompt_of,
    resolved,
    teachers_of,
)

if TYPE_CHECKING:  # imported only when the command runs
    from gradistill.commands.audit import AuditChoice


NAMED = "folder (PyTorch or ONNX), hub id, or python:module:function"
"""The forms in which a model of an audit is given."""


@dataclass(frozen=True, kw_only=True)
class AuditedTeacher:
    """The teacher, and the prompt around its texts."""

    teacher: Annotated[
        list[str],
        typer.Option(
            "--teacher", help=f"The teacher that students are compared with: {NAMED}. Several are averaged."
        ),
    ]
    teacher_template: TeacherTemplate = None

    def choice(self) -> Any:
        """The teacher. Raises RecipeError for a prompt with a teacher that cannot get one."""
        return reference_of(self.teacher, self.teacher_template)


@dataclass(frozen=True, kw_only=True)
class AuditFolder:
    """Where an audit is written and sent."""

    output: Annotated[Path, output_option("The folder for audit.html, audit.json and audit.md.")]
    overwrite: Overwrite = False
    report_to: Annotated[
        list[str] | None,
        typer.Option(
            "--report-to",
            help="Also send figures and page to tensorboard, trackio, wandb or mlflow; may be repeated.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AuditOptions(LoadingOptions):
    """The settings of an audit. Fields that ``AuditChoice`` also has are passed on under the same name."""

    split: Annotated[
        str, typer.Option("--split", help="The split to audit: one that no model was fitted to.")
    ] = "validation"
    attribution: Annotated[
        str,
        typer.Option(
            "--attribution",
            help="gradient_x_input, integrated_gradients, gradient_norm, smoothgrad, occlusion or shapley, for both.",
        ),
    ] = "gradient_x_input"
    steps: Annotated[
        str | None, typer.Option("--steps", help="Steps of Integrated Gradients: a number (50), or auto.")
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="Where paths of Integrated Gradients start: mask, padding, tokens (of the data) or zero.",
        ),
    ] = None
    max_rows: Annotated[
        int | None, typer.Option("--max-rows", min=1, help="Audit at most this many rows, drawn by the seed.")
    ] = None
    rationale: Annotated[
        str | None, typer.Option("--rationale", help="A column of \\[start, end] spans that people marked.")
    ] = None
    rationale_units: Annotated[
        str, typer.Option("--rationale-units", help="What the spans count: characters or words.")
    ] = "characters"
    challenge: Annotated[
        str | None, typer.Option("--challenge", help="A further split on which agreement is measured.")
    ] = None
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch", help="Words or phrases whose share of the attribution is measured: monday,new york"
        ),
    ] = None
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice", help="A column: figures are also measured for each of its values; may be repeated."
        ),
    ] = None
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why the model changes, for the report: a sentence or two.")
    ] = None
    fail_under: Annotated[
        str | None,
        typer.Option(
            "--fail-under",
            help="Exit with code 1 if a figure is below its limit: label_loyalty=0.95,cosine=0.8. The verdict does "
            "not change the code.",
        ),
    ] = None
    faithfulness_rows: Annotated[
        int,
        typer.Option(
            "--faithfulness-rows", min=0, help="Rows for faithfulness (at most 170 passes a row and model)."
        ),
    ] = 15
    beam: Annotated[
        int,
        typer.Option(
            "--beam",
            min=1,
            help="Beam width of the search for the limits of faithfulness; a wider one is more exact.",
        ),
    ] = 2
    map_checks: Annotated[
        bool,
        typer.Option(
            "--map-checks", help="Also measure infidelity and max-sensitivity, on the rows for faithfulness."
        ),
    ] = False
    perturbed_rows: Annotated[
        int, typer.Option("--perturbed-rows", min=0, help="Rows for each perturbation.")
    ] = 100
    response_rows: Annotated[
        int,
        typer.Option(
            "--response-rows",
            min=0,
            help="Rows for response loyalty and flips (about 40 passes a model, and 3 a word).",
        ),
    ] = 60
    shapley_rows: Annotated[
        int,
        typer.Option("--shapley-rows", min=0, help="Rows for Shapley values (4 passes a word and model)."),
    ] = 30
    shapley_pairs: Annotated[
        int,
        typer.Option("--shapley-pairs", min=1, help="Pairs of permutations for Shapley values."),
    ] = 2
    expected_gradients_rows: Annotated[
        int,
        typer.Option(
            "--expected-gradients-rows",
            min=0,
            help="Rows for expected gradients (24 passes with gradients a model, 3 times as many a student).",
        ),
    ] = 30
    floor_rows: Annotated[
        int, typer.Option("--floor-rows", min=0, help="Rows for the floors of the other figures.")
    ] = 200
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help=f"A second teacher, trained with another seed, to compare students with: {NAMED}.",
        ),
    ] = None
    costs: Annotated[
        bool, typer.Option("--costs", help="Also time all models on the CPU: latency, throughput, size.")
    ] = False
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade", help="Also randomise the students' blocks from the top, one after the other."
        ),
    ] = False
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Examples in the page; all are in examples.jsonl.")
    ] = 400
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=3, help="Most tokens of a text (default: as the teacher was trained)."
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            max=2**32 - 1,
            help="Random seed of rows, perturbations, sampled attributions and bootstrap.",
        ),
    ] = 0

    def choice(self) -> AuditChoice:
        """The settings for ``commands.audit``. Raises RecipeError for invalid values."""
        from gradistill.auditing.methods import draws_by_seed, method
        from gradistill.commands.audit import AuditChoice

        one_of("--rationale-units", self.rationale_units, ("characters", "words"))
        options: dict[str, Any] = {} if self.steps is None else {"steps": steps_of(self.steps)}
        if self.baseline is not None:
            options["baseline"] = self.baseline
        if draws_by_seed(self.attribution):
            options["seed"] = self.seed
        given = asdict(self)
        not_passed_on = (
            "attribution", "steps", "baseline", "watch", "fail_under", "slices", "teacher_dtype", "device_map",
        )  # fmt: skip
        for name in not_passed_on:
            del given[name]
        given["reference"] = None if self.reference is None else resolved(self.reference)
        return AuditChoice(
            method=method(self.attribution, **options), limits=parse_fail_under(self.fail_under),
            watched=words_of(self.watch), slices=tuple(dict.fromkeys(self.slices or ())),
            loading=self.loading(), **given,
        )  # fmt: skip


def audit(
    teacher: AuditedTeacher,
    student: Annotated[
        list[str], typer.Option("--student", help=f"The classifier to audit: {NAMED}; may be repeated.")
    ],
    data: TeacherData,
    options: AuditOptions,
    folder: AuditFolder,
    log: PrintOptions,
) -> None:
    """Show whether students decide as their teacher does, and for the same reasons."""
    log.set_up()
    from gradistill.commands.audit import audit as audited
    from gradistill.report.run_summary import audit_view
    from gradistill.report.trackers import check_trackers

    trackers = list(dict.fromkeys(folder.report_to or ()))
    check_trackers(trackers)
    choice = options.choice()
    models = [resolved(name) for name in student]
    figures = audited(
        teacher.choice(), models, data.choice(), folder.output, choice, overwrite=folder.overwrite
    )
    figures.send_to(*trackers)
    sent = f"; sent to {', '.join(trackers)}" if trackers else ""
    log.report(
        audit_view(figures), f"written to {folder.output}: open {figures.page} in a browser{sent}", figures
    )


def reference_of(names: list[str], template: str | None) -> Any:
    """The model or the models that others are compared with, with their prompt. Raises RecipeError for a prompt with a
    model that cannot get one."""
    from gradistill.commands.teacher_prompt import prompted

    return prompted(teachers_of(names), prompt_of(template))


def steps_of(given: str) -> int | str:
    from gradistill.errors import RecipeError

    if given != "auto" and not (given.isascii() and given.isdigit() and int(given) > 0):
        raise RecipeError(
            f"--steps {given!r}", expected="a number of 1 or more, or auto", remedy="write --steps 50"
        )
    return given if given == "auto" else int(given)


def words_of(given: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (given or "").split(",") if word.strip())


def parse_fail_under(given: str | None) -> dict[str, float]:
    """Parse ``figure=number`` pairs with commas between. Raises RecipeError for anything else."""
    from gradistill.errors import RecipeError

    limits: dict[str, float] = {}
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
                remedy="write --fail-under label_loyalty=0.95",
            )
        limits[name] = number
    return limits
