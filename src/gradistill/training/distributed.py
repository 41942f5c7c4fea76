"""The processes that torchrun or ``accelerate launch`` started, or this one alone."""

from __future__ import annotations

import gc

import torch
from accelerate import PartialState
from torch import distributed


def processes() -> PartialState:
    """What accelerate knows of them, with or without an accelerator: by default, CPU runs ignore other processes."""
    return PartialState(cpu=not torch.accelerator.is_available())


def leave_the_others() -> None:
    """Part from the other processes while Python still runs; nothing where there are none.

    Threads of a process group that live on into the end of the interpreter may abort the process ("terminate called
    without an active exception") after all of its work is done. A trainer's reference cycles hold the group: they go
    first.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
