"""Embeddings as two factors: the nearest matrix of that rank, one model before and after merging."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from families import build, collated
from gradistill.errors import ModelError
from gradistill.models.factorized_embedding import factorize_embeddings, merge_embeddings, with_factors
from gradistill.models.probe import Probe

BATCH = {name: values for name, values in collated().items() if name in ("input_ids", "attention_mask")}


def table_of(model: Any) -> np.ndarray:
    return model.get_input_embeddings().weight.detach().double().numpy()


def test_the_factors_are_those_of_the_singular_value_decomposition() -> None:
    model = build("bert", initializer_range=0.3)
    before = table_of(model)
    u, s, v = np.linalg.svd(before, full_matrices=False)
    lost = factorize_embeddings(model, 5)
    assert table_of(model) == pytest.approx((u[:, :5] * s[:5]) @ v[:5], abs=1e-5)
    assert lost == pytest.approx(np.sqrt((s[5:] ** 2).sum() / (s**2).sum()))
    assert model.config.embedding_rank == 5
    for rank in (16, 17):
        with pytest.raises(ModelError, match="from 1 to 15"):
            factorize_embeddings(build("bert"), rank)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta_v2", "modernbert", "electra"])
def test_merging_changes_nothing(family: str) -> None:
    model = build(family, initializer_range=0.3)
    names = {name for name, _ in model.named_parameters()}
    factorize_embeddings(model, 4)
    factors = {name for name, _ in model.named_parameters()} - names
    assert {name.split(".")[-2] for name in factors} == {"factor", "projection"}
    assert factors <= set(Probe.find(model).embedding_parameters), "the embedding output depends on both"
    with torch.no_grad():
        apart = model(**BATCH).logits
        merge_embeddings(model)
        assert model(**BATCH).logits == pytest.approx(apart, abs=1e-5)
    assert {name for name, _ in model.named_parameters()} == names
    assert np.linalg.matrix_rank(table_of(model), tol=1e-4) == 4
    with torch.no_grad():
        assert with_factors(model)(**BATCH).logits == pytest.approx(apart, abs=1e-5)


def test_a_rank_that_the_matrix_has_no_longer_is_refused() -> None:
    model = build("bert", initializer_range=0.3)
    assert with_factors(model) is model
    model.config.embedding_rank = 4
    with pytest.raises(ModelError, match="the rank 4, and at that .* is lost"):
        with_factors(model)
