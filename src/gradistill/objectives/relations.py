"""Relations inside one model, independent of its width: products of pairs of vectors, and angles of triplets."""

from __future__ import annotations

from math import gcd

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.errors import RecipeError
from gradistill.objectives.base import Pair

SAME = 1e-6
"""Two vectors coincide if their squared distance is at most this share of the sum of their squared lengths."""

_LEFT_OUT = -1e4
"""A score far below any cosine: its softmax and gradient are 0 in any precision."""


def products(vectors: Float[Tensor, "*batch item hidden"]) -> Float[Tensor, "*batch item item"]:
    """Dot products of all pairs."""
    return vectors @ vectors.transpose(-1, -2)


def cosines(vectors: Float[Tensor, "*batch item hidden"]) -> Float[Tensor, "*batch item item"]:
    """Cosines of all pairs; 0 where one of the vectors is zero."""
    dots = products(vectors)
    squared = dots.diagonal(dim1=-2, dim2=-1)
    inverse = torch.where(squared > 0, squared, torch.ones_like(squared)).rsqrt()
    return dots * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


def pairs_among(real: Bool[Tensor, "*batch item"]) -> Bool[Tensor, "*batch item item"]:
    return real.unsqueeze(-1) & real.unsqueeze(-2)


def angles(
    vectors: Float[Tensor, "*batch item hidden"], window: int
) -> Float[Tensor, "*batch item near near"]:
    """Cosines of the angles at each item between two others no more than ``window`` places away.

    They are computed from the dot products of all pairs. The mean vector is subtracted first, so that close vectors
    keep their precision. Entries beyond the ends are arbitrary: ``triplets_among`` is the mask of valid ones. The
    cosine is 0 where two of the three vectors coincide.
    """
    dots = products(vectors - vectors.mean(-2, keepdim=True))
    near, _ = _near(dots.shape[-1], window, dots.device)
    items = torch.arange(dots.shape[-1], device=dots.device).unsqueeze(1)
    squared = dots.diagonal(dim1=-2, dim2=-1)
    across = dots[..., items, near]
    middle = squared.unsqueeze(-1)
    inner = dots[..., near.unsqueeze(2), near.unsqueeze(1)] - across.unsqueeze(-1) - across.unsqueeze(-2)
    lengths = squared[..., near] + middle - 2 * across
    distinct = lengths > SAME * (squared[..., near] + middle)
    inverse = torch.where(distinct, torch.where(distinct, lengths, torch.ones_like(lengths)).rsqrt(), 0.0)
    return (inner + middle.unsqueeze(-1)) * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


def triplets_among(real: Bool[Tensor, "*batch item"], window: int) -> Bool[Tensor, "*batch item near near"]:
    """A mask of those ``angles`` that belong to three different real items."""
    at, inside = _near(real.shape[-1], window, real.device)
    near = inside & real[..., at] & real.unsqueeze(-1)
    return pairs_among(near) & ~torch.eye(at.shape[1], dtype=torch.bool, device=real.device)


def counted_triplets(real: Bool[Tensor, "*batch item"], window: int) -> Int[Tensor, " *batch"]:
    """The number of triplets that CKD's authors divide by: each real item with all ordered pairs in its window.

    Pairs may include the item itself, or one item twice. Such angles are equal in all models, so they add nothing to a
    sum of differences.
    """
    at, inside = _near(real.shape[-1], window, real.device)
    in_window = 1 + (inside & real[..., at]).sum(-1)
    return (in_window.square() * real).sum(-1).clamp(min=1)


def divergences(
    student: Float[Tensor, "*batch item item"],
    teacher: Float[Tensor, "*batch item item"],
    real: Bool[Tensor, "*batch item"],
) -> Float[Tensor, "*batch item"]:
    """``KL(softmax(teacher) ‖ softmax(student))`` of each item's scores of the other real items (CKD); 0 if alone."""
    itself = torch.eye(real.shape[-1], dtype=torch.bool, device=real.device)
    left_out = ~pairs_among(real) | itself
    log_p, log_q = (rows.masked_fill(left_out, _LEFT_OUT).log_softmax(-1) for rows in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(-1) * real


def _near(items: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    reach = max(1, min(window, items - 1))
    offsets = torch.tensor([k for k in range(-reach, reach + 1) if k], device=device)
    indices = torch.arange(items, device=device).unsqueeze(1) + offsets
    return indices.clamp(0, items - 1), (indices >= 0) & (indices < items)


def mean_of(
    values: Float[Tensor, "batch ..."], counted: Bool[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """The mean of each example's values where ``counted`` is true; 0 where no value counts."""
    kept = torch.where(counted, values, 0.0).flatten(1).sum(1)
    return kept / counted.flatten(1).sum(1).clamp(min=1)


def mean_over_layers(
    values: Float[Tensor, "batch layer ..."], counted: Bool[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """The mean over layers of each example's values where ``counted`` is true."""
    return mean_of(values.mean(1), counted)


def common_heads(pair: Pair) -> int:
    """The largest number of relation heads, up to the models' own, that divides both attention widths."""
    width = gcd(pair.student.attention_width, pair.teacher.attention_width)
    most = max(pair.student.heads, pair.teacher.heads)
    return max(heads for heads in range(1, most + 1) if width % heads == 0)


def refuse_hidden_attention(name: str, pair: Pair, *, equal_heads: bool) -> None:
    """Raise RecipeError where attention cannot be compared."""
    hidden = [
        role for role, facts in (("student", pair.student), ("teacher", pair.teacher)) if not facts.heads
    ]
    if hidden:
        raise RecipeError(
            f"{name} compares self-attention, and the attention of the {' and the '.join(hidden)} cannot be recorded",
            expected="attention that transformers' AttentionInterface chooses (BERT, RoBERTa, Llama, …)",
            remedy="use a method without attention: coalition, rationale, ckd",
        )
    if equal_heads and pair.student.heads != pair.teacher.heads:
        raise RecipeError(
            f"{name} compares heads one by one, and the student has {pair.student.heads}, the teacher "
            f"{pair.teacher.heads}",
            expected="equal numbers of heads",
            remedy="use minilm_v2 with relation heads that divide both widths: --method minilm_v2 "
            f"--set objectives.self_attention_relations.heads={common_heads(pair)}",
        )
