"""The run folder: an ordinary model folder, with the recipe, the metrics and a model card beside the weights.

An unfinished run is kept in the subfolder ``checkpoints``: its recipe, the hashes of its inputs, and its checkpoints.
The result is written there too, and then moved up file by file, the metrics last.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from os.path import realpath
from pathlib import Path
from typing import Any

from gradistill.commands.output_folder import FolderKind, check_output, locked_output, put_in_place
from gradistill.errors import GradistillError, RecipeError
from gradistill.io import (
    discard,
    draft_beside,
    draft_of,
    locked,
    read_object,
    remove_drafts,
    shown_differences,
    sync_folder,
    system_reason,
    write_whole,
)
from gradistill.recipe import Recipe
from gradistill.recipe.strict_yaml import load_yaml
from gradistill.training.arguments import CHECKPOINTS
from gradistill.training.checkpoints import has_seal, last_whole
from gradistill.training.distributed import process_state

RECIPE, INPUTS, METRICS, CARD = "recipe.yaml", "inputs.json", "metrics.json", "README.md"
EXPORT_RECORD = "export.json"
"""The record of an export, in the folder of its model."""
LOGS = "runs"
"""The folder of TensorBoard's logs: in ``checkpoints`` during a run, then in the run folder."""
_DRAFT, _UNFINISHED_DRAFT = "finished", "finishing"
_IN_CHECKPOINTS = re.compile(
    rf"checkpoint-\d+|{RECIPE}|{INPUTS}|{_DRAFT}|{_UNFINISHED_DRAFT}|{LOGS}|"
    + draft_of(f"{RECIPE}|{INPUTS}").pattern
)
"""Names in ``checkpoints``."""
_METRICS_KEYS = {"task", "method", "seed", "student", "teacher", "timing", "versions", "inputs"}
_INPUTS_KEYS = {"student", "tokenizer", "train"}
_NEWER = {"words", "texts", "processes", "best checkpoint by", "teacher signals"}
"""Inputs that runs of earlier versions did not record. A missing one counts as unchanged."""
_RECIPE_KEYS = {"method", "task", "student", "training", "objectives"}
_HASH = re.compile(r"[0-9a-f]{64}")
_MODEL_FILES = re.compile(
    r"(generation_|tokenizer_|adapter_)?config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|tokenizer\.json|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.(txt|json)|merges\.txt|[\w.]+\.model|chat_template\.\w+|"
    rf"{RECIPE}|{METRICS}|{CARD}"
)


def check_run(
    output: Path, recipe: Recipe, *, overwrite: bool, reads: Iterable[str | Path | None] = ()
) -> None:
    """Refuse, before any work, a folder that holds anything but an unfinished run of the same recipe.

    A run without a checkpoint has nothing to lose, so any recipe may replace it. ``overwrite`` allows earlier runs of
    any recipe, unless this run ``reads`` something in their folder. Raises RecipeError.
    """
    for source in _existing(reads):
        if Path(realpath(output)) in (Path(realpath(source)), *Path(realpath(source)).parents):
            raise RecipeError(
                f"the output {output} holds {source}, which this run reads",
                expected="a folder of its own for the run",
                remedy="choose another --output",
            )
    _refuse_foreign(output)
    if output.is_dir():
        with suppress(OSError), locked(output, patience=0.0) as had:
            if had:
                _finish_removal(output)
    check_output(output, RUN, overwrite=overwrite)
    if not overwrite and last_whole(output / CHECKPOINTS) is not None:
        _refuse_other(output, _differences_of_recipe(output, recipe))


@contextmanager
def opened_run(
    output: Path, recipe: Recipe, inputs: Mapping[str, str], *, overwrite: bool
) -> Iterator[str | None]:
    """Lock a run folder for the block, and yield the checkpoint to resume from, if there is one.

    ``inputs`` are hashes of what the run reads: with other inputs it is another run. With ``overwrite`` an unfinished
    run of this recipe still resumes, and a finished one is kept until this run has ended. Only the main process
    writes. A run that is refused before its first checkpoint leaves nothing behind. Raises RecipeError.
    """
    state = process_state()
    with locked_output(output) if state.is_main_process else nullcontext():
        checkpoint = None
        if state.is_main_process:
            _refuse_foreign(output)
            _finish_removal(output)
            check_output(output, RUN, overwrite=overwrite)
            checkpoint = _begin(output, recipe, inputs, overwrite=overwrite)
        state.wait_for_everyone()
        if not state.is_main_process:
            checkpoint = last_whole(output / CHECKPOINTS)
        try:
            yield str(checkpoint) if checkpoint else None
        except GradistillError:
            if state.is_main_process and last_whole(output / CHECKPOINTS) is None:
                with suppress(OSError):
                    discard(output / CHECKPOINTS)
            raise


def close_run(
    output: Path, save: Callable[[Path], object], recipe: Recipe, metrics: Mapping[str, Any], card: str
) -> None:
    """Move the model that ``save`` writes, the recipe, the card and the metrics into the run folder.

    Each file is moved whole, the metrics last. Then the checkpoints are removed: the folder itself holds the best
    model. TensorBoard's logs are kept.
    """
    work = output / CHECKPOINTS
    draft, done = work / _UNFINISHED_DRAFT, work / _DRAFT
    for earlier in (draft, done):
        if earlier.exists():
            discard(earlier)
    draft.mkdir()
    save(draft)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    for name, content in ((RECIPE, recipe.as_yaml()), (CARD, card), (METRICS, text)):
        (draft / name).write_text(content, encoding="utf-8")
    if (work / LOGS).is_dir():
        shutil.copytree(work / LOGS, draft / LOGS)
    draft.rename(done)
    put_in_place(done, output, RUN)
    discard(work)


def recorded_metrics(output: Path) -> dict[str, Any] | None:
    """The content of ``metrics.json`` of a finished run; None if it is missing, damaged or not ours."""
    try:
        metrics = read_object(output / METRICS)
    except (OSError, ValueError):
        return None
    return metrics if metrics.keys() >= _METRICS_KEYS and isinstance(metrics["inputs"], dict) else None


def record_of(folder: str | Path) -> dict[str, Any]:
    """The content of ``metrics.json`` in a model's folder; empty if that is no finished run of ours."""
    return (recorded_metrics(Path(folder)) or {}) if str(folder) else {}


def export_record(folder: str | Path) -> dict[str, Any]:
    """The content of ``export.json`` in a model's folder; empty without an export."""
    try:
        return read_object(Path(folder) / EXPORT_RECORD) if str(folder) else {}
    except (OSError, ValueError):
        return {}


def finished_run(output: Path, recipe: Recipe) -> bool:
    """Whether the folder holds a finished run of the same recipe."""
    before = _recipe_in(output)
    return recorded_metrics(output) is not None and before == recipe.settled_by(before).as_written()


def _is_run(output: Path) -> bool:
    """Whether a folder without a mark file is a run of ours: unfinished, or of an earlier version."""
    return recorded_metrics(output) is not None or _is_under_way(output)


RUN = FolderKind("run", _is_run, _MODEL_FILES, METRICS)


def _refuse_foreign(output: Path) -> None:
    """Raise RecipeError for a folder with files of others, or ``checkpoints`` of others in a run folder of ours."""
    check_output(output, replace(RUN, finished=None))
    work = output / CHECKPOINTS
    if work.is_symlink() or (work.exists() and not _is_under_way(output)):
        raise RecipeError(
            f"{work} holds files that are no run of ours, or what is left of one is damaged",
            expected=f"{INPUTS} and {RECIPE} as a run writes them, or no {CHECKPOINTS} at all",
            remedy=f"move or delete {work}, or choose another --output",
        )


def _finish_removal(output: Path) -> None:
    """Finish the clean-up of a process that was killed during it. The folder must be locked."""
    left = output / CHECKPOINTS / _DRAFT
    if recorded_metrics(output) is not None and left.is_dir() and not (left / METRICS).exists():
        discard(output / CHECKPOINTS)
    remove_drafts(output)


def _begin(output: Path, recipe: Recipe, inputs: Mapping[str, str], *, overwrite: bool) -> Path | None:
    """The checkpoint of the same run to resume from; or None, after a new ``checkpoints`` folder is written."""
    work = output / CHECKPOINTS
    if (checkpoint := last_whole(work)) is not None:
        other = [*_differences_of_recipe(output, recipe), *_differences_of_inputs(work, dict(inputs))]
        if not overwrite:
            _refuse_other(output, other)
        if not other:
            return checkpoint
    try:
        if work.exists():
            discard(work)
        draft = draft_beside(work)
        draft.mkdir()
        write_whole(draft / INPUTS, json.dumps(inputs).encode())
        write_whole(draft / RECIPE, recipe.as_yaml().encode())
        draft.rename(work)  # the folder appears with the files that identify it as ours, or not at all
        sync_folder(output)
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {system_reason(error)}", remedy="choose another --output"
        ) from error
    return None


def _is_under_way(output: Path) -> bool:
    """Whether a run of ours wrote ``checkpoints``: it holds inputs, a recipe, or a sealed checkpoint."""
    work = output / CHECKPOINTS
    try:
        names = [path.name for path in work.iterdir()]
    except OSError:
        return False
    if not all(_IN_CHECKPOINTS.fullmatch(name) for name in names):
        return False
    return bool(_inputs_in(work) or _recipe_in(work) or any(has_seal(work / name) for name in names))


def _inputs_in(work: Path) -> dict[str, str]:
    """The content of ``inputs.json``; empty if it is missing, damaged or not ours."""
    try:
        inputs = read_object(work / INPUTS)
    except (OSError, ValueError):
        return {}
    ours = inputs.keys() >= _INPUTS_KEYS and all(_HASH.fullmatch(str(inputs[name])) for name in _INPUTS_KEYS)
    return inputs if ours else {}


def _recipe_in(folder: Path) -> dict[str, Any]:
    """The resolved recipe that a run wrote; empty if it is missing, damaged or not ours."""
    try:
        recipe = load_yaml((folder / RECIPE).read_bytes())
    except (OSError, ValueError):
        return {}
    return recipe if isinstance(recipe, dict) and recipe.keys() >= _RECIPE_KEYS else {}


def _differences_of_recipe(output: Path, recipe: Recipe) -> list[str]:
    before = _recipe_in(output / CHECKPOINTS)
    return (
        shown_differences(before, recipe.settled_by(before).as_written())
        if before
        else [f"{RECIPE}: missing or damaged"]
    )


def _differences_of_inputs(work: Path, inputs: dict[str, str]) -> list[str]:
    before = _inputs_in(work)
    if not before:
        return [f"{INPUTS}: missing or damaged"]
    return shown_differences({**{name: inputs[name] for name in _NEWER & inputs.keys()}, **before}, inputs)


def _refuse_other(output: Path, other: list[str]) -> None:
    if other:
        raise RecipeError(
            f"{output} holds an unfinished run of another recipe or other inputs:\n"
            + "\n".join(f"  - {line}" for line in other),
            expected="the same recipe, teacher and data, to resume it",
            remedy="choose another --output, or give --overwrite to start again",
        )


def _existing(names: Iterable[str | Path | None]) -> Iterator[Path]:
    for name in names:
        with suppress(OSError, ValueError):  # a name that no file can have
            if name is not None and Path(name).exists():
                yield Path(name)
