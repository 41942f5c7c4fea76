"""Integrated Gradients with nodes placed row by row, where the path is not smooth.

A fine-tuned encoder changes its mind within a narrow stretch of the path, a different one for every text: a rule
that spends the same nodes on all of it needs hundreds. Here each row runs an adaptive Simpson rule that checks every
interval twice. Is it complete? Completeness (Sundararajan et al. 2017) holds on every interval of the path,
``∫_a^b ∇F · (E − E') dα = F(b) − F(a)``, and F stands beside the gradient at every node. That is one number, which can
be right by chance, or because what is wrong with two entries cancels. So: are its attributions those of the interval
that it was cut from? Halving an interval keeps its three nodes and adds two: no gradient is taken in vain.
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
    """Integrated Gradients of a target's one view, each row to ``tolerance`` or to ``max_nodes`` nodes.

    The tolerance bounds what the intervals miss in absolute value, summed and as a share of ``|F(E) − F(E')|``: two of
    them cannot pass by cancelling. It also bounds the estimated distance of the attributions from the integral, as a
    share of their norm (Richardson, interval by interval). A row's nodes do not depend on the rows beside it.
    ``rows_at_once`` nodes of any rows run together; beside them, one gradient is kept for each node of a row that is
    not done.

    Raises RecipeError for a path with several views, or where ``max_nodes`` is under 9.
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
"""Nodes of the first intervals, and of their halves."""


class _Node(NamedTuple):
    """F, its derivative along the path, and its gradient ``(token, hidden)`` at one point of a path."""

    value: float
    slope: float
    gradient: Tensor


class _Row:
    """One example: the intervals that its path is cut into, and the nodes at their ends and middles."""

    def __init__(self, difference: Float[Tensor, "token hidden"]) -> None:
        self.difference = difference
        self.doubts: dict[Interval, float] = {}
        """By how much the attributions of each interval may be wrong, going by the one that it was cut from."""
        self.cut: list[Interval] = []
        self.nodes: dict[float, _Node] = {}
        self.integral: Tensor | None = None
        self.residual, self.taken = float("nan"), 0
        self._halve((0.0, 0.25))
        self._halve((0.25, 1.0))

    def unknown(self) -> list[float]:
        """Where the gradient is needed next; nowhere once the path is done."""
        if self.integral is not None:
            return []
        return sorted({alpha for interval in self.doubts for alpha in _three(*interval)} - self.nodes.keys())

    def advance(self, tolerance: float, max_nodes: int) -> None:
        """Finish, or halve the fewest intervals without which the rest would be within the tolerance."""
        if self.integral is not None:
            return
        self._compare()
        intervals = list(self.doubts)
        change = self.nodes[1.0].value - self.nodes[0.0].value
        whole = self._simpson(*intervals)
        missed = np.asarray([self._missed(*interval) for interval in intervals])
        wrong = np.asarray([self.doubts[interval] for interval in intervals])
        halved = dict.fromkeys(
            [
                *_beyond(np.abs(missed), tolerance * abs(change)),
                *_beyond(wrong, tolerance * float((whole * self.difference).norm())),
            ]
        )
        room = (max_nodes - len(self.nodes)) // 2
        if not halved or not room:
            self.integral, self.residual = whole, float(missed.sum()) / max(abs(change), 1e-12)
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
        """What was cut, with its halves: Simpson's error is 1/16 on these, so a 15th of the difference is theirs."""
        for interval in self.cut:
            first, middle, last = _three(*interval)
            halves = (first, middle), (middle, last)
            apart = (self._simpson(interval) - self._simpson(*halves)) * self.difference
            self.doubts |= dict.fromkeys(halves, float(apart.norm()) / 15 / 2)
        self.cut.clear()

    def _missed(self, start: float, end: float) -> float:
        first, middle, last = (self.nodes[alpha] for alpha in _three(start, end))
        simpson = (end - start) / 6 * (first.slope + 4 * middle.slope + last.slope)
        return simpson - (last.value - first.value)

    def _simpson(self, *intervals: Interval) -> Float[Tensor, "token hidden"]:
        """The integral of the gradient over these intervals."""
        total = torch.zeros_like(self.difference)
        for start, end in intervals:
            for alpha, share in zip(_three(start, end), (1, 4, 1), strict=True):
                total.add_(self.nodes[alpha].gradient, alpha=share * (end - start) / 6)
        return total


def _beyond(errors: np.ndarray, allowed: float) -> list[int]:
    """The fewest of them, the largest first, without which the rest add up to no more than is allowed."""
    worst = np.argsort(-errors)
    left = errors.sum() - np.append(0.0, errors[worst].cumsum())
    return worst[: int((left > allowed).sum())].tolist()


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
            f"The target has {views} views, and steps are chosen for each row.",
            expected="one view: each would want nodes of its own",
            remedy="name the label, or take a fixed number of steps",
        )


def _refuse_few(max_nodes: int) -> None:
    if max_nodes < FEWEST:
        raise RecipeError(
            f"at most {max_nodes} nodes were allowed", expected=f"{FEWEST} or more", remedy="raise max_nodes"
        )
