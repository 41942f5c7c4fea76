"""Derivatives along directions by central differences, of one matrix or of all at once, compared with autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 0.05
"""Allowed relative difference. A missing second-order part is off by 1; float32 islands inside a float64 model
(some norms and softmaxes) by up to a few thousandths at these steps."""

STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Lengths of the finite-difference step relative to the weight's norm. Shorter ones are tried where the first does not
agree: along its own gradient a student of base size bends within 1e-4."""

SETTLED = 0.01
"""Where a ten times shorter step changes the difference by less, relatively, it is the derivative."""

SHARE_LOST = 0.25
"""Where all matrices move at once each promises 1: how much of one may be missing from their sum."""


@dataclass(frozen=True)
class DerivativeComparison:
    """One comparison: a weight's directional derivative by autograd and by finite difference."""

    weight: str
    autograd: float
    finite_difference: float
    floor: float
    allowed: float | None = None
    """A difference that is allowed in place of the relative one."""

    @property
    def agrees(self) -> bool:
        return abs(self.autograd - self.finite_difference) <= self._tolerance + self.floor

    @property
    def is_sharp(self) -> bool:
        """Whether agreement means something: what rounding may hide is within the tolerance itself."""
        return self.floor <= self._tolerance

    @property
    def _tolerance(self) -> float:
        largest = max(abs(self.autograd), abs(self.finite_difference))
        return TOLERANCE * largest if self.allowed is None else self.allowed


@dataclass(frozen=True)
class MatrixGradient:
    """A matrix and the gradient that autograd gives it."""

    name: str
    weight: nn.Parameter
    gradient: Tensor

    def unrelated_direction(self, seed: int) -> Tensor:
        """A direction that does not know the gradient: half scaling, half random."""
        weight = self.weight.detach()
        random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight)
        direction = weight / weight.norm().clamp(min=1e-12) + random / random.norm()
        return direction / direction.norm()

    @cached_property
    def size(self) -> float:
        return max(self.weight.detach().norm().item(), 1e-3)

    def along(self, direction: Tensor) -> float:
        return (self.gradient * direction).sum().item()


def compared_alone(matrix: MatrixGradient, projected: Callable[[], Tensor]) -> Iterator[DerivativeComparison]:
    """Of one matrix, along the gradient itself and along a direction that does not know it."""
    yield _along(matrix, matrix.unrelated_direction(seed=1), projected)
    if matrix.gradient.norm() > 0:
        yield _along(matrix, matrix.gradient / matrix.gradient.norm(), projected)


def _along(
    matrix: MatrixGradient, direction: Tensor, projected: Callable[[], Tensor]
) -> DerivativeComparison:
    moves, expected = [(matrix, direction)], matrix.along(direction)
    return _settled(lambda step: _read(matrix.name, moves, expected, step * matrix.size, projected))


def compared_together(
    matrices: Sequence[MatrixGradient], projected: Callable[[], Tensor]
) -> Iterator[DerivativeComparison]:
    """All matrices moved at once, each so far that autograd promises the same of it, up or down by chance.

    What is lost in a single matrix is lost from the sum: a fault beside the few that are read one by one. Three
    readings, each along other directions.
    """
    for seed in range(1, 4):
        directions = [matrix.unrelated_direction(seed) for matrix in matrices]
        along = [matrix.along(direction) for matrix, direction in zip(matrices, directions, strict=True)]
        usual = median(abs(one) for one in along)
        if usual == 0:
            return
        scales = [1 / max(abs(one), 0.05 * usual) for one in along]
        room = min(matrix.size / scale for matrix, scale in zip(matrices, scales, strict=True))
        signs = (
            torch.randint(2, (len(matrices),), generator=torch.Generator().manual_seed(seed)) * 2 - 1
        ).tolist()
        steps = [sign * scale for sign, scale in zip(signs, scales, strict=True)]
        moves = [
            (s, step * direction) for s, step, direction in zip(matrices, steps, directions, strict=True)
        ]
        expected = sum(step * one for step, one in zip(steps, along, strict=True))

        def read(
            step: float, moves: Any = moves, expected: float = expected, room: float = room
        ) -> DerivativeComparison:
            found = _read("all matrices together", moves, expected, step * room, projected)
            return replace(found, allowed=SHARE_LOST)

        yield _settled(read)


def _read(
    name: str,
    moves: Sequence[tuple[MatrixGradient, Tensor]],
    expected: float,
    step: float,
    projected: Callable[[], Tensor],
) -> DerivativeComparison:
    """A central difference of what is projected, all ``moves`` made at once."""
    originals = [matrix.weight.detach().clone() for matrix, _ in moves]
    values = []
    for sign in (1, -1):
        for (matrix, direction), original in zip(moves, originals, strict=True):
            matrix.weight.data.copy_(original + sign * step * direction)
        values.append(projected().item())
    for (matrix, _), original in zip(moves, originals, strict=True):
        matrix.weight.data.copy_(original)
    return DerivativeComparison(
        weight=name,
        autograd=expected,
        finite_difference=(values[0] - values[1]) / (2 * step),
        floor=1e-6 * max(map(abs, values)) / step,
    )


def _settled(read: Callable[[float], DerivativeComparison]) -> DerivativeComparison:
    """A reading whose step is short enough: it agrees with the longest one, or the next shorter step changes little. If
    none does, that which changed least: shorter steps may show nothing but rounding.

    Where the projection bends, the difference grows from nothing to the derivative as the step shrinks: some step would
    agree with whatever autograd gives.
    """
    last = settled = read(STEPS[0])
    if last.agrees:
        return last
    least = float("inf")
    for step in STEPS[1:]:
        closer = read(step)
        if not closer.is_sharp:
            break
        change = abs(closer.finite_difference - last.finite_difference)
        if change < least:
            least, settled = change, closer
        if change <= SETTLED * abs(closer.finite_difference):
            break
        last = closer
    return settled
