"""Quantities that are compared, computed from gradients: token scores, unit maps, unit directions.

All are safe at zero and independent of scale: a gradient of 1e-30 gives the same map as a gradient of 1. Masks are
explicit, as a real token may have a zero gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def stable_norm(vectors: Float[Tensor, "*batch hidden"], p: int = 2) -> Float[Tensor, "*batch"]:
    """p-norm over the last dimension, without underflow or overflow when squared.

    Vectors are first divided by their scale as a constant; the norm is homogeneous, so its gradient is exact. At zero
    the gradient is zero.
    """
    scale = vectors.detach().abs().amax(-1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.linalg.vector_norm(vectors / scale, ord=p, dim=-1) * scale.squeeze(-1)


def _unit(vectors: Tensor, p: int) -> Tensor:
    """Vectors of unit p-norm over the last dimension; a zero vector stays zero, with zero gradient."""
    scale = vectors.detach().abs().amax(-1, keepdim=True)
    zero = scale == 0
    scaled = vectors / torch.where(zero, torch.ones_like(scale), scale)
    norm = torch.linalg.vector_norm(scaled, ord=p, dim=-1, keepdim=True)
    unit = scaled / torch.where(zero, torch.ones_like(norm), norm)
    return torch.where(zero, torch.zeros_like(unit), unit)


def unit_vectors(
    vectors: Float[Tensor, "*batch token hidden"], mask: Bool[Tensor, "*#batch #token"]
) -> Float[Tensor, "*batch token hidden"]:
    """Each token's vector at unit L2 length (Gradient KD, Wang et al. 2022); padding is zero."""
    return _unit(vectors.masked_fill(~mask.unsqueeze(-1), 0.0), 2)


def unit_texts(
    vectors: Float[Tensor, "*batch token hidden"], mask: Bool[Tensor, "*#batch #token"]
) -> Float[Tensor, "*batch all"]:
    """The vectors of a whole text, flattened to one vector of unit L2 length; padding is zero."""
    return _unit(vectors.masked_fill(~mask.unsqueeze(-1), 0.0).flatten(-2), 2)


def unit_maps(
    scores: Float[Tensor, "*batch token"], mask: Bool[Tensor, "*#batch #token"], p: int = 2
) -> Float[Tensor, "*batch token"]:
    """Scores at unit p-norm over the tokens of one example (AD-KD eq. 4); padding is zero."""
    return _unit(scores.masked_fill(~mask, 0.0), p)


def keep_largest(vectors: Float[Tensor, "*batch hidden"], share: float) -> Float[Tensor, "*batch hidden"]:
    """``vectors`` with only the ``round(share · D)`` entries of largest absolute value, at least one (AD-KD's K)."""
    width = vectors.shape[-1]
    kept = max(1, round(share * width))
    if kept >= width:
        return vectors
    largest = vectors.abs().topk(kept, dim=-1).indices
    return torch.zeros_like(vectors).scatter(-1, largest, vectors.gather(-1, largest))


def token_scores(
    attributions: Float[Tensor, "*batch token hidden"],
    mask: Bool[Tensor, "*#batch #token"],
    *,
    keep: float = 1.0,
) -> Float[Tensor, "*batch token"]:
    """``s_i = ‖A_i‖₂`` over the share ``keep`` of the largest entries of the hidden dimension (AD-KD eq. 4).

    The sign is discarded. Padding has a score of zero.
    """
    return stable_norm(keep_largest(attributions, keep).masked_fill(~mask.unsqueeze(-1), 0.0))


def signed_scores(
    attributions: Float[Tensor, "*batch token hidden"], mask: Bool[Tensor, "*#batch #token"]
) -> Float[Tensor, "*batch token"]:
    """``Σ_d A_id``: a token's contribution to the target, with its sign. Padding has a score of zero."""
    return attributions.sum(-1).masked_fill(~mask, 0.0)
