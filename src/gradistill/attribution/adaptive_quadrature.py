"""Integrated Gradients with adaptive nodes for each row: more nodes where the path is not smooth.

A fine-tuned encoder's prediction changes within a narrow part of the path, a different one for every text. A rule with
equal nodes everywhere needs hundreds of them. Here each row runs an adaptive Simpson rule with two checks for every
interval. The first is completeness (Sundararajan et al. 2017), which holds on every interval of the path:
``∫_a^b ∇F · (E − E') dα = F(b) − F(a)``; F is known at every node. This is a single number, which can be right by
chance, or because errors of entries cancel. The second check therefore compares the attributions of the two halves of
an interval with those of the whole. Halving an interval keeps its three nodes and adds two: no gradient is wasted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.attribution.quadrature import IntegrationResult, Path
from gradistill.errors import RecipeError


def integrated_to_tolerance(
    path: Path, *, tolerance: float = 0.01, max_nodes: int = 500, rows_at_once: int = 64
) -> IntegrationResult:
    """Integrated Gradients of a target with one view, for each row up to ``tolerance`` or ``max_nodes`` nodes.

    The tolerance bounds the sum of the intervals' absolute completeness errors, relative to ``|F(E) − F(E')|``, so that
    errors cannot cancel. It also bounds the estimated distance of the attributions from the integral, relative to their
    norm (Richardson, for each interval). A row's nodes do not depend on other rows.

    ``rows_at_once`` nodes, of any rows, run together. In addition, one gradient is kept in memory for each node of an
    unfinished row.

    Raises RecipeError for a path with several views, or for ``max_nodes`` below 9.
    """
    _refuse_several(path.values.shape[1])
    _refuse_few(max_nodes)
    difference = path.difference
    rows = [_Row(each) for each in difference]
    while missing := [(k, alpha) for k, row in enumerate(rows) for alpha in row.unknown()]:
        for start in range(0, len(missing), rows_at_once):
            group = missing[start : start + rows_at_once]
            for (k, alpha), node in zip(group, _nodes(path, group), strict=True):
                rows[k].nodes[alpha] = node
        for row in rows:
            row.advance(tolerance, max_nodes)
    integrals = torch.stack([row.integral for row in rows if row.integral is not None])
    return IntegrationResult(
        difference * integrals,
        difference.new_tensor([row.residual for row in rows]),
        torch.tensor([row.taken for row in rows]),
    )


Interval = tuple[float, float]
FEWEST = 9
"""Fewest nodes: those of the two first intervals and of their halves."""


class _Node(NamedTuple):
    """One point of a path: F, its derivative along the path, and its gradient ``(token, hidden)``."""

    value: float
    slope: float
    gradient: Tensor


class _Row:
    """One example: the current intervals of its path, and the nodes at their ends and midpoints."""

    def __init__(self, difference: Float[Tensor, "token hidden"]) -> None:
        self.difference = difference
        self.doubts: dict[Interval, float] = {}
        """For each interval the estimated error of its attributions, from comparison with the halved interval."""
        self.cut: list[Interval] = []
        self.nodes: dict[float, _Node] = {}
        self.integral: Tensor | None = None
        self.residual, self.taken = float("nan"), 0
        self._halve((0.0, 0.25))
        self._halve((0.25, 1.0))

    def unknown(self) -> list[float]:
        """The points at which gradients are needed next; empty once the path is finished."""
        if self.integral is not None:
            return []
        return sorted({alpha for interval in self.doubts for alpha in _three(*interval)} - self.nodes.keys())

    def advance(self, tolerance: float, max_nodes: int) -> None:
        """Finish, or halve the fewest intervals such that the errors of the others are within the tolerance."""
        if self.integral is not None:
            return
        self._compare()
        intervals = list(self.doubts)
        change = self.nodes[1.0].value - self.nodes[0.0].value
        whole = self._simpson(*intervals)
        residuals = np.asarray([self._missed(*interval) for interval in intervals])
        errors = np.asarray([self.doubts[interval] for interval in intervals])
        halved = dict.fromkeys(
            [
                *_beyond(np.abs(residuals), tolerance * abs(change)),
                *_beyond(errors, tolerance * float((whole * self.difference).norm())),
            ]
        )
        room = (max_nodes - len(self.nodes)) // 2
        if not halved or not room:
            self.integral, self.residual = whole, float(residuals.sum()) / max(abs(change), 1e-12)
            self.taken = len(self.nodes)
            self.nodes.clear()
        for place in list(halved)[:room]:
            self._halve(intervals[place])

    def _halve(self, interval: Interval) -> None:
        first, middle, last = _three(*interval)
        self.doubts.pop(interval, None)
        self.doubts |= {(first, middle): 0.0, (middle, last): 0.0}
        self.cut.append(interval)

    def _compare(self) -> None:
        """Estimate the errors of new halves: Simpson's error falls to 1/16, so it is 1/15 of the difference."""
        for interval in self.cut:
            first, middle, last = _three(*interval)
            halves = (first, middle), (middle, last)
            change = (self._simpson(interval) - self._simpson(*halves)) * self.difference
            self.doubts |= dict.fromkeys(halves, float(change.norm()) / 15 / 2)
        self.cut.clear()

    def _missed(self, start: float, end: float) -> float:
        first, middle, last = (self.nodes[alpha] for alpha in _three(start, end))
        simpson = (end - start) / 6 * (first.slope + 4 * middle.slope + last.slope)
        return simpson - (last.value - first.value)

    def _simpson(self, *intervals: Interval) -> Float[Tensor, "token hidden"]:
        """The integral of the gradient over ``intervals`` by Simpson's rule."""
        total = torch.zeros_like(self.difference)
        for start, end in intervals:
            for alpha, share in zip(_three(start, end), (1, 4, 1), strict=True):
                total.add_(self.nodes[alpha].gradient, alpha=share * (end - start) / 6)
        return total


def _beyond(errors: np.ndarray, allowed: float) -> list[int]:
    """The indices of the largest errors, as few as possible, such that the others sum to at most ``allowed``."""
    worst = np.argsort(-errors)
    remaining = errors.sum() - np.append(0.0, errors[worst].cumsum())
    return worst[: int((remaining > allowed).sum())].tolist()


def _three(start: float, end: float) -> tuple[float, float, float]:
    return start, (start + end) / 2, end


def _nodes(path: Path, group: Sequence[tuple[int, float]]) -> Iterator[_Node]:
    difference = path.difference
    examples = torch.tensor([row for row, _ in group], device=difference.device)
    alphas = difference.new_tensor([alpha for _, alpha in group]).view(-1, 1, 1)
    rows = (path.baseline[examples] + alphas * difference[examples]).detach()
    with torch.enable_grad():
        point = path.at(rows, examples)
        gradients = point.gradients()[:, 0]
    slopes = torch.einsum("rtd,rtd->r", gradients, difference[examples])
    for value, slope, gradient in zip(point.values[:, 0].tolist(), slopes.tolist(), gradients, strict=True):
        yield _Node(value, slope, gradient.clone())


def _refuse_several(views: int) -> None:
    if views != 1:
        raise RecipeError(
            f"The target has {views} views, and steps: auto places nodes for each row.",
            expected="one view, as each view needs its own nodes",
            remedy="choose one label, or a fixed number of steps",
        )


def _refuse_few(max_nodes: int) -> None:
    if max_nodes < FEWEST:
        raise RecipeError(f"max_nodes is {max_nodes}", expected=f"{FEWEST} or more", remedy="raise max_nodes")
