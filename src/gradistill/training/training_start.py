"""What a training starts from, kept to start again: ``auto_find_batch_size`` tries smaller and smaller batches."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingStart:
    """The weights of student and projections, the state of an optimizer that was handed in, and of random numbers.

    Example: ``TrainingStart.of(student, projections, None).restore(student, projections, None)``
    """

    student: dict[str, Tensor]
    projections: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    random: tuple[Tensor, list[Tensor]]

    @classmethod
    def of(cls, student: nn.Module, projections: nn.Module, optimizer: Any) -> TrainingStart:
        """Copied to the CPU; ``optimizer`` is None where the Trainer is to make one."""
        return cls(
            _copied(student),
            _copied(projections),
            None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
            (torch.random.get_rng_state(), torch.cuda.get_rng_state_all()),
        )

    def restore(self, student: nn.Module, projections: nn.Module, optimizer: Any) -> None:
        student.load_state_dict(self.student)
        projections.load_state_dict(self.projections)
        if self.optimizer is not None:
            optimizer.load_state_dict(self.optimizer)
        torch.random.set_rng_state(self.random[0])
        torch.cuda.set_rng_state_all(self.random[1])


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}
