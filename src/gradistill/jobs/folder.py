"""The run folder: an ordinary model folder, with the recipe, the metrics and a model card beside the weights.

While a run is under way, all of it stands in the folder's ``checkpoints``: its recipe, what it was made from, and
its checkpoints. What it ends with is written there too, and moved up file by file, the metrics last.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import yaml

from gradistill.errors import RecipeError
from gradistill.recipe import Recipe
from gradistill.signals.files import draft_of, sync_folder, write_whole
from gradistill.training.arguments import CHECKPOINTS
from gradistill.training.checkpoints import last_whole, synced
from gradistill.training.processes import processes

RECIPE, INPUTS, METRICS, CARD = "recipe.yaml", "inputs.json", "metrics.json", "README.md"
_DRAFT = "finished"
_DYING = 2.0
"""Seconds that a killed process may take to let go of its files."""
_OF_A_RUN = re.compile(rf"checkpoint-\d+|\.?({RECIPE}|{INPUTS})(\.\d+)?|{_DRAFT}")


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
    _refuse_occupied(output, overwrite=overwrite)
    if not overwrite and last_whole(output / CHECKPOINTS) is not None:
        _refuse_other(output, _other_recipe(output, recipe))


def _refuse_occupied(output: Path, *, overwrite: bool) -> None:
    """By files that are no run of ours, or by a finished run that nobody asked to replace."""
    if output.exists() and not output.is_dir():
        raise RecipeError(
            f"{output} is a file", expected="a folder for the run", remedy="choose another --output"
        )
    present = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if present and RECIPE not in present and not _under_way(output):
        raise RecipeError(
            f"{output} holds files that are no run of ours: {', '.join(present[:5])}",
            expected="a new or empty folder, or a run to go on with",
            remedy="choose another --output",
        )
    if METRICS in present and not overwrite:
        raise RecipeError(
            f"{output} holds a finished run",
            expected="a new folder",
            remedy="choose another --output, or give --overwrite to replace it",
        )


@contextmanager
def opened_run(
    output: Path, recipe: Recipe, inputs: Mapping[str, str], *, overwrite: bool
) -> Iterator[str | None]:
    """Hold a run folder, which no second process gets meanwhile, and give the checkpoint to go on from, if any.

    ``inputs`` are hashes of what the run reads: with other inputs it is another run. With ``overwrite`` an unfinished
    run of this recipe still goes on, and a finished one stands until this one has ended. Of several processes the
    first alone writes. Raises RecipeError.
    """
    state = processes()
    with held(output) if state.is_main_process else nullcontext():
        checkpoint = None
        if state.is_main_process:
            _refuse_occupied(output, overwrite=overwrite)
            checkpoint = _begin(output, recipe, inputs, overwrite=overwrite)
        state.wait_for_everyone()
        if not state.is_main_process:
            checkpoint = last_whole(output / CHECKPOINTS)
        yield str(checkpoint) if checkpoint else None


def close_run(
    output: Path, save: Callable[[Path], object], recipe: Recipe, metrics: Mapping[str, Any], card: str
) -> None:
    """Put the model that ``save`` writes, the recipe, the card and the metrics in their place, each file whole, the
    metrics last; then remove the checkpoints: the folder itself is the best model."""
    draft = output / CHECKPOINTS / _DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save(draft)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    for name, content in ((RECIPE, recipe.as_yaml()), (CARD, card), (METRICS, text)):
        (draft / name).write_text(content, encoding="utf-8")
    synced(draft)
    (output / METRICS).unlink(missing_ok=True)  # of a run that is replaced
    for file in sorted(draft.iterdir(), key=lambda file: file.name == METRICS):
        place = output / file.name
        if place.is_dir():
            shutil.rmtree(place)
        file.replace(place)
    sync_folder(output)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)


def _begin(output: Path, recipe: Recipe, inputs: Mapping[str, str], *, overwrite: bool) -> Path | None:
    """The checkpoint that this very run left, or None and a new beginning."""
    work = output / CHECKPOINTS
    if (checkpoint := last_whole(work)) is not None:
        before = json.loads((work / INPUTS).read_text(encoding="utf-8"))
        other = [*_other_recipe(output, recipe), *_differences(before, dict(inputs), "")]
        if not overwrite:
            _refuse_other(output, other)
        if not other:
            return checkpoint
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        write_whole(work / INPUTS, json.dumps(inputs).encode())
        write_whole(work / RECIPE, recipe.as_yaml().encode())
    except OSError as error:
        raise _unwritable(output, error) from error
    return None


def refuse_foreign(output: Path, mark: str, kind: str) -> None:
    """Raise RecipeError for a folder that holds files, and not the one that marks it as a ``kind`` of ours."""
    begun = draft_of(re.escape(mark))  # one that was killed in its very first write
    present = sorted(path.name for path in output.iterdir() if not begun.fullmatch(path.name))
    if present and mark not in present:
        raise RecipeError(
            f"{output} holds {present[0]}, and is no {kind}",
            expected=f"a new or empty folder, or a {kind} to go on with",
            remedy="choose another --output",
        )


@contextmanager
def held(output: Path) -> Iterator[None]:
    """A lock on the folder itself, which leaves no file behind; a process that dies lets go of it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = os.open(output, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        if not _locked(folder):
            raise RecipeError(
                f"another process is at work in {output}", remedy="wait for it, or choose another --output"
            )
        yield
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    """Whether the lock could be had: a process that was killed lets go of it a moment after it has died."""
    until = monotonic() + _DYING
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if monotonic() > until:
                return False
            sleep(0.05)
        except OSError:
            return True  # a file system without locks


def finished_run(output: Path, recipe: Recipe) -> bool:
    """Whether a run of this very recipe stands there, done."""
    if not ((output / METRICS).is_file() and (output / RECIPE).is_file()):
        return False
    before = yaml.safe_load((output / RECIPE).read_text(encoding="utf-8"))
    return before == recipe.with_length_of(before).as_dict()


def _under_way(output: Path) -> bool:
    """Whether it holds a run's checkpoints, of which a run that was just begun may have none, nor a recipe yet."""
    work = output / CHECKPOINTS
    return work.is_dir() and all(_OF_A_RUN.fullmatch(path.name) for path in work.iterdir())


def _other_recipe(output: Path, recipe: Recipe) -> list[str]:
    before = yaml.safe_load((output / CHECKPOINTS / RECIPE).read_text(encoding="utf-8"))
    return _differences(before, yaml.safe_load(recipe.with_length_of(before).as_yaml()), "")


def _refuse_other(output: Path, other: list[str]) -> None:
    if other:
        raise RecipeError(
            f"{output} holds an unfinished run of another recipe or other inputs:\n"
            + "\n".join(f"  - {line}" for line in other),
            expected="the same recipe, teacher and data, to go on with it",
            remedy="choose another --output, or give --overwrite to start again",
        )


def _differences(before: Any, now: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [d for k in keys for d in _differences(before.get(k), now.get(k), f"{path}.{k}".lstrip("."))]
    return [] if before == now else [f"{path}: {before!r} there, {now!r} now"]


def _unwritable(output: Path, error: OSError) -> RecipeError:
    return RecipeError(f"{output} cannot be written: {error.strerror}", remedy="choose another --output")
