"""Directional derivatives by central differences, of one matrix or of all at once, compared with autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 0.05
"""Allowed relative difference. A missing second-order part gives a difference of 1. Float32 operations inside a float64
model (some norms and softmaxes) give up to a few thousandths at these steps."""

STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""Lengths of the finite-difference step relative to the weight's norm. Shorter ones are tried if the first does not
agree: along its own gradient, the projection of a student of base size is curved within 1e-4."""

SETTLED = 0.01
"""A difference has converged if a ten times shorter step changes it by less than this, relatively."""

MAX_JOINT_DIFFERENCE = 0.25
"""Allowed difference when all matrices move at once. Each contributes ±1 to the sum by autograd, so it is a share of
one matrix's contribution."""


@dataclass(frozen=True)
class DerivativeComparison:
    """A weight's directional derivative by autograd and by finite difference. ``floor``: the rounding error."""

    weight: str
    autograd: float
    finite_difference: float
    floor: float
    allowed: float | None = None
    """An allowed absolute difference, which replaces the relative tolerance."""

    @property
    def agrees(self) -> bool:
        return abs(self.autograd - self.finite_difference) <= self._tolerance + self.floor

    @property
    def is_sharp(self) -> bool:
        """Whether agreement is meaningful: rounding errors are not larger than the tolerance."""
        return self.floor <= self._tolerance

    @property
    def _tolerance(self) -> float:
        largest = max(abs(self.autograd), abs(self.finite_difference))
        return TOLERANCE * largest if self.allowed is None else self.allowed


@dataclass(frozen=True)
class MatrixGradient:
    """A weight matrix and its gradient by autograd."""

    name: str
    weight: nn.Parameter
    gradient: Tensor

    def unrelated_direction(self, seed: int) -> Tensor:
        """A direction that is independent of the gradient: the normalised weight plus a random direction."""
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
    """Compare one matrix along a direction independent of its gradient, and along the gradient unless that is 0."""
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
    """Compare all matrices moved at once, each by a length at which autograd predicts a change of ±1 (random sign).

    A wrong gradient in any one matrix changes the sum, also in matrices that are not compared alone. Yields three
    comparisons along different directions.
    """
    for seed in range(1, 4):
        directions = [matrix.unrelated_direction(seed) for matrix in matrices]
        along = [matrix.along(direction) for matrix, direction in zip(matrices, directions, strict=True)]
        typical = median(abs(one) for one in along)
        if typical == 0:
            return
        scales = [1 / max(abs(one), 0.05 * typical) for one in along]
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
            comparison = _read("all matrices together", moves, expected, step * room, projected)
            return replace(comparison, allowed=MAX_JOINT_DIFFERENCE)

        yield _settled(read)


def _read(
    name: str,
    moves: Sequence[tuple[MatrixGradient, Tensor]],
    expected: float,
    step: float,
    projected: Callable[[], Tensor],
) -> DerivativeComparison:
    """Compare autograd's ``expected`` with the central difference of ``projected`` under all ``moves`` at once."""
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
    """The comparison at the longest step if it agrees there, else at the step where the difference has converged.

    If none has converged, the one that changed least is returned: still shorter steps are dominated by rounding. The
    first agreement is not enough. On a curved projection the difference changes from 0 to the derivative as the step
    shrinks, and would agree with any value of autograd at some step.
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
