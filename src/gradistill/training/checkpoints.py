"""Checkpoints that are complete or absent, and the Trainer callback that ensures it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from time import monotonic
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from gradistill.errors import TrainingError
from gradistill.io import checksum_of, discard, read_object, synced, write_whole
from gradistill.training.distributed import process_state

SEAL = "whole.json"
"""Names and checksums of a checkpoint's files. It is written last, so a checkpoint that has it is complete."""

_PREFIX = "checkpoint-"


class Sealing(TrainerCallback):
    """Seals each checkpoint that the Trainer saves, and only then removes older ones, except the best.

    After ``minutes`` without a checkpoint it requests one, so that a run can resume within a long epoch.
    """

    def __init__(self, *, kept: int | None = 1, minutes: float | None = None) -> None:
        self.kept, self.minutes = kept, minutes
        self._saved_at = monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Remove half-written checkpoints, and those newer than the step that training resumes from (left by an attempt
        with larger batches, ``auto_find_batch_size``). An early stop stays in force.

        Raises TrainingError if the best checkpoint, which is loaded at the end, is missing."""
        folder = Path(str(args.output_dir))
        if process_state().is_main_process:
            remove_unsealed(folder)
            for newer in _newest_first(folder):
                if int(newer.name.removeprefix(_PREFIX)) > state.global_step:
                    discard(newer)
        if state.best_global_step:
            self._find_best(folder, args, state)
        self._saved_at = monotonic()
        if state.global_step:
            saved: Any = state.stateful_callbacks or {}
            flags = saved.get(TrainerControl.__name__, {}).get("args", {})
            control.should_training_stop |= bool(flags.get("should_training_stop"))
        return control

    def _find_best(self, folder: Path, args: TrainingArguments, state: TrainerState) -> None:
        """Update the path of the best checkpoint: the folder may have been moved since the path was saved."""
        best = folder / f"{_PREFIX}{state.best_global_step}"
        state.best_model_checkpoint = str(best) if _whole(best) else None
        if args.load_best_model_at_end and state.best_model_checkpoint is None:
            raise TrainingError(
                f"{best}, the best checkpoint so far, is missing or damaged",
                expected="the best checkpoint, from which the run takes its final weights",
                remedy="put it back, or give --overwrite to start again",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.minutes is not None and args.world_size == 1 and args.save_strategy != "no":
            control.should_save |= monotonic() - self._saved_at >= 60 * self.minutes
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        process_state().wait_for_everyone()
        if process_state().is_main_process:
            folder = Path(str(args.output_dir))
            seal(folder / f"{_PREFIX}{state.global_step}")
            best = Path(state.best_model_checkpoint).name if state.best_model_checkpoint else None
            present = _newest_first(folder)
            for old in present[self.kept or len(present) :]:
                if old.name != best:
                    discard(old)
        self._saved_at = monotonic()


def seal(checkpoint: Path) -> None:
    """Write the checksums of a checkpoint's files. The Trainer's pickle of its arguments is deleted: nothing reads it,
    and it holds secrets that a written recipe leaves out (tokens, passwords)."""
    (checkpoint / TRAINING_ARGS_NAME).unlink(missing_ok=True)
    synced(checkpoint)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path != checkpoint / SEAL]
    sums = {file.relative_to(checkpoint).as_posix(): checksum_of(file) for file in files}
    write_whole(checkpoint / SEAL, json.dumps(sums, indent=1).encode())


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is sealed and unchanged since, or None."""
    return next((checkpoint for checkpoint in _newest_first(folder) if _whole(checkpoint)), None)


def remove_unsealed(folder: Path) -> None:
    for checkpoint in _newest_first(folder):
        if not _whole(checkpoint):
            shutil.rmtree(checkpoint)


def _newest_first(folder: Path) -> list[Path]:
    numbered = {
        int(path.name.removeprefix(_PREFIX)): path
        for path in folder.glob(f"{_PREFIX}*")
        if path.name.removeprefix(_PREFIX).isdecimal() and path.is_dir()
    }
    return [numbered[step] for step in sorted(numbered, reverse=True)]


def has_seal(checkpoint: Path) -> bool:
    """Whether a folder has a seal that parses. Its files are not checked."""
    return bool(_sums(checkpoint))


def _whole(checkpoint: Path) -> bool:
    sums = _sums(checkpoint)
    try:
        return bool(sums) and all(
            checksum_of(checkpoint / name) == checksum for name, checksum in sums.items()
        )
    except (OSError, ValueError):
        return False


def _sums(checkpoint: Path) -> dict[str, str]:
    try:
        sums = read_object(checkpoint / SEAL)
    except (OSError, ValueError):
        return {}
    return sums if all(isinstance(checksum, str) for checksum in sums.values()) else {}
