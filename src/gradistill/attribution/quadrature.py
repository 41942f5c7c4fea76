"""Integrated Gradients (Sundararajan et al. 2017) at the embedding output, differentiable on request.

``A = (E − E') ⊙ Σ_j w_j ∇_E F(E' + α_j (E − E'))``, with nodes α and weights w of a quadrature rule on [0, 1]
and baseline E' (zero unless given). AD-KD (eq. 3) uses the right Riemann sum, ``α_k = k/m``, ``w = 1/m``;
``m = 1`` is gradient × input. All other uses default to Gauss–Legendre, whose error falls exponentially in m.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradistill.errors import RecipeError

Rule = Literal["right_riemann", "gauss_legendre"]


class PathPoint(NamedTuple):
    """A target at given embedding outputs: its ``values`` ``(row, view)``, and a function that returns its gradients
    ``(row, view, token, hidden)``."""

    values: Float[Tensor, "row view"]
    gradients: Callable[[], Float[Tensor, "row view token hidden"]]


@dataclass(frozen=True, eq=False)
class Path:
    """The straight line from a ``baseline`` to the ``embedding`` of each example of a batch, and a target along it.

    ``values`` are the target's values at the embedding. ``at(embeddings, examples)`` evaluates the target at other
    points; ``examples`` is the index of the example that each row belongs to. Create it with ``ForwardPass.path``.
    """

    embedding: Float[Tensor, "batch token hidden"]
    baseline: Float[Tensor, "batch token hidden"]
    values: Float[Tensor, "batch view"]
    at: Callable[[Float[Tensor, "row token hidden"], Int[Tensor, " row"]], PathPoint]

    @cached_property
    def difference(self) -> Float[Tensor, "batch token hidden"]:
        return self.embedding - self.baseline

    @property
    def examples(self) -> Int[Tensor, " batch"]:
        """The indices of all examples."""
        return torch.arange(len(self.embedding), device=self.embedding.device)

    def gradients(
        self, embeddings: Float[Tensor, "row token hidden"], examples: Int[Tensor, " row"]
    ) -> Float[Tensor, "row view token hidden"]:
        with torch.enable_grad():
            return self.at(embeddings, examples).gradients()


class IntegrationResult(NamedTuple):
    """Attributions of one view. ``residuals`` are ``(Σ A − (F(E) − F(E'))) / |F(E) − F(E')|``. ``nodes`` is the number
    of gradients of each row."""

    attributions: Float[Tensor, "batch token hidden"]
    residuals: Float[Tensor, " batch"]
    nodes: Int[Tensor, " batch"]


def quadrature(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a quadrature rule on [0, 1], float64 ``(steps,)`` each. Raises RecipeError for steps < 1."""
    if steps < 1:
        raise RecipeError(
            f"Integrated Gradients has {steps} integration steps.",
            expected="1 or more",
            remedy="set steps to 1 or more",
        )
    if rule == "right_riemann":
        return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def integrated_gradients(
    path: Path, *, steps: int, rule: Rule = "gauss_legendre", rows_at_once: int = 64
) -> Float[Tensor, "batch view token hidden"]:
    """Attributions of every view, with ``steps`` nodes of a quadrature rule.

    Nodes run in groups of at most ``rows_at_once`` rows (at least one node). Without a graph of the gradients, peak
    memory therefore does not grow with ``steps``. Raises RecipeError for steps < 1.
    """
    nodes, weights = quadrature(rule, steps)
    difference, batch = path.difference, len(path.embedding)
    group = max(1, rows_at_once // batch)
    total: Tensor | None = None
    for first in range(0, steps, group):
        alphas = torch.as_tensor(nodes[first : first + group]).to(difference)
        rows = (path.baseline + alphas.view(-1, 1, 1, 1) * difference).flatten(0, 1)
        gradients = path.gradients(rows, path.examples.repeat(len(alphas)))
        share = torch.as_tensor(weights[first : first + group]).to(difference)
        summed = torch.einsum("r,rbvtd->bvtd", share, gradients.unflatten(0, (len(alphas), batch)))
        total = summed if total is None else total + summed
    assert total is not None  # quadrature() refuses zero steps
    return difference.unsqueeze(1) * total


def completeness_residual(
    attributions: Float[Tensor, "batch view token hidden"],
    at_input: Float[Tensor, "batch view"],
    at_baseline: Float[Tensor, "batch view"],
) -> Float[Tensor, "batch view"]:
    """``Σ A − (F(E) − F(E'))``: zero for the exact integral (completeness, Sundararajan et al. 2017)."""
    return attributions.sum((-2, -1)) - (at_input - at_baseline)


def integrated_in_steps(path: Path, *, steps: int, rows_at_once: int = 64) -> IntegrationResult:
    """``integrated_gradients`` of a target with one view, with their completeness residuals."""
    attributions = integrated_gradients(path, steps=steps, rows_at_once=rows_at_once)
    with torch.no_grad():
        at_input, at_baseline = path.values.detach(), path.at(path.baseline, path.examples).values
    residuals = completeness_residual(attributions, at_input, at_baseline) / (
        at_input - at_baseline
    ).abs().clamp(min=1e-12)
    return IntegrationResult(attributions[:, 0], residuals[:, 0], torch.full_like(path.examples, steps))
