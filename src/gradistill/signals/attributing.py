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
from gradistill.errors import RecipeError
from gradistill.models.still import still
from gradistill.signals.asking import Collate, Rows, questions
from gradistill.signals.hearing import TARGET, Heard

Steps = int | Literal["auto"]
METHODS = ("gradient_x_input", "integrated_gradients")


@dataclass(frozen=True)
class Attributed:
    """What one row's logits rest on: ``attributions`` of its real tokens, for the log-odds of ``label``.

    ``place`` is the row's place among those asked about. ``residual`` says by which share of
    ``|F(E) − F(0)|`` the attributions miss completeness (NaN for gradient × input, which does not claim it), and
    ``nodes`` how many gradients they took.
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
    ``tokens_at_once`` tokens with their padding, but for a longer row alone. The model is asked in eval mode and
    left as it was. Raises RecipeError for another method, or less than one step.
    """
    if method not in METHODS:
        raise RecipeError(
            f"the method {method!r}", expected=" or ".join(METHODS), remedy="choose one of these"
        )
    gradient = method == "gradient_x_input"
    lengths = [len(rows[place]["input_ids"]) for place in range(len(rows))]
    # Nodes fill the forward passes of Integrated Gradients: few rows, of nearly equal length, share a batch.
    budget = tokens_at_once if gradient else tokens_at_once // 8
    for question in questions(model, rows, collate, lengths=lengths, tokens_at_once=budget):
        mask = question.batch.mask
        with still(model):  # not around the yield: who stops listening leaves the model as it was
            heard = Heard.about(model, question, labels)
            together = max(1, tokens_at_once // mask.shape[1])
            found = _gradient_x_input(heard) if gradient else integrated(heard, steps, tolerance, together)
        own = zip(question.places, heard.labels.tolist(), found.attributions, mask, *found[1:], strict=True)
        for place, label, attributions, real, residual, nodes in own:
            yield Attributed(place, label, attributions[real], float(residual), int(nodes))


def integrated(
    heard: Heard, steps: Steps, tolerance: float = 0.01, rows_at_once: int | None = None
) -> Integrated:
    """Integrated Gradients of what was heard, from a zero baseline: ``steps`` and ``tolerance`` as in ``attribute``."""
    together = rows_at_once or heard.rows_at_once
    if steps == "auto":
        return integrated_to_tolerance(
            heard.run, heard.embedding, TARGET, heard.at, tolerance=tolerance, rows_at_once=together
        )
    return integrated_in_steps(
        heard.run, heard.embedding, heard.logits, TARGET, heard.at, steps=steps, rows_at_once=together
    )


def _gradient_x_input(heard: Heard) -> Integrated:
    residuals = torch.full_like(heard.logits[:, 0], torch.nan)
    return Integrated(heard.embedding * heard.gradient, residuals, torch.ones_like(heard.labels))
