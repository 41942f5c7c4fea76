"""Progress of a training run: a live bar in a terminal, and a plain line for each evaluation."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradistill.printing import SECONDS_BETWEEN_LINES, clock, progress_bars

logger = logging.getLogger(__name__)

_TERM = "weighted/"


class TrainingProgress(TrainerCallback):
    """Replaces the bars and dictionaries of ``Trainer``.

    In a terminal a bar shows epoch, rows a second and the time left, with the loss, its terms and the learning rate
    below. Every evaluation writes a line, or every epoch of a run without evaluations. Without a terminal a line is
    also written every minute. ``close`` ends the bar in any case.
    """

    def __init__(self) -> None:
        self._bars: Any = None
        self._training: Any = None
        self._evaluating: Any = None
        self._begun = self._line = self._since = self._paused = 0.0
        self._first = 0
        self._logged: dict[str, float] = {}
        self._logged_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
        )
        self._bars = progress_bars(*columns, note=self._note, lines=False)
        self._bars.start()
        self._begun = self._line = perf_counter()
        self._first, self._paused, self._logged = state.global_step, 0.0, {}
        self._training = self._bars.add_task(
            self._epoch(state), total=state.max_steps, completed=state.global_step, speed=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bars is None:
            return
        speed, left = self._pace(args, state)
        self._bars.update(
            self._training,
            completed=state.global_step,
            description=self._epoch(state),
            speed=f"{speed}, {left}",
        )
        alone = not self._bars.console.is_terminal
        if alone and perf_counter() - self._line >= SECONDS_BETWEEN_LINES:
            self._write(f"{self._epoch(state)}, step {state.global_step} of {state.max_steps}", speed, left)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._logged = {name: float(value) for name, value in logs.items()}
            self._logged_at = state.epoch or 0.0
            logger.debug(f"step {state.global_step}: {self._note()}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        loader = given.get("eval_dataloader")
        if self._bars is None or loader is None:
            return
        if self._evaluating is None:
            self._since = perf_counter()
            self._evaluating = self._bars.add_task("evaluating", total=len(loader), speed="")
        self._bars.advance(self._evaluating)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self._bars is None:
            return
        if self._evaluating is not None:
            self._bars.remove_task(self._evaluating)
            self._evaluating = None
            self._paused += perf_counter() - self._since
        figures = [
            f"{name.removeprefix('eval_')} {value:.3f}"
            for name, value in (metrics or {}).items()
            if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second", "_loss"))
        ]
        self._write_epoch(args, state, *figures)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._bars is not None and args.eval_strategy == "no":
            self._write_epoch(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the bar. Also for a run that was interrupted."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _write_epoch(self, args: TrainingArguments, state: TrainerState, *figures: str) -> None:
        """Write the line of an epoch, without a loss if none was logged in it: short epochs may have no log."""
        anew = self._logged_at > (state.epoch or 0.0) - 1 + 1e-6
        self._write(self._epoch(state), *figures, self._pace(args, state)[0], loss=anew)

    def _write(self, where: str, *what: str, loss: bool = True) -> None:
        losses = [f"loss {self._logged['loss']:.3f}"] if loss and "loss" in self._logged else []
        logger.info(f"{where}: {', '.join([*what[:-1], *losses, what[-1]])}")
        self._line = perf_counter()

    def _epoch(self, state: TrainerState) -> str:
        done = state.epoch or 0.0
        whole = f"{done:.0f}" if abs(done - round(done)) < 0.005 else f"{done:.2f}"
        return f"epoch {whole} of {state.num_train_epochs:g}"

    def _pace(self, args: TrainingArguments, state: TrainerState) -> tuple[str, str]:
        """Rows a second while training, and the time left, both since this process began."""
        steps = state.global_step - self._first
        seconds = max(perf_counter() - self._begun - self._paused, 1e-9)
        if not steps:
            return "", ""
        rows = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        left = (state.max_steps - state.global_step) * (perf_counter() - self._begun) / steps
        return f"{rows / seconds:,.0f} rows/s", f"{clock(left)} left"

    def _note(self) -> str:
        """The last logged loss, its weighted terms, and the learning rate."""
        if not self._logged:
            return ""
        terms = {name.removeprefix(_TERM): v for name, v in self._logged.items() if name.startswith(_TERM)}
        parts = f" = {' + '.join(f'{name} {value:.3f}' for name, value in terms.items())}" if terms else ""
        rate = (
            f", learning rate {self._logged['learning_rate']:.1e}" if "learning_rate" in self._logged else ""
        )
        return f"loss {self._logged['loss']:.3f}{parts}{rate}"
