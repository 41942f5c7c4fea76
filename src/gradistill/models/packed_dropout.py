"""Dropout at a third of its cost on the CPU.

There torch draws its random numbers one by one, each from 64 random bits. Sixteen bits decide as well: four decisions
a draw (benchmarks/kernels.py times both).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 2**16


@contextmanager
def packed_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the block the dropout modules of a model on the CPU draw sixteen bits a number.

    The rate is that of the module to 1/131072, the scale exactly that of the rate. Dropout within attention is a
    function of its own and stays as it is.
    """
    with ExitStack() as restored:
        for module in model.modules():
            if type(module) is nn.Dropout and not module.inplace and "forward" not in vars(module):
                some: Any = module
                some.forward = partial(_dropped, module)
                restored.callback(vars(module).pop, "forward")
        yield


def _dropped(module: nn.Dropout, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    dropped = round(module.p * LEVELS)
    ordinary = values.device.type != "cpu" or torch.compiler.is_compiling()
    if ordinary or not module.training or not 0 < dropped < LEVELS:
        return nn.functional.dropout(values, module.p, module.training)
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64)
    draws.random_(torch.iinfo(torch.int64).min, None)
    sixteen = draws.view(torch.int16)[: values.numel()].view(values.shape)
    kept = (sixteen >= dropped - LEVELS // 2).to(values.dtype)
    return values * kept.mul_(LEVELS / (LEVELS - dropped))
