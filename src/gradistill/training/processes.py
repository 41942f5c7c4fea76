"""The processes that torchrun or ``accelerate launch`` started, or this one alone."""

from __future__ import annotations

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """What accelerate knows of them, with or without an accelerator: unasked it takes no notice of others on a CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())
