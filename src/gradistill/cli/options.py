"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from gradistill.printing import write


def output_option(help: str) -> Any:
    """``--output``. An empty one, as of a shell variable that is not set, would be the current folder."""

    def folder(given: str | Path) -> Path:
        if not str(given).strip() or given == "":
            raise typer.BadParameter("it is empty; name a folder, or . for this one")
        return Path(given)

    return typer.Option("--output", help=help, parser=folder, metavar="FOLDER")


DATA = typer.Option(
    "--data",
    help="A folder with train and validation files (.csv, .tsv, .json, .jsonl, .parquet), one file, or a hub id.",
)
Data = Annotated[str, DATA]
Output = Annotated[Path, output_option("The run folder: a model folder with metrics and recipe.")]
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
    str | None,
    typer.Option("--label-column", help="Where the label is, if not obvious; meta.label in objects."),
]
TextColumns = Annotated[
    str | None, typer.Option("--text-columns", help="One or two, with a comma between; body.text in objects.")
]
KindOfLabels = Annotated[
    str | None, typer.Option("--kind", help="What numbers in the label column are: classes or scores.")
]
ValidationShare = Annotated[
    float | None,
    typer.Option("--validation-share", help="Draw this share of the training rows for validation, e.g. 0.1."),
]
ValidationSeed = Annotated[
    int, typer.Option("--validation-seed", help="Of that draw. Use one for teacher, students and audit.")
]
Positive = Annotated[
    str | None,
    typer.Option(
        "--positive", help="Of two labels the one that F1 is of (default: the teacher's, or the rarer)."
    ),
]
LabelMap = Annotated[
    str | None,
    typer.Option(
        "--label-map",
        help="The teacher's output of each label, where names differ: refund=LABEL_2,login=LABEL_0",
    ),
]
Unlabelled = Annotated[
    str | None,
    typer.Option("--unlabelled", help="A file with more rows, without labels: the teacher speaks for them."),
]
Settings = Annotated[
    str, typer.Option("--settings", help="authors: the papers' settings for the task, if any; default: ours.")
]
TEACHER = typer.Option("--teacher", help="A fine-tuned classifier: folder or hub id.")
Teacher = Annotated[str, TEACHER]
Method = Annotated[str | None, typer.Option("--method", help="See gradistill methods. Default: adkd.")]
Student = Annotated[str | None, typer.Option("--student", help="A pre-trained student checkpoint.")]
StudentLayers = Annotated[
    int | None, typer.Option("--student-layers", help="Blocks taken from the teacher (default: half).")
]
LayerMap = Annotated[
    str | None, typer.Option("--layer-map", help="uniform, skip, first, last, or a list such as 1,3,6.")
]
Encoded = Annotated[
    str | None,
    typer.Option("--encoding", help="How a store writes vectors: int8 (default), float16 or float32."),
]
Signals = Annotated[
    str,
    typer.Option("--signals", help="Teacher signals: auto (kept in a cache), online, or a store's folder."),
]
Verified = Annotated[
    str, typer.Option("--verify", help="On opening a store: full (checksums) or fast (sizes).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in this folder.")]


def say(text: str) -> None:
    """Print what a job says; of the processes that torchrun started the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        write(text)


def resolved_recipe(
    method: str | None,
    task: str | None,
    file: Path | None,
    change: list[str] | None,
    settings: str,
    **short: Any,
) -> Any:
    from gradistill.recipe import load_recipe

    one_of("--settings", settings, ("authors", "default"))
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


def distilling_recipe(
    method: str | None,
    task: str | None,
    file: Path | None,
    change: list[str] | None,
    settings: str,
    *,
    student: str | None,
    layers: int | None,
    layer_map: str | None,
    **short: Any,
) -> Any:
    """The recipe of a student; AD-KD's, where neither a method nor a file is given."""
    named = method or (None if file else "adkd")
    changes = student_changes(student, layers, layer_map)
    return resolved_recipe(named, task, file, change, settings, **short, **changes)


def one_of(option: str, given: str, known: tuple[str, ...]) -> Any:
    from gradistill.errors import RecipeError

    if given not in known:
        raise RecipeError(f"{option} {given!r}", expected=" or ".join(known), remedy="choose one of them")
    return given


def known_encoding(given: str) -> Any:
    from gradistill.signals.layout import Encoding

    return one_of("--encoding", given, get_args(Encoding))


def known_verification(given: str) -> Any:
    from gradistill.signals.store import Verify

    return one_of("--verify", given, get_args(Verify))


def student_changes(checkpoint: str | None, layers: int | None, layer_map: str | None) -> dict[str, Any]:
    """The options of a student as changes of the recipe."""
    listed = f"[{layer_map}]" if layer_map and layer_map[0].isdigit() else layer_map
    quoted = json.dumps(checkpoint) if checkpoint else None  # a folder may be called 12
    return {"student.checkpoint": quoted, "student.layers": layers, "student.layer_map": listed}


def data_choice(
    data: str, task: str | None, *, text_columns: str | None, label_map: str | None = None, **how: Any
) -> Any:
    """The data that a command names; ``how`` are further fields of ``DataChoice``."""
    from gradistill.data import DataChoice

    return DataChoice(data, task, text_columns=listed(text_columns), label_map=label_pairs(label_map), **how)


def label_pairs(given: str | None) -> dict[str, str] | None:
    """``label=output`` pairs with commas between, or a JSON object. Raises RecipeError for anything else."""
    from gradistill.errors import RecipeError

    if given is None:
        return None
    if given.lstrip().startswith("{"):
        try:
            found = {str(key): str(value) for key, value in json.loads(given).items()}
        except ValueError:
            found = {}
    else:
        pairs = [pair.rpartition("=") for pair in given.split(",")]
        found = {label.strip(): output.strip() for label, _, output in pairs}
        found = found if len(found) == len(pairs) else {}
    if not found or not all(found) or not all(found.values()):
        raise RecipeError(
            f"--label-map {given!r} does not pair labels with outputs.",
            expected="each label of the data once, with the teacher's output: refund=LABEL_2,login=LABEL_0",
            remedy='correct it; labels with a comma or an = need JSON: \'{"a, b": "LABEL_0"}\'',
        )
    return found


def listed(names: str | None) -> tuple[str, ...] | None:
    """What stands between commas."""
    return tuple(name.strip() for name in names.split(",")) if names else None
