"""The bar and the lines of a run that trains."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from gradistill import printing
from gradistill.commands import training_progress
from gradistill.commands.training_progress import TrainingProgress

CONTROL = TrainerControl()


def arguments(tmp_path: Any, **given: Any) -> TrainingArguments:
    return TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none", **given
    )


def run(progress: TrainingProgress, args: TrainingArguments, *, epochs: int = 2, steps: int = 3) -> None:
    """The calls that a Trainer makes."""
    state = TrainerState(max_steps=epochs * steps, num_train_epochs=epochs)
    progress.on_train_begin(args, state, CONTROL)
    for epoch in range(1, epochs + 1):
        for step in range(1, steps + 1):
            state.global_step += 1
            state.epoch = epoch - 1 + step / steps
            progress.on_step_end(args, state, CONTROL)
            logs = {"loss": "0.50", "weighted/soft_label": 0.3, "raw/soft_label": 0.3, "learning_rate": 1e-4}
            progress.on_log(args, state, CONTROL, logs)
        progress.on_epoch_end(args, state, CONTROL)
        if args.eval_strategy != "no":
            for _ in range(2):
                progress.on_prediction_step(args, state, CONTROL, eval_dataloader=[0, 0])
            progress.on_evaluate(
                args, state, CONTROL, {"eval_f1": 0.75, "eval_loss": 0.5, "eval_runtime": 3.0}
            )
    progress.on_train_end(args, state, CONTROL)


@pytest.mark.parametrize("strategy", ["epoch", "no"])
def test_each_epoch_leaves_one_line(strategy: str, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gradistill"):
        run(TrainingProgress(), arguments(tmp_path, eval_strategy=strategy))
    metric = "f1 0.750, " if strategy == "epoch" else ""
    assert len(caplog.messages) == 2
    for number, line in enumerate(caplog.messages, start=1):
        assert re.fullmatch(rf"epoch {number} of 2: {metric}loss 0\.500, [\d,]+ rows/s", line)


def test_a_loss_of_an_earlier_epoch_is_not_shown_again(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An epoch may be shorter than the steps between two logs: its line had the loss of the one before."""
    progress, args = TrainingProgress(), arguments(tmp_path, eval_strategy="no")
    state = TrainerState(max_steps=3, num_train_epochs=3)
    with caplog.at_level(logging.INFO, logger="gradistill"):
        progress.on_train_begin(args, state, CONTROL)
        for epoch in (1, 2, 3):
            state.global_step = state.epoch = epoch
            progress.on_step_end(args, state, CONTROL)
            if epoch == 2:
                progress.on_log(args, state, CONTROL, {"loss": 0.5})
            progress.on_epoch_end(args, state, CONTROL)
        progress.on_train_end(args, state, CONTROL)
    assert ["loss" in line for line in caplog.messages] == [False, True, False]


def test_without_a_terminal_a_line_comes_from_time_to_time(
    tmp_path: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, logger="gradistill"):
        run(TrainingProgress(), arguments(tmp_path))
    steps = [line for line in caplog.messages if "step" in line]
    assert len(steps) == 6
    assert re.fullmatch(r"epoch 1\.33 of 2, step 4 of 6: [\d,]+ rows/s, loss 0\.500, 0:00:00 left", steps[3])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_has_a_bar_with_the_terms_below(
    width: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(printing, "_console", lambda error: console)
    progress = TrainingProgress()
    run(progress, arguments(tmp_path, eval_strategy="epoch"))
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue()))
    assert max(map(len, lines)) <= width
    assert (
        any("loss 0.500 = soft_label 0.300, learning rate 1.0e-04" in line for line in lines) or width == 60
    )
    assert progress._bars is None


def test_an_interrupted_run_has_no_bar_left(tmp_path: Any) -> None:
    progress = TrainingProgress()
    progress.on_train_begin(arguments(tmp_path), TrainerState(max_steps=3, num_train_epochs=1), CONTROL)
    progress.close()
    progress.close()
    assert progress._bars is None
