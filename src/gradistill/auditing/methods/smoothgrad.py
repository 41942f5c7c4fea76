"""SmoothGrad (Smilkov et al. 2017): the gradient, averaged over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.errors import check_number, check_whole_numbers
from gradistill.signals.explained import EXPLAINED_TARGET
from gradistill.signals.forward_pass import ForwardPass


@dataclass(frozen=True)
class SmoothGrad:
    """``‖mean of ∇_{E_i} F(E + noise)‖₂`` over ``samples``. ``noise`` is a share of the row's range, as in the paper.

    Draws depend on the row's token ids and on ``seed`` alone, not on other rows of the batch, nor on padding.
    """

    name: ClassVar[str] = "smoothgrad"
    title: ClassVar[str] = "SmoothGrad"
    source: ClassVar[str] = "Smilkov et al. 2017, arXiv 1706.03825"

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole_numbers(self, samples=1, seed=0)
        check_number(self, "noise", least=0.0)

    def __call__(self, forward: ForwardPass) -> Float[Tensor, "batch token"]:
        embedding, mask = forward.embedding, forward.batch.mask.unsqueeze(-1)
        path = forward.path(EXPLAINED_TARGET)
        low = embedding.masked_fill(~mask, torch.inf).amin((1, 2), keepdim=True)
        high = embedding.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
        total = torch.zeros_like(embedding)
        generators = [self._generator(row) for row in _token_ids(forward)]
        for _ in range(self.samples):
            drawn = torch.zeros(embedding.shape)
            for row, real, generator in zip(drawn, forward.batch.mask.cpu(), generators, strict=True):
                row[real] = torch.randn(int(real.sum()), embedding.shape[-1], generator=generator)
            noisy = embedding + self.noise * (high - low) * drawn.to(embedding)
            total += path.gradients(noisy, path.examples)[:, 0]
        return (total / self.samples).norm(dim=-1)

    def _generator(self, token_ids: Sequence[int]) -> torch.Generator:
        number = int.from_bytes(sha256(f"{self.seed} {token_ids}".encode()).digest()[:7], "big")
        return torch.Generator().manual_seed(number)


def _token_ids(forward: ForwardPass) -> list[list[int]]:
    """The token ids of each row's real tokens."""
    ids = forward.batch.inputs["input_ids"]
    return [row[real].tolist() for row, real in zip(ids, forward.batch.mask, strict=True)]
