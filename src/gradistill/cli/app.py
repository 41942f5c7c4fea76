"""The commands. Heavy imports wait until a command runs, so that --help answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Distil a fine-tuned transformer into a small one that decides for the same reasons, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    str,
    typer.Option(
        "--data", help="A folder with train and validation files (.csv, .jsonl, .parquet), or a hub id."
    ),
]
Output = Annotated[
    Path, typer.Option("--output", help="The run folder: a model folder with metrics and recipe.")
]
TaskName = Annotated[
    str | None, typer.Option("--task", help="A known task (gradistill tasks); else inferred.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe in YAML; names a method or a base.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change the recipe, e.g. objectives.soft_label.temperature=2."),
]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Short for --set training.epochs=…")]
Seed = Annotated[int | None, typer.Option("--seed", help="Short for --set training.seed=…")]
Rows = Annotated[
    int | None, typer.Option("--max-train-rows", help="Short for --set training.max_train_rows=…")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="Where the label is, if not obvious.")
]
TextColumns = Annotated[str | None, typer.Option("--text-columns", help="One or two, with a comma between.")]
Settings = Annotated[
    str, typer.Option("--settings", help="authors: the papers' settings for the task, if any; default: ours.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in this folder.")]


def _say_version(wanted: bool) -> bool:
    if wanted:
        from gradistill import __version__

        typer.echo(f"gradistill {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def version(
    wanted: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and stop."),
    ] = False,
) -> None:
    pass


@app.command()
def finetune(
    model: Annotated[str, typer.Option("--model", help="A pre-trained model: folder, hub id, or minilm-l6.")],
    data: Data,
    output: Output,
    task: TaskName = None,
    recipe: RecipeFile = None,
    change: Changes = None,
    epochs: Epochs = None,
    seed: Seed = None,
    max_train_rows: Rows = None,
    settings: Settings = "authors",
    label_column: LabelColumn = None,
    text_columns: TextColumns = None,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a pre-trained model into a teacher."""
    from gradistill.jobs import runs

    resolved = _resolved(
        "finetune" if recipe is None else None, task, recipe, change, settings,
        epochs=epochs, seed=seed, max_train_rows=max_train_rows,
    )  # fmt: skip
    choice = _data(data, task, label_column, text_columns)
    _report(runs.finetune(model, choice, output, resolved, overwrite=overwrite, say=typer.echo), output)


@app.command()
def distill(
    teacher: Annotated[str, typer.Option("--teacher", help="A fine-tuned classifier: folder or hub id.")],
    data: Data,
    output: Output,
    method: Annotated[
        str | None, typer.Option("--method", help="See gradistill methods. Default: adkd.")
    ] = None,
    task: TaskName = None,
    student: Annotated[
        str | None, typer.Option("--student", help="A pre-trained student checkpoint.")
    ] = None,
    student_layers: Annotated[
        int | None, typer.Option("--student-layers", help="Blocks taken from the teacher (default: half).")
    ] = None,
    layer_map: Annotated[
        str | None, typer.Option("--layer-map", help="skip, first, last, or a list such as 1,3,6.")
    ] = None,
    recipe: RecipeFile = None,
    change: Changes = None,
    epochs: Epochs = None,
    seed: Seed = None,
    max_train_rows: Rows = None,
    settings: Settings = "authors",
    label_column: LabelColumn = None,
    text_columns: TextColumns = None,
    overwrite: Overwrite = False,
) -> None:
    """Distil a teacher into a student that shares its reasons."""
    from gradistill.jobs import runs

    method = method or (None if recipe else "adkd")
    listed = f"[{layer_map}]" if layer_map and layer_map[0].isdigit() else layer_map
    checkpoint = json.dumps(student) if student else None  # quoted: a folder may be called 12
    made = {"student.checkpoint": checkpoint, "student.layers": student_layers, "student.layer_map": listed}
    resolved = _resolved(
        method, task, recipe, change, settings,
        epochs=epochs, seed=seed, max_train_rows=max_train_rows, **made,
    )  # fmt: skip
    choice = _data(data, task, label_column, text_columns)
    _report(runs.distill(teacher, choice, output, resolved, overwrite=overwrite, say=typer.echo), output)


@app.command()
def explain(
    texts: Annotated[list[str], typer.Argument(help="One text, or the two of a pair.")],
    model: Annotated[str, typer.Option("--model", help="A fine-tuned classifier: folder or hub id.")],
    label: Annotated[
        str | None, typer.Option("--label", help="Explain this label, not the predicted one.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Steps of Integrated Gradients (default: 50 to 400, until they suffice)."
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="Where the path starts: padding or zero.")
    ] = "padding",
) -> None:
    """Show which words a prediction rests on."""
    from rich.console import Console

    from gradistill.errors import RecipeError
    from gradistill.jobs.explain import explain as explained
    from gradistill.report.terminal import render

    if baseline not in ("padding", "zero"):
        raise RecipeError(f"--baseline {baseline!r}", expected="padding or zero", remedy="choose one of them")
    Console().print(render(explained(model, texts, label=label, steps=steps, baseline=baseline)))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", help="Where teacher, students and corpus go.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Of corpus, training and bootstrap.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the data: shows the way, not the result.")
    ] = False,
) -> None:
    """Teacher, three students and a shortcut, on a corpus of our own; no network, no data of yours."""
    from rich.console import Console

    from gradistill.jobs.demo import demo as demonstrated

    Console().print(demonstrated(output, seed=seed, quick=quick, say=typer.echo))


@app.command()
def methods() -> None:
    """The methods there are, with their sources."""
    from rich.console import Console

    from gradistill.recipe import load_recipe, shipped_methods
    from gradistill.report.terminal import results_table

    rows = []
    for name in shipped_methods():
        recipe = load_recipe(name)
        rows.append(
            {
                "method": name,
                "title": recipe.title,
                "objectives": ", ".join(recipe.objectives),
                "source": recipe.source,
            }
        )
    Console().print(results_table(rows, title="methods"))


@app.command()
def tasks() -> None:
    """The tasks that are known by name."""
    from rich.console import Console

    from gradistill.data import TASKS
    from gradistill.report.terminal import results_table

    rows = [
        {
            "task": task.name,
            "texts": ", ".join(task.text_columns),
            "labels": ", ".join(task.labels) if task.labels else "score",
            "metrics": ", ".join(task.metrics),
            "selected by": task.select,
            "source": task.source,
        }
        for task in TASKS.values()
    ]
    Console().print(results_table(rows, title="tasks"))


def _resolved(
    method: str | None,
    task: str | None,
    file: Path | None,
    change: list[str] | None,
    settings: str,
    **short: Any,
) -> Any:
    from gradistill.errors import RecipeError
    from gradistill.recipe import load_recipe

    if settings not in ("authors", "default"):
        raise RecipeError(
            f"--settings {settings!r}", expected="authors or default", remedy="choose one of them"
        )
    names = {
        "epochs": "training.epochs",
        "seed": "training.seed",
        "max_train_rows": "training.max_train_rows",
    }
    given = [f"{names.get(key, key)}={value}" for key, value in short.items() if value is not None]
    return load_recipe(
        method,
        task=task,
        file=file,
        changes=[*given, *(change or [])],
        authors_settings=settings == "authors",
    )


def _data(data: str, task: str | None, label_column: str | None, text_columns: str | None) -> Any:
    from gradistill.jobs.runs import DataChoice

    columns = tuple(name.strip() for name in text_columns.split(",")) if text_columns else None
    return DataChoice(data, task, label_column, columns)


def _report(metrics: dict[str, Any], output: Path) -> None:
    from rich.console import Console

    from gradistill.report.summary import run_table

    Console().print(run_table(metrics))
    typer.echo(f"written to {output}")
