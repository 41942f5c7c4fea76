"""Weight averaging: the student's final weights are their mean over the last part of training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradistill.errors import TrainingError

FILE = "weight_average.safetensors"
"""File of a checkpoint with the mean so far and its number of steps."""

logger = logging.getLogger(__name__)


class WeightAverage(TrainerCallback):
    """A callback for ``DistillationTrainer``: the student's final weights are their mean over the last steps.

    The last ``share`` of all optimizer steps (at least one step) have equal weight (stochastic weight averaging,
    Izmailov et al. 2018, arXiv 1803.05407). The learning rate follows its schedule in the averaged part too. Weights
    that are not trained do not change. The mean is held in float32 or wider.

    Evaluations during training and checkpoints use the current weights, from which training resumes. A checkpoint has
    the mean in a separate file. Training that stops early ends with the mean so far; if it stops before the averaged
    part, with the last weights and a warning.

    Raises TrainingError for a share outside (0, 1], with ``load_best_model_at_end``, which would choose other weights,
    and for a checkpoint that lacks the mean.

    Example: ``DistillationTrainer(student, args, …, callbacks=[WeightAverage(1 / 3)])``
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise TrainingError(
                f"WeightAverage has the share {share!r}",
                expected="more than 0, and 1 at most",
                remedy="correct it",
            )
        self.share = share
        self._reset()

    def _reset(self) -> None:
        self._mean: dict[str, Tensor] = {}
        self._steps = 0

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.load_best_model_at_end:
            raise TrainingError(
                "TrainingArguments.load_best_model_at_end is True with a WeightAverage",
                expected="one of the two: the student ends as the best checkpoint, or as the mean of the last weights",
                remedy="set load_best_model_at_end=False, or leave the average out",
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        self.on_init_end(args, state, control, **rest)  # a callback may be added later
        if state.global_step == 0:
            self._reset()
        missing = max(0, state.global_step - self._before(state)) - self._steps
        if missing:
            raise TrainingError(
                f"the checkpoint of step {state.global_step} holds the mean of the weights of {self._steps} steps",
                expected=f"the mean of {self._steps + missing} steps: {self.share:.0%} of {state.max_steps} steps",
                remedy="start again without this checkpoint, or with the settings that it was written with",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        if state.global_step > self._before(state):
            self._add(rest["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        if not self._steps:
            logger.warning(
                f"training stopped at step {state.global_step}, and weights are averaged after step "
                f"{self._before(state)}: the student has its last weights, not an average"
            )
        weights = dict(rest["model"].named_parameters())
        for name, mean in self._mean.items():
            weights[name].data.copy_(mean)

    def save(self, checkpoint: Path) -> None:
        """Write the mean so far into a checkpoint; write nothing before the averaged part."""
        if self._steps:
            mean = {name: tensor.cpu().contiguous() for name, tensor in self._mean.items()}
            save_file(mean, checkpoint / FILE, metadata={"steps": str(self._steps)})

    def load(self, checkpoint: Path) -> None:
        """Read the mean from a checkpoint. ``on_train_begin`` refuses a checkpoint that lacks it."""
        self._reset()
        if (checkpoint / FILE).is_file():
            with safe_open(checkpoint / FILE, "pt") as file:
                self._mean = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                self._steps = int(file.metadata()["steps"])

    def _before(self, state: TrainerState) -> int:
        """The number of steps before the averaged part."""
        return state.max_steps - max(1, round(self.share * state.max_steps))

    def _add(self, student: nn.Module) -> None:
        trained = {name: p.detach() for name, p in student.named_parameters() if p.requires_grad}
        wide = {name: p.to(torch.promote_types(p.dtype, torch.float32)) for name, p in trained.items()}
        if self._steps:
            self._mean = {name: self._mean[name].to(p.device) for name, p in wide.items()}
            get_swa_multi_avg_fn()(list(self._mean.values()), list(wide.values()), self._steps)
        else:
            self._mean = {name: p.clone() for name, p in wide.items()}
        self._steps += 1
