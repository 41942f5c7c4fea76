"""The attributions of many rows, fast: rows of like length together, within a budget of tokens and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradistill.attribution.adaptive import integrated_to_tolerance
from gradistill.attribution.integrated import Integrated, integrated_in_steps
from gradistill.data.batching import Collate, Rows, row_batches
from gradistill.errors import RecipeError
from gradistill.models.probe import ProbedModel
from gradistill.models.still import still
from gradistill.signals.explained import EXPLAINED, explained_labels, explained_pass
from gradistill.signals.forward_pass import ForwardPass

Steps = int | Literal["auto"]
METHODS = ("gradient_x_input", "integrated_gradients")


@dataclass(frozen=True)
class Attributed:
    """What one row's logits rest on: ``attributions`` of its real tokens, for the log-odds of ``label``.

    ``place`` is the row's place among all rows. ``residual`` is the share of ``|F(E) − F(0)|`` by which the
    attributions miss completeness (NaN for gradient × input, which does not claim it), ``nodes`` how many gradients
    they took.
    """

    place: int
    label: int
    attributions: Float[Tensor, "token hidden"]
    residual: float
    nodes: int


def attribute(
    model: nn.Module,
    rows: Rows,
    collate: Collate,
    *,
    method: str = "integrated_gradients",
    steps: Steps = "auto",
    tolerance: float = 0.01,
    labels: Sequence[int] | None = None,
    tokens_at_once: int = 1024,
) -> Iterator[Attributed]:
    """Attributions at the embedding output of encoded rows, as they are done: the longest rows first.

    ``method`` is ``integrated_gradients`` from a zero baseline, or ``gradient_x_input``. What is explained are the
    log-odds of each row's label in ``labels``, else of the label that the model predicts (the prediction in a
    regression). ``steps`` are those of Gauss–Legendre, or ``"auto"``: as many as each row needs to miss
    completeness by no more than ``tolerance`` (``attribution.adaptive``). No forward pass holds more than
    ``tokens_at_once`` tokens with their padding, but for a longer row alone. The model computes in eval mode and is
    left as it was. Raises RecipeError for another method, or less than one step.

    Example::

        for row in attribute(model, encoded.dataset, Collator(tokenizer)):
            print(row.place, row.attributions.norm(dim=-1))
    """
    if method not in METHODS:
        raise RecipeError(
            f"the method {method!r}", expected=" or ".join(METHODS), remedy="choose one of these"
        )
    gradient = method == "gradient_x_input"
    # Nodes fill the forward passes of Integrated Gradients: few rows, of nearly equal length, share a batch.
    budget = tokens_at_once if gradient else tokens_at_once // 8
    probed = ProbedModel.of(model)
    for some in row_batches(rows, collate, probed.device, tokens_at_once=budget, labels=labels):
        mask = some.batch.mask
        with still(model):  # not around the yield: whoever stops iterating leaves the model as it was
            forward = explained_pass(probed, some.batch)
            together = max(1, tokens_at_once // mask.shape[1])
            integrated = (
                _gradient_x_input(forward)
                if gradient
                else integrate(forward, steps, tolerance, rows_at_once=together)
            )
            labels_of = explained_labels(forward).tolist()
        columns = zip(some.places, labels_of, integrated.attributions, mask, *integrated[1:], strict=True)
        for place, label, attributions, real, residual, nodes in columns:
            yield Attributed(place, label, attributions[real], float(residual), int(nodes))


def integrate(
    forward: ForwardPass, steps: Steps, tolerance: float = 0.01, *, rows_at_once: int | None = None
) -> Integrated:
    """Integrated Gradients of ``EXPLAINED`` from a zero baseline: ``steps`` and ``tolerance`` as in ``attribute``."""
    together = rows_at_once or forward.rows_at_once
    path = forward.path(EXPLAINED)
    if steps == "auto":
        return integrated_to_tolerance(path, tolerance=tolerance, rows_at_once=together)
    return integrated_in_steps(path, steps=steps, rows_at_once=together)


def _gradient_x_input(forward: ForwardPass) -> Integrated:
    residuals = torch.full_like(forward.logits[:, 0], torch.nan)
    attributions = forward.embedding * forward.gradients(EXPLAINED)[:, 0]
    return Integrated(attributions, residuals, torch.ones_like(explained_labels(forward)))
