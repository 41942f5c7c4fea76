"""The processes that torchrun or ``accelerate launch`` started, or the single process."""

from __future__ import annotations

import gc

import torch
from accelerate import PartialState
from torch import distributed


def process_state() -> PartialState:
    """Accelerate's state of the processes. ``cpu`` is set without an accelerator: by default, accelerate ignores other
    processes on a CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())


def leave_process_group() -> None:
    """Destroy the process group, if there is one, while the interpreter still runs.

    Threads of a process group that are alive when the interpreter exits may abort the process ("terminate called
    without an active exception") after all of its work is done. Reference cycles of a trainer keep the group alive, so
    they are collected first.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
