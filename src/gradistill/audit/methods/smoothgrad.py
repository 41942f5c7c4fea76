"""SmoothGrad (Smilkov et al. 2017): the gradient, averaged over noise around the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.errors import RecipeError
from gradistill.signals.hearing import Heard


@dataclass(frozen=True)
class SmoothGrad:
    """``‖mean of ∇_{E_i} F(E + noise)‖₂`` over ``samples``; the noise is a share of the row's range, as in the paper.

    It comes from a fixed seed, the same for every batch.
    """

    name: ClassVar[str] = "smoothgrad"
    title: ClassVar[str] = "SmoothGrad"
    source: ClassVar[str] = "Smilkov et al. 2017, arXiv 1706.03825"

    samples: int = 25
    noise: float = 0.15

    def __post_init__(self) -> None:
        if self.samples < 1 or self.noise < 0:
            raise RecipeError(
                f"SmoothGrad with {self.samples} samples and noise {self.noise}",
                expected="1 sample or more, noise 0 or more",
                remedy="25 samples and 0.15 are the paper's",
            )

    def __call__(self, heard: Heard) -> Float[Tensor, "batch token"]:
        embedding, mask = heard.embedding, heard.batch.mask.unsqueeze(-1)
        low = embedding.masked_fill(~mask, torch.inf).amin((1, 2), keepdim=True)
        high = embedding.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
        every = torch.arange(len(embedding), device=embedding.device)
        total = torch.zeros_like(embedding)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.samples):
            drawn = torch.randn(embedding.shape[1:], generator=generator).to(embedding)
            total += heard.gradient_at(embedding + self.noise * (high - low) * drawn, every)
        return (total / self.samples).norm(dim=-1)
