"""The identity of models and data in a report: hashes of weights and files, and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from gradistill.auditing.onnx_predictor import graph_files, model_folder_of
from gradistill.auditing.trained_figures import CHANGED_COPIES, EARLIER
from gradistill.commands.run_folder import RECIPE, export_record, record_of
from gradistill.data.data_source import Source
from gradistill.data.split_sources import files_of
from gradistill.data.tasks import Task
from gradistill.errors import RecipeError
from gradistill.io import checksum_of, digest
from gradistill.models.adapters import ADAPTER_WEIGHTS, is_adapter
from gradistill.recipe.recipe_files import read_keys
from gradistill.report.model_card import public_recipe
from gradistill.store.fingerprint import model_hash

WEIGHTS = "model.safetensors"


def model_identity(model: nn.Module, folder: str) -> dict[str, Any]:
    """The hash of a loaded model, the hash of its weights file, and the recipes of its runs; None for missing parts.

    Parameters:
        ``model``: the model in memory.
        ``folder``: its folder, hub id, or an empty text.

    Example: ``model_identity(model, "runs/student")["sha256"]``
    """
    place = Path(folder) if folder else None
    weights = place / (ADAPTER_WEIGHTS if is_adapter(place) else WEIGHTS) if place else None
    return {
        "fingerprint": model_hash(model),
        "sha256": checksum_of(weights) if weights and weights.is_file() else None,
        "recipe": None,
    } | (recipes_of(place) if place else {})


def of_onnx(predictor: Any) -> str:
    """A hash of an ONNX model: its file, its external weights files, and the configuration with the labels."""
    file = predictor.file
    files = [*graph_files(file), model_folder_of(file) / "config.json"]
    return digest([[path.name, checksum_of(path)] for path in files])


def data_files(source: Source, split: str, task: Task) -> list[dict[str, str]]:
    """Name and SHA-256 of the files of a split; empty for objects in memory and datasets of the hub.

    Example: ``data_files("DATA/mrpc", "validation", task)[0]["sha256"]``
    """
    return [{"name": file.name, "sha256": checksum_of(file)} for file in files_of(source, split, task)]


def recipes_of(folder: Path) -> dict[str, Any]:
    """The recipes of a run, or of the student of an export, in a folder. A part that cannot be read is left out.

    ``recipe`` is YAML without secrets and folders. ``earlier_recipes`` are those of the checkpoints that the student
    started from, the last first. ``changed_copies``: whether its unlabelled rows were changed copies.

    Example: ``recipes_of(Path("runs/student"))["recipe"]``
    """
    exported, trained = (_mapping(record(folder).get("student")) for record in (export_record, record_of))
    try:
        recipe_file = folder / RECIPE
        text = (
            public_recipe(read_keys(recipe_file, "recipe", "keys"))
            if recipe_file.is_file()
            else exported.get("recipe")
        )
    except (RecipeError, RecursionError):
        text = None
    kept = {key: exported.get(key) or trained.get(key) for key in (EARLIER, CHANGED_COPIES)}
    recipes = {"recipe": text, **kept}
    return {name: value for name, value in recipes.items() if value}


def earlier_training(start: str | None) -> dict[str, Any]:
    """The part of a student's record about the checkpoint that it starts from; empty without recorded recipes."""
    started_from = recipes_of(Path(start)) if start else {}
    recipes = (
        {EARLIER: [started_from["recipe"], *started_from.get(EARLIER, ())]}
        if started_from.get("recipe")
        else {}
    )
    return recipes | {key: value for key, value in started_from.items() if key == CHANGED_COPIES}


def _mapping(part: Any) -> dict[str, Any]:
    return part if isinstance(part, dict) else {}
