"""Scores against naive loops, at zero, and at sizes whose squares leave float32."""

from __future__ import annotations

import pytest
import torch

from gradistill.attribution.normalization import (
    keep_largest,
    stable_norm,
    token_scores,
    unit_maps,
    unit_vectors,
)

MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


@pytest.mark.parametrize("p", [1, 2])
def test_unit_maps_equal_a_loop(p: int) -> None:
    scores = torch.rand(2, 4, dtype=torch.float64)
    found = unit_maps(scores, MASK, p)
    for b in range(2):
        real = [scores[b, i].item() for i in range(4) if MASK[b, i]]
        norm = sum(x**p for x in real) ** (1 / p)
        expected = [scores[b, i].item() / norm if MASK[b, i] else 0.0 for i in range(4)]
        assert found[b].tolist() == pytest.approx(expected, abs=1e-14)


def test_token_scores_equal_a_loop_over_the_largest_entries() -> None:
    attributions = torch.randn(2, 4, 10, dtype=torch.float64)
    found = token_scores(attributions, MASK, keep=0.3)
    for b in range(2):
        for i in range(4):
            largest = sorted((abs(x) for x in attributions[b, i].tolist()), reverse=True)[:3]
            expected = sum(x**2 for x in largest) ** 0.5 if MASK[b, i] else 0.0
            assert found[b, i].item() == pytest.approx(expected, abs=1e-13)


def test_scale_does_not_matter_even_where_squares_underflow() -> None:
    vectors = torch.randn(2, 4, 6)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(unit_vectors(vectors * scale, MASK), unit_vectors(vectors, MASK))
        torch.testing.assert_close(stable_norm(vectors * scale), stable_norm(vectors) * scale)
        scores = token_scores(vectors * scale, MASK)
        torch.testing.assert_close(unit_maps(scores, MASK), unit_maps(token_scores(vectors, MASK), MASK))


def test_zero_vectors_stay_zero_with_zero_gradient() -> None:
    vectors = torch.zeros(2, 4, 6, requires_grad=True)
    (unit_vectors(vectors, MASK).sum() + unit_maps(token_scores(vectors, MASK), MASK).sum()).backward()
    assert torch.equal(vectors.grad, torch.zeros_like(vectors))


def test_derivatives() -> None:
    vectors = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: unit_vectors(v, MASK), vectors)
    assert torch.autograd.gradcheck(lambda v: unit_maps(token_scores(v, MASK), MASK, 2), vectors)
    assert torch.autograd.gradgradcheck(lambda v: unit_maps(token_scores(v, MASK), MASK, 2), vectors)


def test_keep_largest_keeps_all_or_at_least_one() -> None:
    vectors = torch.tensor([[3.0, -5.0, 1.0]])
    assert keep_largest(vectors, 1.0) is vectors
    assert keep_largest(vectors, 0.01).tolist() == [[0.0, -5.0, 0.0]]
