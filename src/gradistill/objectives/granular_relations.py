"""MGSKD: relations between tokens, between spans, and between whole texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gradistill.batch import Batch
from gradistill.errors import RecipeError
from gradistill.models.layer_map import LayerMap
from gradistill.objectives.base import EpochProgress, Objective, Pair, Role, Signals, objective
from gradistill.objectives.compatibility import refuse_shortened
from gradistill.objectives.relations import SAME, angles, mean_of, pairs_among, products, triplets_among
from gradistill.signals import Signal, States

Level = Literal["token", "span", "sample"]

MOST_HEADS = 64
"""The authors' number of relation heads, on states of width 768."""

NARROWEST = 4
"""Least width of a head if ``relation_heads`` is not given: in heads of width 1, angles are only signs."""

FEWEST_SPANS = 3
"""Texts with fewer spans have no span relations, as in the authors' code."""


@objective
class GranularRelations(Objective):
    """Relations of tokens and spans in the lower layers, of whole texts in the upper ones (MGSKD).

    ``definition: authors`` follows the authors' published loss. States are split into relation heads. Between tokens,
    and between spans: the squared differences of scaled dot products, averaged over heads and pairs, and smooth L1 of
    the angles. Angles are taken at the ``top`` tokens with the largest sums of the teacher's softmaxed scores, between
    the ``top`` most related others of each. Between the texts of a batch: smooth L1 of the angles of their mean states,
    averaged over heads and all triplets. Layers are summed, and texts weigh ``sample_weight`` times as much.

    Deviations: a span is a run of ``span`` tokens (theirs: phrases that a tool finds). Every text has equal weight
    (theirs: divided by the tokens of the batch). The last layer always relates texts, even with few layers.

    ``definition: windowed`` is ours, older than our reading of their code. It has one head, products divided by the
    width, triplets within a ``window``, squared differences, means over layers, also pairs of texts, and equal weights.

    At the level ``sample`` a text's distance depends on the other texts of its batch.
    """

    name: ClassVar[str] = "granular_relations"
    title: ClassVar[str] = "MGSKD: relations of tokens, spans and samples"
    source: ClassVar[str] = "Liu et al. 2022 (ACL), arXiv 2203.13070"

    layer_map: LayerMap = Field(
        default="uniform",
        description="teacher layers that student layers 1 … L are matched to: uniform, skip, first, last, a list",
    )
    definition: Literal["authors", "windowed"] = Field(
        default="authors", description="authors: the definition of the published code; windowed: ours"
    )
    levels: tuple[Level, ...] = Field(
        default=("token", "span", "sample"), min_length=1, description="what is related: token, span, sample"
    )
    span: int = Field(default=3, ge=2, description="tokens in a span")
    triplets: float = Field(default=1.0, ge=0, description="weight of triplets relative to pairs")
    relation_heads: int | None = Field(
        default=None,
        ge=1,
        description=f"authors: relation heads; null: the largest number up to {MOST_HEADS} that divides both widths",
    )
    top: int = Field(
        default=20,
        ge=2,
        description="authors: number of tokens, and of related tokens for each, that form triplets",
    )
    token_layers: int = Field(
        default=2,
        ge=1,
        description="authors: number of mapped layers, from below, in which tokens are related",
    )
    sample_weight: float = Field(
        default=4.0, ge=0, description="authors: weight of samples relative to tokens and spans"
    )
    window: int = Field(
        default=10,
        ge=1,
        description="windowed: largest distance, in items, of the other two items of a triplet",
    )
    samples_from: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="windowed: share of the depth from which on samples are related, not tokens",
    )

    def check(self, pair: Pair) -> None:
        pair.layers(self.layer_map, "student")
        refuse_shortened(self.name, pair)
        self._refuse_idle_fields()
        heads, widths = self.relation_heads, (pair.student.width, pair.teacher.width)
        if heads and any(width % heads for width in widths):
            raise RecipeError(
                f"granular_relations.relation_heads is {heads}, which does not divide the widths of the student "
                f"({widths[0]}) and the teacher ({widths[1]})",
                expected=f"a divisor of {math.gcd(*widths)}",
                remedy=f"set relation_heads to {_most_heads(*widths)}, or leave it out",
            )

    def _refuse_idle_fields(self) -> None:
        """Raise RecipeError for an option of the other definition, which would have no effect."""
        kind: Any = type(self)
        default = kind()
        of = {
            "authors": ("relation_heads", "top", "token_layers", "sample_weight"),
            "windowed": ("window", "samples_from"),
        }
        for name in of["windowed" if self.definition == "authors" else "authors"]:
            if getattr(self, name) != getattr(default, name):
                raise RecipeError(
                    f"granular_relations.{name} has no effect with definition: {self.definition}",
                    expected=f"one of {', '.join(of[self.definition])}",
                    remedy=f"leave {name} out, or choose the other definition",
                )

    def signals(self, pair: Pair, role: Role) -> dict[str, Signal]:
        return {"states": States(pair.layers(self.layer_map, role))}

    def distance(
        self, student: Signals, teacher: Signals, batch: Batch, progress: EpochProgress
    ) -> Float[Tensor, " batch"]:
        ours, theirs = student["states"], teacher["states"]
        by_level = self._authors if self.definition == "authors" else self._windowed
        return torch.stack([by_level(level, ours, theirs, batch.mask) for level in self.levels]).sum(0)

    def _authors(
        self, level: Level, ours: Tensor, theirs: Tensor, mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, " batch"]:
        layers = ours.shape[1]
        lower = min(self.token_layers, max(layers - 1, 1) if "sample" in self.levels else layers)
        heads = self.relation_heads or _most_heads(ours.shape[-1], theirs.shape[-1])
        if level == "sample":
            upper = min(lower, layers - 1)
            student, teacher = (
                _pooled(states[:, upper:], mask, mask.shape[1])[0][:, :, 0] for states in (ours, theirs)
            )
            return self.sample_weight * _sample_distance(student, teacher, heads)
        (ours, real), (theirs, _) = (
            _items(states[:, :lower], mask, 1 if level == "token" else self.span) for states in (ours, theirs)
        )
        if level == "span":
            real = real & (real.sum(1, keepdim=True) >= FEWEST_SPANS)
        total = torch.zeros(len(mask), device=mask.device)
        for layer in range(lower):  # one at a time: heads × items² numbers each
            student, teacher = _head_scores(ours[:, layer], heads), _head_scores(theirs[:, layer], heads)
            total = total + mean_of((student - teacher).square().mean(1), pairs_among(real))
            if self.triplets:
                middle, near = _most_related(teacher, real, self.top)
                losses = _apart(
                    _angles_at(ours[:, layer], middle, near), _angles_at(theirs[:, layer], middle, near)
                )
                total = total + self.triplets * mean_of(losses, _distinct(real, middle, near))
        return total

    def _windowed(
        self, level: Level, ours: Tensor, theirs: Tensor, mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, " batch"]:
        upper = min(int(self.samples_from * ours.shape[1]), ours.shape[1] - 1)
        layers, size = slice(max(upper, 1)), {"token": 1, "span": self.span}.get(level, mask.shape[1])
        if level == "sample":
            layers = slice(upper, None)
        (ours, real), (theirs, _) = (_items(states[:, layers], mask, size) for states in (ours, theirs))
        window = self.window
        if level == "sample":  # one set of items, each a text
            ours, theirs, real = ours.permute(2, 1, 0, 3), theirs.permute(2, 1, 0, 3), real.transpose(0, 1)
            window = len(mask)
        total = torch.zeros(len(mask), device=mask.device)
        for values, counted in self._windowed_differences(ours, theirs, real, window):
            if level == "sample":
                values, counted = values[0], counted[0]
            total = total + mean_of(values, counted)
        return total

    def _windowed_differences(
        self, ours: Tensor, theirs: Tensor, real: Tensor, window: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Weighted squared differences and a mask of those that count: first of pairs, then of triplets."""
        scaled = products(ours) / ours.shape[-1] - products(theirs) / theirs.shape[-1]
        yield scaled.square().mean(1), pairs_among(real)
        if self.triplets:
            errors = (angles(ours, window) - angles(theirs, window)).square()
            yield self.triplets * errors.mean(1), triplets_among(real, window)


def _most_heads(student: int, teacher: int) -> int:
    """The largest number of heads up to 64 that divides both widths, with heads of width 4 or more."""
    common, most = math.gcd(student, teacher), min(MOST_HEADS, student // NARROWEST, teacher // NARROWEST)
    return max(heads for heads in range(1, max(most, 1) + 1) if common % heads == 0)


def _items(
    states: Float[Tensor, "batch layer token hidden"], mask: Bool[Tensor, "batch token"], size: int
) -> tuple[Float[Tensor, "batch layer item hidden"], Bool[Tensor, "batch item"]]:
    """States of tokens, or means of runs of ``size`` tokens, and a mask of the real ones."""
    return (states, mask) if size == 1 else _pooled(states, mask, size)


def _head_scores(
    states: Float[Tensor, "batch item hidden"], heads: int
) -> Float[Tensor, "batch head item item"]:
    """Dot products of all pairs of items in each head, divided by the square root of the head's width."""
    split = states.unflatten(-1, (heads, -1)).transpose(1, 2)
    return products(split) / split.shape[-1] ** 0.5


def _most_related(
    scores: Float[Tensor, "batch head item item"], real: Bool[Tensor, "batch item"], top: int
) -> tuple[Tensor, Tensor]:
    """Indices of the ``top`` items with the largest sums of softmaxed scores, and of the ``top`` related to each."""
    pairs = pairs_among(real)
    lowest = torch.finfo(scores.dtype).min
    shares = scores.masked_fill(~pairs[:, None], lowest).softmax(-1).sum(1) * pairs
    count = min(top, real.shape[1])
    middle = shares.sum(1).topk(count).indices
    itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    others = shares.masked_fill(itself, 0.0).topk(count, dim=-1).indices
    return middle, others.gather(1, middle.unsqueeze(-1).expand(-1, -1, count))


def _angles_at(states: Float[Tensor, "batch item hidden"], at: Tensor, near: Tensor) -> Tensor:
    """Cosines of the angles at the items ``at`` between all pairs of ``near`` items: ``(batch, at, near, near)``.

    The cosine is 0 where two of the three vectors coincide, as in ``angles``.
    """
    row = torch.arange(len(states), device=states.device)
    middle, others = states[row[:, None], at].unsqueeze(2), states[row[:, None, None], near]
    sizes = middle.square().sum(-1) + others.square().sum(-1)
    directions = middle - others
    coincide = directions.square().sum(-1) <= SAME * sizes
    unit = functional.normalize(directions.masked_fill(coincide.unsqueeze(-1), 0.0), dim=-1)
    return unit @ unit.transpose(-1, -2)


def _distinct(real: Bool[Tensor, "batch item"], at: Tensor, near: Tensor) -> Tensor:
    """A mask of those ``_angles_at`` that belong to three different real items."""
    row = torch.arange(len(real), device=real.device)
    other = real[row[:, None, None], near] & (near != at.unsqueeze(-1)) & real[row[:, None], at].unsqueeze(-1)
    return pairs_among(other) & ~torch.eye(near.shape[-1], dtype=torch.bool, device=real.device)


def _sample_distance(
    ours: Float[Tensor, "batch layer hidden"], theirs: Float[Tensor, "batch layer width"], heads: int
) -> Float[Tensor, " batch"]:
    """Smooth L1 of the angles at each text, averaged over heads and all pairs of texts, summed over layers."""
    student, teacher = (
        angles(states.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3), len(states))
        for states in (ours, theirs)
    )
    everywhere = torch.ones(len(ours), dtype=torch.bool, device=ours.device)
    losses = _apart(student, teacher) * triplets_among(everywhere, len(ours))
    return losses.flatten(3).sum(-1).mean(1).sum(0) / len(ours) ** 2


def _apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """Smooth L1 loss of each entry."""
    return functional.smooth_l1_loss(ours, theirs, reduction="none")


def _pooled(
    states: Float[Tensor, "batch layer token hidden"], mask: Bool[Tensor, "batch token"], span: int
) -> tuple[Float[Tensor, "batch layer span hidden"], Bool[Tensor, "batch span"]]:
    """Means over the real tokens of runs of ``span`` tokens, and a mask of the runs with a real token."""
    short = -mask.shape[1] % span
    real = functional.pad(mask, (0, short)).unflatten(1, (-1, span))
    sums = functional.pad(states * mask[:, None, :, None], (0, 0, 0, short)).unflatten(2, (-1, span)).sum(3)
    counts = real.sum(2)
    return sums / counts.clamp(min=1)[:, None, :, None], counts > 0
