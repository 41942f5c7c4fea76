"""The mean of the student's weights over the last part of training, which takes their place at the end."""

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
"""Of a checkpoint: the mean so far, and of how many steps."""

logger = logging.getLogger(__name__)


class WeightAverage(TrainerCallback):
    """A callback for ``DistillationTrainer``: the student ends as the mean of its weights over the last steps.

    Each of the last ``share`` of all optimizer steps counts the same, and at least the last one does (stochastic weight
    averaging, Izmailov et al. 2018, arXiv 1803.05407; the learning rate follows its schedule, there is no other one for
    the averaged part). Weights that are not trained stay as they are. The mean is held in float32 at least.

    Evaluations while the student trains are of its current weights, and so are the weights of checkpoints: training
    goes on from them. The mean stands in a file beside them. Training that stops early ends with the mean so far;
    before the averaged part begins, with the weights as they are and a warning.

    Raises TrainingError for a share that is none, beside ``load_best_model_at_end``, which would choose other weights,
    and for a checkpoint that does not hold the mean.

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
                "TrainingArguments.load_best_model_at_end is True beside a WeightAverage",
                expected="one of them: the student ends as the best checkpoint, or as the mean of the last ones",
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
                expected=f"of {self._steps + missing}: {self.share:.0%} of {state.max_steps} steps are averaged",
                remedy="start again without this checkpoint, or with the settings that it was made with",
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
                f"{self._before(state)}: the student has its last weights, and no average"
            )
        weights = dict(rest["model"].named_parameters())
        for name, mean in self._mean.items():
            weights[name].data.copy_(mean)

    def save(self, checkpoint: Path) -> None:
        """Write the mean so far into a checkpoint; nothing before the averaged part."""
        if self._steps:
            mean = {name: tensor.cpu().contiguous() for name, tensor in self._mean.items()}
            save_file(mean, checkpoint / FILE, metadata={"steps": str(self._steps)})

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint. ``on_train_begin`` refuses one that lacks the mean."""
        self._reset()
        if (checkpoint / FILE).is_file():
            with safe_open(checkpoint / FILE, "pt") as file:
                self._mean = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                self._steps = int(file.metadata()["steps"])

    def _before(self, state: TrainerState) -> int:
        """How many steps pass before the averaged ones."""
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
