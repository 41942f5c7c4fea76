"""Faithfulness: does a decision change when the tokens that it rests on are taken away, or kept alone?

Comprehensiveness and sufficiency are those of ERASER (DeYoung et al. 2020): the drop in the probability of the
explained label, averaged over the top 1, 5, 10, 20 and 50 % of the tokens (at least one). In a regression it is the
absolute change of the prediction. How large they can get at all depends on the model, so two models may only be
compared after each example's value is set between the least and the most that any order of its tokens reaches (NAOPC,
Edin et al. 2025, arXiv 2408.08137): 0 to 1. The paper searches these bounds by brute force or beam search; **ours are
the orders by each token's own effect**, from both ends, and the judged order itself: 2 T + 30 forward passes a
text. They may be too narrow, but no value leaves 0..1.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradistill.signals.explained import explained_labels
from gradistill.signals.forward_pass import ForwardPass

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


def faithfulness(
    forward: ForwardPass, scores: Float[Tensor, "batch token"], own: Bool[Tensor, "batch token"]
) -> dict[str, Float[Tensor, " batch"]]:
    """``comprehensiveness`` (more is better) and ``sufficiency`` (less is better), raw and ``normalised_…``.

    ``own`` marks the tokens that may be taken away. Normalised values are NaN where no order changes anything.
    """
    each = _effects_of_single_tokens(forward, own)
    found = {}
    for name, kept in (("comprehensiveness", False), ("sufficiency", True)):
        orders = [scores, each[name], -each[name]]
        curves = torch.stack([_mean_effect(forward, order, own, kept=kept) for order in orders])
        low, high = curves.amin(0), curves.amax(0)
        found[name] = curves[0]
        found[f"normalised_{name}"] = torch.where(high > low, (curves[0] - low) / (high - low), torch.nan)
    return found


def _effects_of_single_tokens(
    forward: ForwardPass, own: Bool[Tensor, "batch token"]
) -> dict[str, Float[Tensor, "batch token"]]:
    """What each token's absence does, and what is lost where it stands alone."""
    places, tokens = own.nonzero(as_tuple=True)
    alone = torch.nn.functional.one_hot(tokens, own.shape[1]).bool()
    found = {}
    for name, erased in (("comprehensiveness", alone), ("sufficiency", own[places] & ~alone)):
        effects = torch.zeros(own.shape, dtype=forward.logits.dtype, device=own.device)
        effects[places, tokens] = _effect(forward, erased, places)
        found[name] = effects
    return found


def _mean_effect(
    forward: ForwardPass, order: Float[Tensor, "batch token"], own: Bool[Tensor, "batch token"], *, kept: bool
) -> Float[Tensor, " batch"]:
    """The effect of taking the top tokens of an order away (or all others), averaged over ``SHARES``."""
    ranks = order.masked_fill(~own, -torch.inf).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    places = torch.arange(len(own), device=own.device)
    counts = [(own.sum(-1, keepdim=True) * share).ceil().clamp(min=1) for share in SHARES]
    erased = [own & ((ranks >= count) if kept else (ranks < count)) for count in counts]
    effects = _effect(forward, torch.cat(erased), places.repeat(len(SHARES)))
    return effects.view(len(SHARES), -1).mean(0)


def _effect(
    forward: ForwardPass, erased: Bool[Tensor, "row token"], places: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    whole, logits = forward.logits.detach(), forward.erase(erased, places)
    if logits.shape[1] == 1:
        return (whole[places] - logits)[:, 0].abs()
    drop = whole.softmax(-1)[places] - logits.softmax(-1)
    return drop.gather(1, explained_labels(forward)[places].unsqueeze(1))[:, 0]
