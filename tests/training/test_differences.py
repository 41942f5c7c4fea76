"""Directional derivatives beside autograd's: of one matrix, and of all of them moved at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradistill.training.finite_differences import Slope, readings_of, together

COUNT = 20


def chain() -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    """As many matrices as a student of three layers has, one behind the other."""
    torch.manual_seed(1)
    matrices = [nn.Parameter(torch.randn(4, 4, dtype=torch.float64)) for _ in range(COUNT)]
    start = torch.randn(4, dtype=torch.float64)

    def projected() -> Tensor:
        state = start
        for matrix in matrices:
            state = torch.tanh(matrix @ state) + state
        return state.sum()

    return matrices, projected


def slopes_of(matrices: list[nn.Parameter], projected: Callable[[], Tensor]) -> list[Slope]:
    gradients = torch.autograd.grad(projected(), matrices)
    return [Slope(str(k), m, g) for k, (m, g) in enumerate(zip(matrices, gradients, strict=True))]


def test_right_gradients_agree_and_every_weight_is_as_it_was() -> None:
    matrices, projected = chain()
    before = [matrix.detach().clone() for matrix in matrices]
    slopes = slopes_of(matrices, projected)
    assert all(reading.agrees and reading.is_sharp for reading in together(slopes, projected))
    assert all(reading.agrees for slope in slopes for reading in readings_of(slope, projected))
    assert all(torch.equal(now, then) for now, then in zip(matrices, before, strict=True))


@pytest.mark.parametrize("lost", [0.5, 1.0])
def test_what_one_matrix_loses_is_heard_from_all_of_them(lost: float) -> None:
    """Neither its place may matter, nor whether it is one of the few that are read one by one: but for two among
    twenty, along whose directions autograd promises next to nothing."""
    matrices, projected = chain()
    slopes = slopes_of(matrices, projected)
    heard = 0
    for broken, slope in enumerate(slopes):
        faulty = [*slopes]
        faulty[broken] = Slope(slope.name, slope.weight, (1 - lost) * slope.gradient)
        heard += sum(not reading.agrees for reading in together(faulty, projected)) > 1  # as the check asks
    assert heard >= COUNT - 2


@pytest.mark.parametrize("bend", [30, 300, 3000])
def test_a_gradient_that_bends_within_a_short_step_is_no_fault_and_a_wrong_one_is(bend: float) -> None:
    """A cut MPNet of 768 dimensions, whose projection is about 1, has slopes of 20 to 1,800 along its gradients."""
    matrices, along = chain()

    def projected() -> Tensor:
        return torch.sin(bend * along())

    slopes = slopes_of(matrices, projected)
    assert all(reading.agrees for slope in slopes for reading in readings_of(slope, projected))
    for kept in (0.9, 0.5, 0.0):
        wrong = [Slope(slope.name, slope.weight, kept * slope.gradient) for slope in slopes]
        passed = [all(reading.agrees for reading in readings_of(slope, projected)) for slope in wrong]
        assert sum(passed) <= 1  # that whose slope rounding may hide


def test_gradients_that_are_all_zero_are_no_evidence() -> None:
    matrices, projected = chain()
    nothing = [Slope(str(k), m, torch.zeros_like(m)) for k, m in enumerate(matrices)]
    assert list(together(nothing, projected)) == []
    assert not all(reading.agrees for slope in nothing for reading in readings_of(slope, projected))
