"""``gradistill tune``: search values of a recipe's fields for a task."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradistill.cli.options import (
    DistillationRecipe,
    LogOptions,
    Signals,
    Teacher,
    TeacherData,
    output_option,
    write_result,
)
from gradistill.commands.defaults import OUTPUTS_METHOD
from gradistill.printing import show

if TYPE_CHECKING:  # imported only when the command runs
    from gradistill.commands.tune import Tuning
    from gradistill.recipe import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, and for how long."""

    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            help="A field and its values: objectives.soft_label.temperature=1..10, …=0.1..100:log, …=text,token; may "
            "be repeated. Default: the learning rate, and the weight of every objective with a teacher.",
        ),
    ] = None
    maximize: Annotated[
        str,
        typer.Option(
            "--maximize",
            help="metric, label_loyalty, probability_loyalty, response_loyalty, saliency_loyalty, or a mean: a+b.",
        ),
    ] = "metric+response_loyalty"
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.01, help="Start no trial after so many minutes (default: 60)."),
    ] = None
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="At most so many trials in this call.")
    ] = None
    signals: Signals = "auto"

    def tuning(self, teacher: str, recipe: DistillationRecipe, task: str | None) -> Tuning:
        """The search settings for the teacher's student. Raises RecipeError for a field that cannot be searched."""
        from gradistill.commands.default_recipe import DECIDING
        from gradistill.commands.search_space import parse_search_field
        from gradistill.commands.tune import Tuning

        fields = tuple(map(parse_search_field, self.search or ()))
        method = recipe.method
        if method is None and recipe.recipe is None:  # one for all trials
            settles = [field.field for field in fields if field.field in DECIDING]
            method = OUTPUTS_METHOD if settles else recipe.load_for(teacher, task).method
            if settles:
                logger.info(f"method: {method}, as {settles[0]} is searched: attention may differ")

        def resolve(changes: Sequence[str]) -> Recipe:
            return recipe.load(method, task, changes)

        bounds = 60.0 if self.minutes is None and self.trials is None else self.minutes
        aim = tuple(name.strip() for name in self.maximize.split("+"))
        return Tuning(resolve, fields, aim, bounds, self.trials)


def tune(
    teacher: Teacher,
    data: TeacherData,
    output: Annotated[
        Path, output_option("The folder for tune.db, best.yaml, tune.json and the best student.")
    ],
    recipe: DistillationRecipe,
    options: SearchOptions,
    log: LogOptions,
) -> None:
    """Search values of a recipe's fields for a task, on validation only; the same command continues."""
    log.set_up()
    from gradistill.commands.signal_stores import StoreChoice
    from gradistill.commands.tune import tune as tuned

    tuning = options.tuning(teacher, recipe, data.task)
    choice = data.choice()
    report = tuned(teacher, choice, output, tuning, signals=StoreChoice(options.signals))
    _report(report, output, next_command(teacher, choice, output))


def next_command(teacher: str, choice: Any, output: Path) -> str:
    """The shell command that trains the best student again."""
    from gradistill.commands.tune import BEST

    named = ["--teacher", teacher, *choice.options(), "--recipe", str(output / BEST)]
    return shlex.join(["gradistill", "distill", *named, "--output", str(output / "student")])


def _report(found: dict[str, Any], output: Path, command: str) -> None:
    from gradistill.auditing.trained_figures import NOTE, TRAINED_ON
    from gradistill.commands.tune import BEST
    from gradistill.report.terminal import results_table

    if not found["trials"]:
        return write_result("no trial has ended yet; the same command continues")
    rows = [trial_row(trial, found[TRAINED_ON]) for trial in found["trials"]]
    note = NOTE if found[TRAINED_ON] else ""
    floors = ", ".join(
        f"{name.removesuffix('_loyalty')} {floor:.3f}" for name, floor in found["floors"].items()
    )
    before = f"before the first step: {floors}" if floors else ""
    title = f"{len(rows)} trials; {found['pruned']} more stopped early, {found['failed']} failed"
    show(results_table(rows[:10], title=title, note="; ".join(filter(None, (note, before)))))
    write_result(f"the best recipe is {output / BEST}. To distil with it:")
    return write_result(command, fold=False)


def trial_row(trial: Mapping[str, Any], trained: Collection[str] = ()) -> dict[str, Any]:
    """A row of the table. Fields keep the name of their objective, as several have a ``weight``. Loyalties that trials
    are trained on are marked."""
    from gradistill.auditing.trained_figures import TRAINED_ON, title_with_dagger

    figures = {
        title_with_dagger(name.removesuffix("_loyalty"), {TRAINED_ON: name in trained}): value
        for name, value in trial.items()
        if name != "values"
    }
    prefixes = ("objectives.", "training.")
    fields = {
        next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name): _shown(
            value
        )
        for name, value in trial["values"].items()
    }
    return figures | fields


def _shown(value: Any) -> str:
    """The value with three significant digits: a learning rate would be lost in three decimals."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
