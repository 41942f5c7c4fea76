"""What a training starts from, kept to start again: ``auto_find_batch_size`` tries smaller and smaller batches."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingStart:
    """The states of modules, and of an optimizer and a schedule that were handed in, and those of random numbers.

    Example: ``start = TrainingStart.of([student, projections])``, and later ``start.restore()``
    """

    parts: Sequence[Any]
    states: Sequence[dict[str, Any]]
    drawn: dict[str, Any]

    @classmethod
    def of(cls, parts: Sequence[Any]) -> TrainingStart:
        """``parts`` have ``state_dict`` and ``load_state_dict``. Weights are copied to the CPU."""
        drawn = {
            "python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }  # fmt: skip
        return cls(parts, [_copied(part) for part in parts], drawn)

    def restore(self) -> None:
        for part, state in zip(self.parts, self.states, strict=True):
            if isinstance(part, torch.optim.Optimizer):
                del part.param_groups[len(state["param_groups"]) :]  # those of projections, which were added
            # Modules copy what they load; the others would train the start itself.
            part.load_state_dict(state if isinstance(part, nn.Module) else copy.deepcopy(state))
        random.setstate(self.drawn["python"])
        np.random.set_state(self.drawn["numpy"])
        torch.random.set_rng_state(self.drawn["torch"])
        torch.cuda.set_rng_state_all(self.drawn["cuda"])


def _copied(part: Any) -> dict[str, Any]:
    if not isinstance(part, nn.Module):
        return copy.deepcopy(part.state_dict())
    state: dict[str, Tensor] = part.state_dict()
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
