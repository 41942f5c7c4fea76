"""Run a Trainer: a failure becomes one message, and what it has saved is complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from time import perf_counter
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import ExportableState

from gradistill.commands.training_progress import TrainingProgress
from gradistill.errors import TrainingError, first_line, is_out_of_memory
from gradistill.io import reason_of_the_disk
from gradistill.models.loading import without_file_bars
from gradistill.printing import progress_shown
from gradistill.training.checkpoints import last_whole, remove_unsealed

logger = logging.getLogger(__name__)


class Stopwatch(TrainerCallback, ExportableState):
    """Measures the seconds of training so far. Checkpoints store them, so earlier processes count too."""

    def __init__(self, earlier: float = 0.0) -> None:
        self._earlier, self._start = earlier, perf_counter()

    @property
    def seconds(self) -> float:
        return self._earlier + perf_counter() - self._start

    def state(self) -> dict[str, Any]:
        """The state that the Trainer writes into a checkpoint, and creates a new stopwatch from on resume."""
        return {"args": {"earlier": self.seconds}, "attributes": {}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        states: Any = state.stateful_callbacks
        states.setdefault(Stopwatch.__name__, self.state())  # a checkpoint of an earlier version has none


def trained(trainer: Trainer, checkpoint: str | None) -> float:
    """Train, from ``checkpoint`` if it is given; returns the seconds, including those before the checkpoint.

    Raises TrainingError if the memory is too small.
    """
    for bars in (DEFAULT_PROGRESS_CALLBACK, ProgressCallback, PrinterCallback):
        trainer.remove_callback(bars)
    progress = TrainingProgress()
    if progress_shown():
        trainer.add_callback(progress)
    trainer.add_callback(Stopwatch())
    try:
        with without_file_bars():
            trainer.train(resume_from_checkpoint=checkpoint)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        rows, device = trainer.args.per_device_train_batch_size, trainer.args.device
        raise TrainingError(
            f"the memory of {device} is too small for steps of {rows} rows: {first_line(error)}",
            expected="steps that fit the memory",
            remedy="lower training.batch_size, shorten texts with training.max_length, or let smaller batches be "
            "tried one after another: --set training.arguments.auto_find_batch_size=true",
        ) from error
    finally:
        progress.close()
    callbacks = trainer.callback_handler.callbacks
    seconds = next(callback.seconds for callback in callbacks if isinstance(callback, Stopwatch))
    logger.debug(f"trained to step {trainer.state.global_step} in {seconds:.1f} s")
    return seconds


@contextmanager
def reporting_disk_errors(checkpoints: Path) -> Iterator[None]:
    """Raise TrainingError if any library fails to write to the disk inside the block. Complete checkpoints are kept,
    half-written ones are removed."""
    try:
        yield
    except Exception as error:
        reason = reason_of_the_disk(error)
        if reason is None:
            raise
        remove_unsealed(checkpoints)
        whole = last_whole(checkpoints)
        raise TrainingError(
            f"{checkpoints.parent} cannot be written: {reason}",
            expected="free space on the disk, and permission to write",
            remedy="free space or change permissions, then give the same command again; "
            + (f"it resumes from {whole.name}" if whole else "nothing had been saved before"),
        ) from error


def saving(model: Any, tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], None]:
    """A function that writes a model and its tokenizer into a folder. Trainer.save_model is not used: it adds a pickle
    of the arguments, which recipe.yaml holds."""

    def save(folder: Path) -> None:
        with without_file_bars():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        # safetensors 0.8 makes the files readable by their owner only (its issue 782): nobody else could serve them.
        mode = S_IMODE((folder / "config.json").stat().st_mode)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(mode)

    return save
