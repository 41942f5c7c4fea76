"""Inner gradients: derivatives of target values with respect to sites inside the model.

Teacher and student use the same function; ``create_graph`` keeps the graph for the second derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradistill.errors import ModelError


def inner_gradients_needed(views: int, labels: int, *, shift_invariant: bool) -> int:
    """The number of inner gradients that ``view_gradients`` takes: at most C − 1 for shift-invariant targets."""
    return min(views, max(labels - 1, 1)) if shift_invariant else views


def view_gradients(
    values: Float[Tensor, "batch view"],
    logits: Float[Tensor, "batch label"],
    sites: Sequence[Tensor],
    *,
    create_graph: bool,
    shift_invariant: bool = True,
) -> list[Tensor]:
    """Gradients of every view at every site, ``(batch, view, *site.shape[1:])`` each.

    Each example's ``values`` must be a function of its ``logits``. With ``w = ∂values/∂logits`` the gradient of view v
    is ``Σ_k w_vk ∇z_k``. If every row of w sums to zero, this is ``Σ_{k≥1} w_vk ∇(z_k − z_0)``, so C − 1 inner
    gradients serve any number of views (docs/methods.md for −log p); in a regression one serves all views. The weights
    ``w`` keep their graph, so the second derivative is complete. The graph of ``logits`` is retained. Gradients are in
    float32 or wider, whatever the sites' dtype.

    Raises ModelError if the logits do not depend on a site.
    """
    views, labels = values.shape[1], logits.shape[1]
    if inner_gradients_needed(views, labels, shift_invariant=shift_invariant) == views:
        return _stacked([values[:, v] for v in range(views)], sites, create_graph)
    weights = _stacked([values[:, v] for v in range(views)], [logits], create_graph)[0]
    single = labels == 1  # regression: all views are functions of the single output
    scalars = [logits[:, 0]] if single else [logits[:, k] - logits[:, 0] for k in range(1, labels)]
    basis = _stacked(scalars, sites, create_graph)
    weights = weights if single else weights[:, :, 1:]
    return [torch.einsum("bvk,bk...->bv...", weights, site) for site in basis]


def _stacked(scalars: Sequence[Tensor], sites: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    per_scalar = [
        torch.autograd.grad(
            scalar.sum(), sites, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        for scalar in scalars
    ]
    for position, gradient in enumerate(per_scalar[0]):
        if gradient is None:
            raise ModelError(
                f"site {position} of the model does not reach its logits: it has no gradient",
                expected="a hidden state that the following layers read",
                remedy="choose another site or layer map",
            )
    return [widened(torch.stack(gradients, dim=1)) for gradients in zip(*per_scalar, strict=True)]


def widened(values: Tensor) -> Tensor:
    """Outputs or gradients in float32 or wider: targets and losses are never computed in half precision."""
    return values if values.dtype == torch.float64 else values.float()
