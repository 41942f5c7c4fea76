"""Functions whose second derivative is missing, each in its own way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Opaque(torch.autograd.Function):
    """GELU with a backward that cannot be differentiated, and says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return nn.functional.gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * slope(ctx.saved_tensors[0])


class Forgetful(Opaque):
    """GELU with a backward that loses the dependence on its input in silence."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * slope(ctx.saved_tensors[0].detach())


class Severed(Opaque):
    """GELU with a backward that loses everything in silence, as opaque kernels do."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient * slope(ctx.saved_tensors[0])).detach()


def slope(x: Tensor) -> Tensor:
    normal = torch.distributions.Normal(0.0, 1.0)
    return normal.cdf(x) + x * normal.log_prob(x).exp()
