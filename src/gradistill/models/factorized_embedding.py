"""Embeddings as a product of two factors, ``E = A·B``: a row of ``A`` for each token, and one matrix ``B`` for all.

A student learns both factors (``student.embedding_rank``). After training they are multiplied, so a plain transformers
model is saved; ``embedding_rank`` in its configuration is the number of columns of ``A``. An export factorises the
matrix again, exactly except for rounding, and its file holds the two factors.

The first factors are those of the truncated singular value decomposition, the nearest matrix of that rank (Eckart and
Young 1936). ALBERT has factorised embeddings from the start (Lan et al. 2020, arXiv 1909.11942).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradistill.errors import ModelError

EXACT = 1e-4
"""The largest share of a matrix's norm that may be lost at the rank that a configuration gives it."""


class FactorizedEmbedding(nn.Module):
    """A lookup of rows of ``factor`` (token, rank), and a linear map of them to the width of the model."""

    def __init__(
        self, factor: Float[Tensor, "token rank"], basis: Float[Tensor, "rank width"], padding: int | None
    ) -> None:
        super().__init__()
        self.factor = nn.Embedding(*factor.shape, padding_idx=padding)
        self.projection = nn.Linear(*basis.shape, bias=False)
        self.factor.weight.data.copy_(factor)
        self.projection.weight.data.copy_(basis.T)
        self.num_embeddings, self.embedding_dim, self.padding_idx = len(factor), basis.shape[1], padding

    @property
    def weight(self) -> Float[Tensor, "token width"]:
        """The product of both factors; it is computed anew each time."""
        return self.factor.weight @ self.projection.weight.T

    def forward(self, input_ids: Int[Tensor, "*batch token"]) -> Float[Tensor, "*batch token width"]:
        return self.projection(self.factor(input_ids))


def refuse_rank(rank: int, width: int) -> None:
    """Raise ModelError for a rank that is not below the width of the embeddings, so that factors save nothing."""
    if not 0 < rank < width:
        raise ModelError(
            f"the rank of the embeddings is {rank}, and they are {width} wide",
            expected=f"a rank from 1 to {width - 1}",
            remedy="set a smaller student.embedding_rank, or leave it out",
        )


def factorize_embeddings(model: Any, rank: int) -> float:
    """Replace the embedding matrix of a model by two factors; returns the share of its norm that is lost.

    Parameters:
        ``model``: a transformers model; it is changed, and its configuration gets ``embedding_rank``.
        ``rank``: columns of the first factor, fewer than the width of the embeddings.

    Raises ModelError for a rank that saves nothing.

    Example: ``factorize_embeddings(student, 128)``
    """
    table = model.get_input_embeddings()
    width = table.weight.shape[1]
    refuse_rank(rank, width)
    matrix = table.weight.detach().double()
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    basis = vectors[:, -rank:].flip(1)
    lost = float((values[:-rank].clamp(min=0).sum() / values.clamp(min=0).sum().clamp(min=1e-300)).sqrt())
    factors = FactorizedEmbedding((matrix @ basis).float(), basis.T.float(), table.padding_idx)
    model.set_input_embeddings(factors.to(table.weight.device, table.weight.dtype))
    model.config.embedding_rank = rank
    return lost


def merge_embeddings(model: Any) -> None:
    """Replace two factors by their product, a plain embedding matrix; a model without factors stays as it is."""
    table = model.get_input_embeddings()
    if not isinstance(table, FactorizedEmbedding):
        return
    whole = nn.Embedding(table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx)
    whole.weight.data = table.weight.detach().clone()
    model.set_input_embeddings(whole)


def with_factors(model: Any) -> Any:
    """A copy of a model with its embeddings in two factors, if its configuration gives them a rank.

    Otherwise the model itself. Raises ModelError if the embeddings have a higher rank than that.
    """
    rank = getattr(model.config, "embedding_rank", None)
    if rank is None:
        return model
    factorized = copy.deepcopy(model)
    if (lost := factorize_embeddings(factorized, rank)) > EXACT:
        raise ModelError(
            f"the configuration gives the embeddings the rank {rank}, and at that {lost:.1%} of their norm is lost",
            expected="embeddings as they were distilled",
            remedy="they were trained further: take embedding_rank out of config.json, or distil again",
        )
    return factorized
