"""The run folder: an ordinary model folder, with the recipe, the metrics and a model card beside the weights.

While a run is under way, all of it stands in the folder's ``checkpoints``: its recipe, what it was made from, and
its checkpoints. What it ends with is written there too, and moved up file by file, the metrics last.
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

from gradistill.commands.output_folder import FolderKind, check_output, held, put_in_place
from gradistill.errors import GradistillError, RecipeError
from gradistill.io import (
    differences,
    discard,
    draft_beside,
    draft_of,
    locked,
    read_object,
    remove_drafts,
    sync_folder,
    system_reason,
    write_whole,
)
from gradistill.recipe import Recipe
from gradistill.recipe.strict_yaml import load_yaml
from gradistill.training.arguments import CHECKPOINTS
from gradistill.training.checkpoints import has_seal, last_whole
from gradistill.training.distributed import processes

RECIPE, INPUTS, METRICS, CARD = "recipe.yaml", "inputs.json", "metrics.json", "README.md"
EXPORT_RECORD = "export.json"
"""What an export records, beside its model."""
LOGS = "runs"
"""Where TensorBoard writes, in ``checkpoints`` and then in the folder itself."""
_DRAFT, _UNFINISHED_DRAFT = "finished", "finishing"
_IN_CHECKPOINTS = re.compile(
    rf"checkpoint-\d+|{RECIPE}|{INPUTS}|{_DRAFT}|{_UNFINISHED_DRAFT}|{LOGS}|"
    + draft_of(f"{RECIPE}|{INPUTS}").pattern
)
"""Names in ``checkpoints``."""
_METRICS_KEYS = {"task", "method", "seed", "student", "teacher", "timing", "versions", "inputs"}
_INPUTS_KEYS = {"student", "tokenizer", "train"}
_NEWER = {"words", "texts", "processes", "best checkpoint by", "teacher signals"}
"""What runs of earlier versions did not write down: it counts as unchanged."""
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
    """Refuse, before any work, a folder that holds anything but an unfinished run of this very recipe.

    A run without a checkpoint has nothing to lose, and any recipe may take its place. With ``overwrite`` earlier
    runs of any recipe pass, unless this one ``reads`` something in there. Raises RecipeError.
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
    """Hold a run folder, which no second process gets meanwhile, and give the checkpoint to go on from, if any.

    ``inputs`` are hashes of what the run reads: with other inputs it is another run. With ``overwrite`` an unfinished
    run of this recipe still goes on, and a finished one stands until this one has ended. Of several processes the
    first alone writes. A run that is refused before its first checkpoint leaves nothing behind. Raises RecipeError.
    """
    state = processes()
    with held(output) if state.is_main_process else nullcontext():
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
    """Put the model that ``save`` writes, the recipe, the card and the metrics in their place, each file whole, the
    metrics last; then remove the checkpoints: the folder itself is the best model. What TensorBoard logged stays."""
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
    """What ``metrics.json`` of a finished run holds; None where there is none of ours, or a damaged one."""
    try:
        found = read_object(output / METRICS)
    except (OSError, ValueError):
        return None
    return found if found.keys() >= _METRICS_KEYS and isinstance(found["inputs"], dict) else None


def record_of(folder: str | Path) -> dict[str, Any]:
    """What a model's folder records of the run that made it; nothing where it is no finished run of ours."""
    return (recorded_metrics(Path(folder)) or {}) if str(folder) else {}


def export_record(folder: str | Path) -> dict[str, Any]:
    """What an export records in the model's folder; nothing where there is none."""
    try:
        return read_object(Path(folder) / EXPORT_RECORD) if str(folder) else {}
    except (OSError, ValueError):
        return {}


def finished_run(output: Path, recipe: Recipe) -> bool:
    """Whether a run of this very recipe stands there, done."""
    before = _recipe_in(output)
    return recorded_metrics(output) is not None and before == recipe.settled_by(before).as_written()


def _is_run(output: Path) -> bool:
    """Whether we wrote a run folder that has no mark: unfinished, or of an earlier version."""
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
    """Remove what a process that was killed at its very end had begun to remove; the folder must be locked."""
    left = output / CHECKPOINTS / _DRAFT
    if recorded_metrics(output) is not None and left.is_dir() and not (left / METRICS).exists():
        discard(output / CHECKPOINTS)
    remove_drafts(output)


def _begin(output: Path, recipe: Recipe, inputs: Mapping[str, str], *, overwrite: bool) -> Path | None:
    """The checkpoint that this very run left, or None and a new beginning."""
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
        draft.rename(work)  # with the mark that it is ours, or not there
        sync_folder(output)
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {system_reason(error)}", remedy="choose another --output"
        ) from error
    return None


def _is_under_way(output: Path) -> bool:
    """Whether ``checkpoints`` is what a run of ours left: by its inputs, its recipe, or the seal of a checkpoint."""
    work = output / CHECKPOINTS
    try:
        names = [path.name for path in work.iterdir()]
    except OSError:
        return False
    if not all(_IN_CHECKPOINTS.fullmatch(name) for name in names):
        return False
    return bool(_inputs_in(work) or _recipe_in(work) or any(has_seal(work / name) for name in names))


def _inputs_in(work: Path) -> dict[str, str]:
    """What ``inputs.json`` holds; nothing where it is missing, damaged or not ours."""
    try:
        found = read_object(work / INPUTS)
    except (OSError, ValueError):
        return {}
    ours = found.keys() >= _INPUTS_KEYS and all(_HASH.fullmatch(str(found[name])) for name in _INPUTS_KEYS)
    return found if ours else {}


def _recipe_in(folder: Path) -> dict[str, Any]:
    """The resolved recipe that a run wrote; nothing where it is missing, damaged or not ours."""
    try:
        found = load_yaml((folder / RECIPE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= _RECIPE_KEYS else {}


def _differences_of_recipe(output: Path, recipe: Recipe) -> list[str]:
    before = _recipe_in(output / CHECKPOINTS)
    return (
        _differences(before, recipe.settled_by(before).as_written())
        if before
        else [f"{RECIPE}: missing or damaged"]
    )


def _differences_of_inputs(work: Path, inputs: dict[str, str]) -> list[str]:
    before = _inputs_in(work)
    if not before:
        return [f"{INPUTS}: missing or damaged"]
    return _differences({**{name: inputs[name] for name in _NEWER & inputs.keys()}, **before}, inputs)


def _refuse_other(output: Path, other: list[str]) -> None:
    if other:
        raise RecipeError(
            f"{output} holds an unfinished run of another recipe or other inputs:\n"
            + "\n".join(f"  - {line}" for line in other),
            expected="the same recipe, teacher and data, to go on with it",
            remedy="choose another --output, or give --overwrite to start again",
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [f"{path}: {there!r} there, {here!r} now" for path, there, here in differences(before, now)]


def _existing(names: Iterable[str | Path | None]) -> Iterator[Path]:
    for name in names:
        with suppress(OSError, ValueError):  # a name that no file can have
            if name is not None and Path(name).exists():
                yield Path(name)
