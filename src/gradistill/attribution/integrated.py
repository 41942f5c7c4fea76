"""Integrated Gradients (Sundararajan et al. 2017) at the embedding output, differentiable on request.

``A = (E − E') ⊙ Σ_j w_j ∇_E F(E' + α_j (E − E'))``, with nodes α and weights w of a quadrature rule on [0, 1]
and baseline E' (zero unless given). AD-KD (eq. 3) uses the right Riemann sum, ``α_k = k/m``, ``w = 1/m``;
``m = 1`` is gradient × input. Elsewhere Gauss–Legendre is the default: its error falls exponentially in m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradistill.attribution.gradients import view_gradients
from gradistill.attribution.targets import Target
from gradistill.errors import RecipeError

Rule = Literal["right_riemann", "gauss_legendre"]
Run = Callable[[Float[Tensor, "rows token hidden"], int], Float[Tensor, "rows label"]]
"""Logits from embedding outputs; the integer says how often the batch is repeated in the rows."""
RunRows = Callable[[Float[Tensor, "rows token hidden"], Int[Tensor, " rows"]], Float[Tensor, "rows label"]]
"""Logits from embedding outputs; the integers say which example of the batch each row is."""


class Integrated(NamedTuple):
    """Attributions for one view. ``residuals`` are ``(Σ A − (F(E) − F(E'))) / |F(E) − F(E')|``; ``nodes`` how many
    gradients each row took."""

    attributions: Float[Tensor, "batch token hidden"]
    residuals: Float[Tensor, " batch"]
    nodes: Int[Tensor, " batch"]


def quadrature(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights, float64 ``(steps,)`` each, of a rule on [0, 1]. Raises RecipeError for steps < 1."""
    if steps < 1:
        raise RecipeError(
            f"{steps} integration steps were asked for", expected="1 or more", remedy="set steps to 1 or more"
        )
    if rule == "right_riemann":
        return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def integrated_gradients(
    run: Run,
    embedding: Float[Tensor, "batch token hidden"],
    target: Target,
    at: Tensor | None,
    *,
    steps: int,
    rule: Rule = "gauss_legendre",
    baseline: Float[Tensor, "batch token hidden"] | None = None,
    rows_at_once: int = 64,
    create_graph: bool = False,
) -> Float[Tensor, "batch view token hidden"]:
    """Attributions of every view. ``at`` is what ``target.resolve`` said at the input itself.

    The nodes run in groups of at most ``rows_at_once`` rows (at least one node), so that without
    ``create_graph`` peak memory does not grow with ``steps``. With it the graph of every node is kept.
    """
    nodes, weights = quadrature(rule, steps)
    origin = torch.zeros_like(embedding) if baseline is None else baseline
    difference = embedding - origin
    batch = embedding.shape[0]
    group = max(1, rows_at_once // batch)
    total: Tensor | None = None
    for first in range(0, steps, group):
        alphas = torch.as_tensor(nodes[first : first + group]).to(embedding)
        scaled = origin + alphas.view(-1, 1, 1, 1) * difference
        gradients = _gradients_at(run, scaled.flatten(0, 1), target, at, len(alphas), create_graph)
        share = torch.as_tensor(weights[first : first + group]).to(embedding)
        summed = torch.einsum("r,rbvtd->bvtd", share, gradients.unflatten(0, (len(alphas), batch)))
        total = summed if total is None else total + summed
    assert total is not None  # quadrature() refuses zero steps
    return difference.unsqueeze(1) * total


def _gradients_at(
    run: Run, rows: Tensor, target: Target, at: Tensor | None, times: int, create_graph: bool
) -> Tensor:
    if not create_graph:
        rows = rows.detach()
    if not rows.requires_grad:
        rows = rows.requires_grad_()
    with torch.enable_grad():
        logits = run(rows, times)
        values = target.values(logits, None if at is None else at.repeat(times))
        (gradients,) = view_gradients(
            values, logits, [rows], create_graph=create_graph, shift_invariant=target.shift_invariant
        )
    return gradients


def completeness_residual(
    attributions: Float[Tensor, "batch view token hidden"],
    at_input: Float[Tensor, "batch view"],
    at_baseline: Float[Tensor, "batch view"],
) -> Float[Tensor, "batch view"]:
    """``Σ A − (F(E) − F(E'))``: zero for the exact integral (completeness, Sundararajan et al. 2017)."""
    return attributions.sum((-2, -1)) - (at_input - at_baseline)


def integrated_in_steps(
    run: RunRows,
    embedding: Float[Tensor, "batch token hidden"],
    logits: Float[Tensor, "batch label"],
    target: Target,
    at: Tensor | None,
    *,
    steps: int,
    baseline: Float[Tensor, "batch token hidden"] | None = None,
    rows_at_once: int = 64,
) -> Integrated:
    """``integrated_gradients`` of a target's one view, and by how much they miss completeness.

    ``logits`` are those at the input itself.
    """
    origin = torch.zeros_like(embedding) if baseline is None else baseline
    every = torch.arange(len(embedding), device=embedding.device)
    attributions = integrated_gradients(
        lambda rows, times: run(rows, every.repeat(times)),
        embedding,
        target,
        at,
        steps=steps,
        baseline=origin,
        rows_at_once=rows_at_once,
    )
    with torch.no_grad():
        here, there = target.values(logits, at), target.values(run(origin, every), at)
    missed = completeness_residual(attributions, here, there) / (here - there).abs().clamp(min=1e-12)
    return Integrated(attributions[:, 0], missed[:, 0], torch.full_like(every, steps))
