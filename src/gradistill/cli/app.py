"""The commands. Large libraries are imported when a command runs, so that --help is quick."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.audit_command import audit
from gradistill.cli.augment_command import augment
from gradistill.cli.bench_command import bench
from gradistill.cli.explain_command import explain
from gradistill.cli.export_command import export
from gradistill.cli.option_groups import with_option_groups
from gradistill.cli.options import (
    DistillationData,
    FinetuningData,
    FinetuningRecipe,
    LogOptions,
    PrintOptions,
    PromptedStudentRecipe,
    RunFolder,
    SignalOptions,
    TeacherOptions,
    output_option,
)
from gradistill.cli.predict_command import predict
from gradistill.cli.pretrain_command import pretrain
from gradistill.cli.project_commands import init, run
from gradistill.cli.push_command import push
from gradistill.cli.signals_command import signals
from gradistill.cli.strict_command import StrictCommand
from gradistill.cli.tune_command import tune
from gradistill.printing import show, write

app = typer.Typer(
    help="Distil a fine-tuned transformer into a small one that decides for the same reasons, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

subcommand = partial(app.command, cls=StrictCommand)
subcommand()(with_option_groups(init))
subcommand()(with_option_groups(run))
subcommand()(with_option_groups(augment))
subcommand()(with_option_groups(signals))
subcommand()(with_option_groups(audit))
subcommand()(with_option_groups(explain))
subcommand()(with_option_groups(predict))
subcommand()(with_option_groups(pretrain))
subcommand()(with_option_groups(bench))
subcommand()(with_option_groups(tune))
subcommand()(push)
subcommand()(with_option_groups(export))


def _print_version(wanted: bool) -> bool:
    if wanted:
        from gradistill import __version__

        write(f"gradistill {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def version(
    wanted: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


@subcommand()
@with_option_groups
def finetune(
    model: Annotated[str, typer.Option("--model", help="A pre-trained model: folder, hub id, or minilm-l6.")],
    data: FinetuningData,
    recipe: FinetuningRecipe,
    folder: RunFolder,
    log: PrintOptions,
) -> None:
    """Fine-tune a pre-trained model into a teacher."""
    log.set_up()
    from gradistill.commands import finetune as command

    resolved = recipe.load(None if recipe.recipe else "finetune", data.task)
    metrics = command.finetune(model, data.choice(), folder.output, resolved, overwrite=folder.overwrite)
    _report(metrics, folder.output, log)


@subcommand()
@with_option_groups
def distill(
    teacher: TeacherOptions,
    data: DistillationData,
    recipe: PromptedStudentRecipe,
    signals: SignalOptions,
    folder: RunFolder,
    log: PrintOptions,
) -> None:
    """Distil a teacher into a student that shares its reasons."""
    log.set_up()
    from gradistill.commands import distill as command

    source = teacher.choice()
    resolved = recipe.load_for(source, data.task)
    metrics = command.distill(
        source, data.choice(), folder.output, resolved,
        signals=signals.choice(), overwrite=folder.overwrite,
    )  # fmt: skip
    _report(metrics, folder.output, log)


@subcommand()
@with_option_groups
def demo(
    log: LogOptions,
    output: Annotated[Path, output_option("The folder for teacher, students and corpus.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed of corpus, training and bootstrap."),
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the data: shows the steps, not the result.")
    ] = False,
) -> None:
    """Train a teacher and two students on a generated corpus with a shortcut; needs no network and no data."""
    log.set_up()
    from gradistill.demo.run_demo import demo as demonstrated

    show(demonstrated(output, seed=seed, quick=quick))


@subcommand()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show the details of this method.")] = None,
) -> None:
    """List the methods and the cost of a step of each; or show one with its objectives, signals and source."""
    from gradistill.commands.defaults import DEFAULT_METHOD, OUTPUTS_METHOD
    from gradistill.recipe.catalogue import catalogue, entry_of, measured_costs
    from gradistill.report.terminal import results_table

    if name is None:
        rows = [{"method": e.method, "step": e.cost, "what it does": e.summary} for e in catalogue()]
        show(results_table(rows))
        write(f"Default, by teacher: {DEFAULT_METHOD} or {OUTPUTS_METHOD}.")
        write("Details of a method: gradistill methods NAME")
    else:
        entry = entry_of(name)
        parts = {
            "title": entry.title,
            "what it does": entry.summary,
            "objectives": ", ".join(entry.objectives),
            "teacher signals": ", ".join(entry.signals) or "none",
            "step": "not measured" if entry.cost is None else f"{entry.cost:.2f}",
            "source": entry.source,
        }
        show(results_table([{name: key, "": value} for key, value in parts.items()]))
    write(
        f"step: time in steps of plain cross-entropy; {measured_costs()['setting']}, teacher signals stored"
    )


@subcommand()
def tasks() -> None:
    """List the tasks that are known by name."""
    from gradistill.data import TASKS
    from gradistill.report.terminal import results_table

    rows = [
        {
            "task": task.name,
            "texts": ", ".join(task.text_columns),
            "labels": ", ".join(task.labels) if task.labels else "score",
            "metrics": ", ".join(task.metrics),
        }
        for task in TASKS.values()
    ]
    show(results_table(rows))
    write("The first metric selects the best checkpoint.")
    write(f"On the Hugging Face hub: {', '.join(task.source for task in TASKS.values())}")


def _report(metrics: dict[str, Any], output: Path, log: PrintOptions) -> None:
    from gradistill.report.run_summary import run_table

    if metrics:  # only the first process has metrics
        log.report(run_table(metrics), f"written to {output}", metrics)
