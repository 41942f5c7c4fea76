"""Directional derivatives beside autograd's: of one matrix, and of all of them moved at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradistill.training.finite_differences import MatrixGradient, compared_alone, compared_together

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


def with_gradients(matrices: list[nn.Parameter], projected: Callable[[], Tensor]) -> list[MatrixGradient]:
    gradients = torch.autograd.grad(projected(), matrices)
    return [MatrixGradient(str(k), m, g) for k, (m, g) in enumerate(zip(matrices, gradients, strict=True))]


def test_right_gradients_agree_and_every_weight_is_as_it_was() -> None:
    matrices, projected = chain()
    before = [matrix.detach().clone() for matrix in matrices]
    matrix_gradients = with_gradients(matrices, projected)
    assert all(
        reading.agrees and reading.is_sharp for reading in compared_together(matrix_gradients, projected)
    )
    assert all(reading.agrees for matrix in matrix_gradients for reading in compared_alone(matrix, projected))
    assert all(torch.equal(now, then) for now, then in zip(matrices, before, strict=True))


@pytest.mark.parametrize("lost", [0.5, 1.0])
def test_what_one_matrix_loses_is_heard_from_all_of_them(lost: float) -> None:
    """Neither its place may matter, nor whether it is one of the few that are read one by one: but for two among
    twenty, along whose directions autograd promises next to nothing."""
    matrices, projected = chain()
    matrix_gradients = with_gradients(matrices, projected)
    heard = 0
    for broken, matrix in enumerate(matrix_gradients):
        faulty = [*matrix_gradients]
        faulty[broken] = MatrixGradient(matrix.name, matrix.weight, (1 - lost) * matrix.gradient)
        heard += (
            sum(not reading.agrees for reading in compared_together(faulty, projected)) > 1
        )  # as the check asks
    assert heard >= COUNT - 2


@pytest.mark.parametrize("bend", [30, 300, 3000])
def test_a_gradient_that_bends_within_a_short_step_is_no_fault_and_a_wrong_one_is(bend: float) -> None:
    """A cut MPNet of 768 dimensions, whose projection is about 1, has slopes of 20 to 1,800 along its gradients."""
    matrices, along = chain()

    def projected() -> Tensor:
        return torch.sin(bend * along())

    matrix_gradients = with_gradients(matrices, projected)
    assert all(reading.agrees for matrix in matrix_gradients for reading in compared_alone(matrix, projected))
    for kept in (0.9, 0.5, 0.0):
        wrong = [
            MatrixGradient(matrix.name, matrix.weight, kept * matrix.gradient) for matrix in matrix_gradients
        ]
        passed = [all(reading.agrees for reading in compared_alone(matrix, projected)) for matrix in wrong]
        assert sum(passed) <= 1  # that whose slope rounding may hide


def test_gradients_that_are_all_zero_are_no_evidence() -> None:
    matrices, projected = chain()
    nothing = [MatrixGradient(str(k), m, torch.zeros_like(m)) for k, m in enumerate(matrices)]
    assert list(compared_together(nothing, projected)) == []
    assert not all(reading.agrees for matrix in nothing for reading in compared_alone(matrix, projected))
