"""A trainer at work: what stops it is one message, and what it has saved is whole."""

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
    """The seconds that the steps so far have taken, those of earlier processes too: checkpoints hold them."""

    def __init__(self, earlier: float = 0.0) -> None:
        self._earlier, self._start = earlier, perf_counter()

    @property
    def seconds(self) -> float:
        return self._earlier + perf_counter() - self._start

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into a checkpoint, and makes a new stopwatch of when it goes on from there."""
        return {"args": {"earlier": self.seconds}, "attributes": {}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        held: Any = state.stateful_callbacks
        held.setdefault(Stopwatch.__name__, self.state())  # a checkpoint of an earlier version has none


def trained(trainer: Trainer, checkpoint: str | None) -> float:
    """Train, from a checkpoint if there is one; returns the seconds, with those before the checkpoint.

    Raises TrainingError without enough memory.
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
    """Raises TrainingError where something inside the block cannot be written, by whatever library; the whole
    checkpoints stand, and what was half-written goes."""
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
            expected="room on the disk, and leave to write",
            remedy="see to it and give the same command again; "
            + (f"it goes on from {whole.name}" if whole else "nothing had been saved before"),
        ) from error


def saving(model: Any, tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], None]:
    """What writes a model and its tokenizer into a folder. Not Trainer.save_model: it adds a pickle of the
    arguments, which recipe.yaml holds."""

    def save(folder: Path) -> None:
        with without_file_bars():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        # safetensors 0.8 writes them for their owner alone (its issue 782): nobody else could serve the model.
        mode = S_IMODE((folder / "config.json").stat().st_mode)
        for weights in folder.glob("*.safetensors"):
            weights.chmod(mode)

    return save
