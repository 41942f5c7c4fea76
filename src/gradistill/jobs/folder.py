"""The run folder: an ordinary model folder, with the recipe, the metrics and a model card beside the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import get_last_checkpoint

from gradistill.errors import RecipeError
from gradistill.recipe import Recipe
from gradistill.signals.files import write_whole
from gradistill.training.arguments import CHECKPOINTS

RECIPE, METRICS, CARD = "recipe.yaml", "metrics.json", "README.md"


def check_run(
    output: Path, recipe: Recipe, *, overwrite: bool, reads: Iterable[str | Path | None] = ()
) -> None:
    """Refuse, before any work, a folder that holds anything but an unfinished run of this very recipe.

    A run without a checkpoint has nothing to lose, and any recipe may take its place. With ``overwrite`` earlier
    runs of any recipe pass, unless this one ``reads`` something in there. Raises RecipeError.
    """
    for source in (Path(name) for name in reads if name is not None and Path(name).exists()):
        if output.resolve() in (source.resolve(), *source.resolve().parents):
            raise RecipeError(
                f"the output {output} holds {source}, which this run reads",
                expected="a folder of its own for the run",
                remedy="choose another --output",
            )
    if output.exists() and not output.is_dir():
        raise RecipeError(
            f"{output} is a file", expected="a folder for the run", remedy="choose another --output"
        )
    present = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if present and RECIPE not in present:
        raise RecipeError(
            f"{output} holds files that are no run of ours: {', '.join(present[:5])}",
            expected="a new or empty folder, or a run to go on with",
            remedy="choose another --output",
        )
    if not present or overwrite:
        return
    if METRICS in present:
        raise RecipeError(
            f"{output} holds a finished run",
            expected="a new folder",
            remedy="choose another --output, or give --overwrite to replace it",
        )
    if _last_checkpoint(output) is not None:
        _refuse_other_recipe(output, recipe)


def open_run(output: Path, recipe: Recipe, *, overwrite: bool) -> str | None:
    """Make or reopen a run folder; returns the checkpoint to go on from, if there is one. Raises RecipeError."""
    check_run(output, recipe, overwrite=overwrite)
    try:
        if overwrite and output.exists():
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / RECIPE, recipe.as_yaml().encode())
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {error.strerror}", remedy="choose another --output"
        ) from error
    return _last_checkpoint(output)


def close_run(output: Path, metrics: Mapping[str, Any], card: str) -> None:
    """Write the card and the metrics, and remove the checkpoints: the folder itself is the best model."""
    write_whole(output / CARD, card.encode())
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_whole(output / METRICS, text.encode())
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _last_checkpoint(output: Path) -> str | None:
    checkpoints = output / CHECKPOINTS
    return get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None


def _refuse_other_recipe(output: Path, recipe: Recipe) -> None:
    before = yaml.safe_load((output / RECIPE).read_text(encoding="utf-8"))
    differences = _differences(before, yaml.safe_load(recipe.as_yaml()), "")
    if differences:
        raise RecipeError(
            f"{output} holds an unfinished run of another recipe:\n"
            + "\n".join(f"  - {d}" for d in differences),
            expected="the same recipe, to go on with it",
            remedy="choose another --output, or give --overwrite to start again",
        )


def _differences(before: Any, now: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [d for k in keys for d in _differences(before.get(k), now.get(k), f"{path}.{k}".lstrip("."))]
    return [] if before == now else [f"{path}: {before!r} there, {now!r} now"]
