"""The initial state of a training, saved so that ``auto_find_batch_size`` can restart with smaller batches."""

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
    """The states of modules, of an optimizer and schedule that the caller passed, and of the random generators.

    Example: ``start = TrainingStart.of([student, projections])``, and later ``start.restore()``
    """

    parts: Sequence[Any]
    states: Sequence[dict[str, Any]]
    drawn: dict[str, Any]

    @classmethod
    def of(cls, parts: Sequence[Any]) -> TrainingStart:
        """Save the states of ``parts``, which have ``state_dict`` and ``load_state_dict``, as copies on the CPU."""
        drawn = {
            "python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }  # fmt: skip
        return cls(parts, [_copied(part) for part in parts], drawn)

    def restore(self) -> None:
        for part, state in zip(self.parts, self.states, strict=True):
            if isinstance(part, torch.optim.Optimizer):
                del part.param_groups[len(state["param_groups"]) :]  # added for projections
            # Modules copy the state that they load. Others would go on to change the saved state itself.
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
