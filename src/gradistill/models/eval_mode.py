"""Eval mode inside a block: no training, no dropout, and the model is restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradistill.models.tracing import evaluating


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients of parameters inside the block. Modules and parameters are restored after it.

    Derivatives with respect to inputs then keep no graph for the weights.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with evaluating(model):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
