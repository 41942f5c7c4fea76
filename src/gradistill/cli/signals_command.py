"""``gradistill signals``: write, show, list and delete stores of teacher signals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradistill.cli.options import (
    TEACHER,
    Encoding,
    LoadingOptions,
    LogOptions,
    StoreData,
    StudentRecipe,
    Verify,
    known_encoding,
    known_verification,
    one_of,
    output_option,
)
from gradistill.printing import confirmed, show, write

if TYPE_CHECKING:  # imported only when a command runs
    from gradistill.data import DataChoice
    from gradistill.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StoreAction:
    """An action on an existing store."""

    action: Annotated[
        str | None, typer.Argument(help="show, list or delete; without one of them a store is written.")
    ] = None
    folder: Annotated[
        Path | None,
        typer.Argument(help="The folder of a store; for list, a folder of stores (default: cache)."),
    ] = None
    verify: Verify = "full"
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False


@dataclass(frozen=True, kw_only=True)
class StoreOutput(LoadingOptions):
    """How and where a store is written; or the file of texts that is written instead."""

    output: Annotated[
        Path | None,
        output_option(
            "The store's folder (default: in the cache). A finished store gets the signals that it lacks."
        ),
    ] = None
    write_texts: Annotated[
        Path | None,
        typer.Option(
            "--write-texts",
            help="Instead of a store, write a .jsonl file of the texts that a teacher must answer (--teacher-answers).",
        ),
    ] = None
    encoding: Encoding = None
    repair: Annotated[
        bool, typer.Option("--repair", help="Write damaged shards of a finished store again.")
    ] = False

    @property
    def held(self) -> dict[str, Any]:
        """The given value of each option."""
        own = {"--output": self.output, "--write-texts": self.write_texts, "--encoding": self.encoding}
        return {**super().held, **own, "--repair": self.repair or None}


def signals(
    *,
    teacher: Annotated[str | None, TEACHER] = None,  # show, list and delete need none
    data: StoreData,
    recipe: StudentRecipe,
    written: StoreOutput,
    existing: StoreAction,
    log: LogOptions,
) -> None:
    """Write the teacher signals that a recipe needs into a store; or show, list and delete stores."""
    log.set_up()
    if existing.action is not None:
        _refuse_idle(
            {"--teacher": teacher, "--data": data.data, **written.held},
            f"gradistill signals {existing.action}, which writes no store",
            f"gradistill signals {existing.action} FOLDER",
        )
        return _managed(existing.action, existing)
    from gradistill.commands import store_signals as command
    from gradistill.commands.signal_stores import DEFAULT_ENCODING, StoreSettings

    _given("--data", data.data)
    choice = data.choice()
    if written.write_texts is not None:
        resolved = recipe.load_for(teacher, data.task)
        return _write_texts(choice, written, resolved, teacher)
    source = _given("--teacher", teacher)
    resolved = recipe.load_for(source, data.task)
    settings = StoreSettings(
        loading=written.loading(),
        encoding=known_encoding(written.encoding or DEFAULT_ENCODING),
        repair=written.repair,
    )
    return _print(command.store_signals(source, choice, written.output, resolved, settings=settings))


def _write_texts(choice: DataChoice, written: StoreOutput, recipe: Recipe, teacher: str | None) -> None:
    from gradistill.commands.write_texts import write_texts

    _refuse_idle(
        {"--teacher": teacher, **written.held, "--write-texts": None},
        "--write-texts, which writes texts and needs no teacher",
        "--data, --method and settings of the recipe",
    )
    assert written.write_texts is not None
    counts = write_texts(choice, written.write_texts, recipe)
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    write(f"written to {written.write_texts}: {parts}")


def _refuse_idle(options: dict[str, Any], other: str, expected: str) -> None:
    """Raise RecipeError if one of these ``options`` is given, which have no effect with the ``other``."""
    from gradistill.errors import RecipeError

    if given := [name for name, value in options.items() if value is not None]:
        raise RecipeError(
            f"{given[0]} was given with {other}", expected=expected, remedy=f"leave {given[0]} out"
        )


def _given(option: str, value: str | None) -> str:
    from gradistill.errors import RecipeError

    if value is None:
        raise RecipeError(
            f"gradistill signals needs {option}.",
            expected="--teacher and --data, or one of show, list, delete",
            remedy="see gradistill signals --help",
        )
    return value


def _managed(action: str, existing: StoreAction) -> None:
    from gradistill.commands.signal_stores import check
    from gradistill.errors import RecipeError

    folder, verify = existing.folder, known_verification(existing.verify)
    one_of("gradistill signals", action, ("show", "list", "delete"))
    if action == "list":
        return _list(folder)
    if folder is None:
        raise RecipeError(f"gradistill signals {action} needs a folder.", remedy="name the store's folder")
    if action == "delete":
        return _delete(folder, existing.yes)
    _print(folder)
    check(folder, verify=verify)
    return write(f"whole ({verify} verification)")


def _list(folder: Path | None) -> None:
    from gradistill.commands.signal_stores import cache_folder, describe, stores
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
    from gradistill.commands.signal_stores import delete, refuse_no_store

    refuse_no_store(folder)
    if not yes and not confirmed(f"delete the teacher signals in {folder}?"):
        raise typer.Abort
    delete(folder)
    write(f"deleted {folder}")


def _print(folder: Path) -> None:
    from gradistill.commands.signal_stores import describe
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
