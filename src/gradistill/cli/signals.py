"""``gradistill signals``: write, show, list and delete stores of teacher signals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gradistill.cli.options import (
    DATA,
    TEACHER,
    Changes,
    Encoded,
    KindOfLabels,
    LabelColumn,
    LabelMap,
    LayerMap,
    Method,
    RecipeFile,
    Rows,
    Seed,
    Settings,
    Student,
    StudentLayers,
    TaskName,
    TextColumns,
    Unlabelled,
    ValidationSeed,
    ValidationShare,
    Verified,
    data_choice,
    distilling_recipe,
    known_encoding,
    known_verification,
    one_of,
    output_option,
    say,
)
from gradistill.printing import confirmed, show, write

Action = Annotated[
    str | None, typer.Argument(help="show, list or delete; without one of them a store is written.")
]
Store = Annotated[
    Path | None, typer.Argument(help="The folder of a store; for list, of stores (default: the cache).")
]
Asked = Annotated[str | None, TEACHER]  # show, list and delete need neither
Read = Annotated[str | None, DATA]
Written = Annotated[Path | None, output_option("The store's folder (default: in the cache).")]
Repair = Annotated[bool, typer.Option("--repair", help="Write damaged shards of a finished store again.")]
Spread = Annotated[
    str | None,
    typer.Option(
        "--device-map", help="Spread a large teacher by accelerate: auto, balanced, sequential or cpu."
    ),
]
DEVICE_MAPS = ("auto", "balanced", "sequential", "cpu")
Yes = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]


def signals(
    action: Action = None,
    folder: Store = None,
    teacher: Asked = None,
    data: Read = None,
    output: Written = None,
    method: Method = None,
    task: TaskName = None,
    student: Student = None,
    student_layers: StudentLayers = None,
    layer_map: LayerMap = None,
    recipe: RecipeFile = None,
    change: Changes = None,
    seed: Seed = None,
    max_train_rows: Rows = None,
    settings: Settings = "authors",
    label_column: LabelColumn = None,
    text_columns: TextColumns = None,
    kind: KindOfLabels = None,
    validation_share: ValidationShare = None,
    validation_seed: ValidationSeed = 0,
    label_map: LabelMap = None,
    unlabelled: Unlabelled = None,
    encoding: Encoded = None,
    repair: Repair = False,
    device_map: Spread = None,
    verify: Verified = "full",
    yes: Yes = False,
) -> None:
    """Write what a recipe asks of the teacher into a store, once; or show, list and delete stores."""
    if action is not None:
        return _managed(action, folder, known_verification(verify), yes)
    from gradistill.jobs import runs
    from gradistill.jobs.signals import DEFAULT_ENCODING

    resolved = distilling_recipe(
        method, task, recipe, change, settings, student=student, layers=student_layers, layer_map=layer_map,
        seed=seed, max_train_rows=max_train_rows,
    )  # fmt: skip
    choice = data_choice(
        _given("--data", data), task, label_column=label_column, text_columns=text_columns, unlabelled=unlabelled,
        kind=kind, validation_share=validation_share, validation_seed=validation_seed, label_map=label_map,
    )  # fmt: skip
    return _print(runs.store_signals(
        _given("--teacher", teacher), choice, output, resolved, repair=repair, device_map=_known(device_map), say=say,
        encoding=known_encoding(encoding or DEFAULT_ENCODING),
    ))  # fmt: skip


def _known(device_map: str | None) -> str | None:
    return device_map and one_of("--device-map", device_map, DEVICE_MAPS)


def _given(option: str, value: str | None) -> str:
    from gradistill.errors import RecipeError

    if value is None:
        raise RecipeError(
            f"gradistill signals came without {option}",
            expected="--teacher and --data, or one of show, list, delete",
            remedy="see gradistill signals --help",
        )
    return value


def _managed(action: str, folder: Path | None, verify: Any, yes: bool) -> None:
    from gradistill.errors import RecipeError
    from gradistill.jobs.signals import check

    one_of("gradistill signals", action, ("show", "list", "delete"))
    if action == "list":
        return _list(folder)
    if folder is None:
        raise RecipeError(
            f"gradistill signals {action} came without a folder", remedy="name the store's folder"
        )
    if action == "delete":
        return _delete(folder, yes)
    _print(folder)
    check(folder, verify=verify)
    return write(f"whole ({verify} verification)")


def _list(folder: Path | None) -> None:
    from gradistill.jobs.signals import cache_folder, describe, stores
    from gradistill.report.terminal import results_table

    place = folder or cache_folder()
    shown = ("teacher", "data", "method", "rows", "megabytes", "finished")
    rows: list[dict[str, Any]] = []
    for store in stores(place):
        about = describe(store)
        rows.append({"store": store.name, **{key: about.get(key, "") for key in shown}})
    if rows:
        show(results_table(rows, title=f"stores in {place}"))
    else:
        write(f"no stores in {place}")


def _delete(folder: Path, yes: bool) -> None:
    from gradistill.jobs.signals import delete, refuse_no_store

    refuse_no_store(folder)
    if not yes and not confirmed(f"delete the teacher signals in {folder}?"):
        raise typer.Abort
    delete(folder)
    write(f"deleted {folder}")


def _print(folder: Path) -> None:
    from gradistill.jobs.signals import describe
    from gradistill.report.terminal import results_table

    about = describe(folder)
    columns = about.pop("signals", [])
    for key, value in about.items():
        write(f"{key}: {value}")
    rows = [
        {
            "signal": c["name"],
            "shape": "×".join(map(str, c["shape"])),
            "per": c["per"],
            "written as": c["encoding"],
        }
        for c in columns
    ]
    show(results_table(rows, title="signals"))
