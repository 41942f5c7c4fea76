"""Dropout by sixteen bits: the rate, the scale and the derivatives of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from families import build, collated
from gradistill.batch import Batch
from gradistill.models.packed_dropout import packed_dropout

ROWS = 4000


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_number_is_dropped_at_the_rate(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Dropout(rate)
    with packed_dropout(module):
        found = module(torch.ones(ROWS, 7, dtype=dtype))
    kept = found != 0
    near = {"rtol": 1e-4, "atol": 0.0}  # the rate is rounded to sixteen bits
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - rate)), **near)
    bound = 5 * (rate * (1 - rate) / ROWS) ** 0.5
    assert (kept.double().mean(0) - (1 - rate)).abs().max() < bound  # whichever part of a draw decides
    together = kept.double() - (1 - rate)
    apart = (together.T @ together / ROWS).fill_diagonal_(0)
    assert apart.abs().max() < 5 * rate * (1 - rate) / ROWS**0.5


def test_what_is_kept_is_differentiated_twice() -> None:
    module = nn.Dropout(0.5).double()
    values = torch.linspace(-1, 1, 30, dtype=torch.float64).requires_grad_()

    def run(values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return module(values).pow(3)

    with packed_dropout(module):
        assert torch.autograd.gradcheck(run, values)
        assert torch.autograd.gradgradcheck(run, values)


def test_a_model_is_left_as_it_was() -> None:
    model, batch = build("bert", hidden_dropout_prob=0.3).train(), Batch.of(collated())
    before = [dict(vars(module)) for module in model.modules()]

    def said(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(**batch.inputs).logits

    plain = said(0)
    with packed_dropout(model):
        assert torch.equal(said(0), said(0))
        assert not torch.equal(said(0), said(1))
        assert not torch.equal(said(0), plain)
        model.eval()
        assert torch.equal(said(0), said(1))
        model.train()
    assert torch.equal(said(0), plain)
    assert [vars(module).keys() for module in model.modules()] == [own.keys() for own in before]


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_none_and_all_are_as_ever(rate: float) -> None:
    module = nn.Dropout(rate)
    with packed_dropout(module):
        assert torch.equal(module(torch.ones(8)), torch.full((8,), 1 - rate))
