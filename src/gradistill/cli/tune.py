"""``gradistill tune``: search a recipe's own fields for a task."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import (
    Changes,
    Data,
    Epochs,
    KindOfLabels,
    LabelColumn,
    LabelMap,
    LayerMap,
    Method,
    Positive,
    RecipeFile,
    Rows,
    Seed,
    Settings,
    Signals,
    Student,
    StudentLayers,
    TaskName,
    Teacher,
    TextColumns,
    ValidationSeed,
    ValidationShare,
    data_choice,
    distilling_recipe,
    output_option,
    say,
)
from gradistill.printing import show

Output = Annotated[Path, output_option("Where tune.db, best.yaml, tune.json and the best student go.")]
Search = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        help="A field and its values: objectives.soft_label.temperature=1..10, …=0.1..100:log, …=text,token; may be "
        "repeated. Default: the learning rate, and the weight of every objective with a teacher.",
    ),
]
Maximize = Annotated[
    str,
    typer.Option(
        "--maximize", help="metric, label_loyalty, probability_loyalty, saliency_loyalty, or a mean: a+b."
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", min=0.01, help="Start no trial after so many minutes (default: 60)."),
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="At most so many trials in this call.")]


def tune(
    teacher: Teacher,
    data: Data,
    output: Output,
    method: Method = None,
    task: TaskName = None,
    student: Student = None,
    student_layers: StudentLayers = None,
    layer_map: LayerMap = None,
    recipe: RecipeFile = None,
    change: Changes = None,
    search: Search = None,
    maximize: Maximize = "metric+saliency_loyalty",
    minutes: Minutes = None,
    trials: Trials = None,
    epochs: Epochs = None,
    seed: Seed = None,
    max_train_rows: Rows = None,
    settings: Settings = "authors",
    label_column: LabelColumn = None,
    text_columns: TextColumns = None,
    kind: KindOfLabels = None,
    validation_share: ValidationShare = None,
    validation_seed: ValidationSeed = 0,
    positive: Positive = None,
    label_map: LabelMap = None,
    signals: Signals = "auto",
) -> None:
    """Search a recipe's own fields for a task, on validation only; the same command searches on."""
    from gradistill.jobs.searching import searched
    from gradistill.jobs.signals import StoreChoice
    from gradistill.jobs.tuning import Tuning
    from gradistill.jobs.tuning import tune as tuned

    def resolve(changes: Any) -> Any:
        return distilling_recipe(
            method, task, recipe, [*(change or []), *changes], settings, student=student, layers=student_layers,
            layer_map=layer_map, epochs=epochs, seed=seed, max_train_rows=max_train_rows,
        )  # fmt: skip

    bounds = 60.0 if minutes is None and trials is None else minutes
    aim = tuple(name.strip() for name in maximize.split("+"))
    tuning = Tuning(resolve, tuple(map(searched, search or ())), aim, bounds, trials)
    choice = data_choice(
        data, task, label_column=label_column, text_columns=text_columns, kind=kind,
        validation_share=validation_share, validation_seed=validation_seed, positive=positive, label_map=label_map,
    )  # fmt: skip
    found = tuned(teacher, choice, output, tuning, signals=StoreChoice(signals), say=say)
    _report(found, output, next_command(teacher, choice, output))


def next_command(teacher: str, choice: Any, output: Path) -> str:
    """The command that trains the best student once more, for a shell."""
    from gradistill.jobs.tuning import BEST

    named = ["--teacher", teacher, *choice.options(), "--recipe", str(output / BEST)]
    return shlex.join(["gradistill", "distill", *named, "--output", str(output / "student")])


def _report(found: dict[str, Any], output: Path, command: str) -> None:
    from gradistill.jobs.tuning import BEST
    from gradistill.report.terminal import results_table

    if not found["trials"]:
        return say("no trial has ended yet; the same command goes on")
    rows = [trial_row(trial) for trial in found["trials"]]
    show(results_table(rows[:10], title=f"{len(rows)} trials, {found['pruned']} stopped early"))
    return say(f"the best recipe is {output / BEST}. To distil with it:\n{command}")


def trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table. Fields keep the name of their objective: several have a ``weight``."""
    figures = {name.removesuffix("_loyalty"): value for name, value in trial.items() if name != "values"}
    rooms = ("objectives.", "training.")
    fields = {
        next((name.removeprefix(room) for room in rooms if name.startswith(room)), name): _shown(value)
        for name, value in trial["values"].items()
    }
    return figures | fields


def _shown(value: Any) -> str:
    """A learning rate would be lost in three decimals."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
