"""Relations inside one model, free of its width: between pairs of vectors, and angles in triplets of them."""

from __future__ import annotations

from math import gcd

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.errors import RecipeError
from gradistill.objectives.base import Pair

SAME = 1e-6
"""Two vectors nearer than this share of their lengths, squared, have no direction between them."""

_LEFT_OUT = -1e4
"""Far below any cosine: no share of a softmax, in any precision, and no gradient."""


def products(vectors: Float[Tensor, "*batch item hidden"]) -> Float[Tensor, "*batch item item"]:
    """Dot products of all pairs."""
    return vectors @ vectors.transpose(-1, -2)


def cosines(vectors: Float[Tensor, "*batch item hidden"]) -> Float[Tensor, "*batch item item"]:
    """Cosines of all pairs; 0 beside a zero vector."""
    found = products(vectors)
    squared = found.diagonal(dim1=-2, dim2=-1)
    inverse = torch.where(squared > 0, squared, torch.ones_like(squared)).rsqrt()
    return found * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


def pairs_among(real: Bool[Tensor, "*batch item"]) -> Bool[Tensor, "*batch item item"]:
    return real.unsqueeze(-1) & real.unsqueeze(-2)


def angles(
    vectors: Float[Tensor, "*batch item hidden"], window: int
) -> Float[Tensor, "*batch item near near"]:
    """Cosines of the angles at each item between two others no more than ``window`` places away.

    From the products of all pairs, which hold all distances; what the vectors have in common is taken off first, so
    that near ones keep their digits. What lies beyond the ends is any number: ``triplets_among`` marks what counts.
    0 where two of the three coincide.
    """
    found = products(vectors - vectors.mean(-2, keepdim=True))
    at, _ = _near(found.shape[-1], window, found.device)
    items = torch.arange(found.shape[-1], device=found.device).unsqueeze(1)
    squared = found.diagonal(dim1=-2, dim2=-1)
    across = found[..., items, at]
    own = squared.unsqueeze(-1)
    inner = found[..., at.unsqueeze(2), at.unsqueeze(1)] - across.unsqueeze(-1) - across.unsqueeze(-2)
    lengths = squared[..., at] + own - 2 * across
    apart = lengths > SAME * (squared[..., at] + own)
    inverse = torch.where(apart, torch.where(apart, lengths, torch.ones_like(lengths)).rsqrt(), 0.0)
    return (inner + own.unsqueeze(-1)) * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


def triplets_among(real: Bool[Tensor, "*batch item"], window: int) -> Bool[Tensor, "*batch item near near"]:
    """Which of ``angles`` are between three different real items."""
    at, inside = _near(real.shape[-1], window, real.device)
    near = inside & real[..., at] & real.unsqueeze(-1)
    return pairs_among(near) & ~torch.eye(at.shape[1], dtype=torch.bool, device=real.device)


def counted_triplets(real: Bool[Tensor, "*batch item"], window: int) -> Int[Tensor, " *batch"]:
    """How many triplets CKD's authors divide by: each real item with all ordered pairs of real items in its window.

    The item itself is one of them, and both of a pair may be the same. Those angles are equal in all models, so they
    add nothing to a sum of differences.
    """
    at, inside = _near(real.shape[-1], window, real.device)
    in_window = 1 + (inside & real[..., at]).sum(-1)
    return (in_window.square() * real).sum(-1).clamp(min=1)


def divergences(
    student: Float[Tensor, "*batch item item"],
    teacher: Float[Tensor, "*batch item item"],
    real: Bool[Tensor, "*batch item"],
) -> Float[Tensor, "*batch item"]:
    """``KL(softmax(teacher) ‖ softmax(student))`` of each item's row over the other real items (CKD); 0 without any."""
    itself = torch.eye(real.shape[-1], dtype=torch.bool, device=real.device)
    left_out = ~pairs_among(real) | itself
    expected, found = (rows.masked_fill(left_out, _LEFT_OUT).log_softmax(-1) for rows in (teacher, student))
    return (expected.exp() * (expected - found)).sum(-1) * real


def _near(items: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    reach = max(1, min(window, items - 1))
    offsets = torch.tensor([k for k in range(-reach, reach + 1) if k], device=device)
    at = torch.arange(items, device=device).unsqueeze(1) + offsets
    return at.clamp(0, items - 1), (at >= 0) & (at < items)


def mean_of(
    values: Float[Tensor, "batch ..."], counted: Bool[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """The mean of each example's values that count; 0 where none does."""
    kept = torch.where(counted, values, 0.0).flatten(1).sum(1)
    return kept / counted.flatten(1).sum(1).clamp(min=1)


def mean_over_layers(
    values: Float[Tensor, "batch layer ..."], counted: Bool[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """The mean of each example's values that count, in all layers alike."""
    return mean_of(values.mean(1), counted)


def common_heads(pair: Pair) -> int:
    """The most relation heads, no more than the models have heads, that divide the widths of both."""
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
            f"{name} compares self-attention, and that of the {' and the '.join(hidden)} cannot be looked into",
            expected="attention that transformers' AttentionInterface chooses (BERT, RoBERTa, Llama, …)",
            remedy="use a method without attention: coalition, rationale, ckd",
        )
    if equal_heads and pair.student.heads != pair.teacher.heads:
        raise RecipeError(
            f"{name} compares heads one by one, and the student has {pair.student.heads}, the teacher "
            f"{pair.teacher.heads}",
            expected="as many heads",
            remedy="use minilm_v2 with relation heads that divide both widths: --method minilm_v2 "
            f"--set objectives.self_attention_relations.heads={common_heads(pair)}",
        )
