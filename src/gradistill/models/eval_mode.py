"""Eval mode for a while: nothing of a model is trained, dropped or left changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from gradistill.models.tracing import evaluating


@contextmanager
def frozen_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients of parameters inside the block; every module and parameter as before behind it.

    What is differentiated with respect to inputs then keeps no graph for the weights.
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
