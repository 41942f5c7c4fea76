"""Checks of an attribution method on one model: infidelity, max-sensitivity, and randomised weights.

Infidelity and max-sensitivity follow Yeh et al. 2019 ("On the (In)fidelity and Sensitivity of Explanations", arXiv
1901.09392). The check by randomised weights follows Adebayo et al. 2018 ("Sanity Checks for Saliency Maps", arXiv
1810.03292): a map that does not change when the weights become random does not depend on what the model learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gradistill.auditing.map_agreement import map_agreement
from gradistill.auditing.methods import Method, SignedMethod, WithAttributions, draws_tokens
from gradistill.auditing.per_example import Columns
from gradistill.auditing.predictions import predict_rows
from gradistill.auditing.statistics import Estimate, mean_estimate
from gradistill.data.batching import Collate, RowBatch, row_batches
from gradistill.data.changed_copies import draw_coalitions
from gradistill.errors import ModelError
from gradistill.models.eval_mode import frozen_eval
from gradistill.models.probe import ProbedModel
from gradistill.models.random_head import cascade_parameters, head_parameters, randomised
from gradistill.signals.explained import EXPLAINED_TARGET, explained_pass
from gradistill.signals.forward_pass import ForwardPass

NOISE = 0.1
"""The radius of max-sensitivity, relative to the root mean square of a row's embeddings."""

SAMPLES = 10
"""Noisy copies of a row; the largest change among them counts."""

UNCHANGED = 0.7
"""From this Spearman's ρ on, a map hardly changes under random weights: it shares half of the variance of its ranks
with a map that cannot depend on the trained weights."""

SEEDS = (0, 1, 2)
"""Seeds of the random weights. The result is the mean over them: single draws differ by up to .3."""


@dataclass(frozen=True)
class CheckedRows:
    """Encoded ``rows``, the ``labels`` to explain, and the row ``numbers`` that random draws depend on."""

    rows: Dataset
    collate: Collate
    labels: np.ndarray
    numbers: Sequence[int]
    seed: int = 0


def check_columns(model: ProbedModel, method: Method, checked: CheckedRows) -> Columns:
    """Columns of ``infidelity`` and ``max_sensitivity``, as far as they are defined for the method.

    ``infidelity_error`` is the mean of ``(Σ_removed a − (F(E) − F(E without them)))²`` over drawn sets of tokens whose
    embeddings become zero. ``infidelity_change`` is the mean of ``(F(E) − F(E without them))²``. The infidelity is the
    sum of the first over all rows, divided by the sum of the second. It is 0 for a model that is linear in the
    embeddings, and 1 for attributions of 0. ``F`` is the log-odds of the label, ``a`` the sum of a token's
    attributions. The paper does not divide, so a model with larger logits has a larger infidelity there. The
    perturbation is the paper's "square removal" with sets of tokens in place of squares.

    ``max_sensitivity`` is the largest ``‖Φ(E + u) − Φ(E)‖ / ‖Φ(E)‖`` over ``SAMPLES`` draws of u, each entry uniform
    within ±``NOISE`` of the row's root mean square; Φ is the map of the text's tokens. The paper's figure is not
    relative.

    Infidelity needs attributions (gradient × input, Integrated Gradients), max-sensitivity a method that reads
    embeddings (not occlusion, not Shapley values).
    """
    columns: dict[str, np.ndarray] = {}
    with frozen_eval(model.model):
        for row_batch in row_batches(
            checked.rows, checked.collate, model.device, labels=checked.labels, draws=draws_tokens(method)
        ):
            forward = explained_pass(model, row_batch.batch)
            for name, values in _of_batch(forward, method, row_batch, checked).items():
                column = columns.setdefault(name, np.full(len(checked.rows), np.nan))
                column[list(row_batch.places)] = values.cpu().numpy()
    return columns


def _of_batch(
    forward: ForwardPass, method: Method, some: RowBatch, checked: CheckedRows
) -> dict[str, Float[Tensor, " batch"]]:
    own = some.own_tokens.to(forward.logits.device)
    numbers = [checked.numbers[place] for place in some.places]
    values: dict[str, Tensor] = {}
    if isinstance(method, WithAttributions):
        attributions = method.attributions(forward).attributions.sum(dim=-1)
        predicted, actual = removals(forward, attributions, _removed(own, numbers, checked.seed))
        values |= {
            "infidelity_error": (predicted - actual).square().mean(-1),
            "infidelity_change": actual.square().mean(-1),
        }
    if not isinstance(method, SignedMethod):
        noise = _noise(forward.embedding, own, numbers, checked.seed)
        values["max_sensitivity"] = max_sensitivity(forward, method, own, noise)
    return values


def removals(
    forward: ForwardPass,
    attributions: Float[Tensor, "batch token"],
    removed: Bool[Tensor, "batch set token"],
) -> tuple[Float[Tensor, "batch set"], Float[Tensor, "batch set"]]:
    """The changes of F that attributions predict for ``removed`` sets of tokens, and the actual changes. Removed tokens
    have embeddings of zero."""
    batch, sets, _ = removed.shape
    examples = torch.arange(batch, device=removed.device).repeat_interleave(sets)
    values = []
    with torch.no_grad():
        pairs = zip(
            removed.flatten(0, 1).split(forward.rows_at_once),
            examples.split(forward.rows_at_once),
            strict=True,
        )
        for zeroed, of_rows in pairs:
            embeddings = forward.embedding[of_rows].masked_fill(zeroed.unsqueeze(-1), 0)
            values.append(forward.rerun(embeddings, of_rows, EXPLAINED_TARGET).values(EXPLAINED_TARGET)[:, 0])
    actual = forward.values(EXPLAINED_TARGET).detach() - torch.cat(values).view(batch, sets)
    return (attributions.unsqueeze(1) * removed).sum(-1).detach(), actual


def max_sensitivity(
    forward: ForwardPass,
    method: Method,
    own: Bool[Tensor, "batch token"],
    noise: Float[Tensor, "batch sample token hidden"],
) -> Float[Tensor, " batch"]:
    """The largest relative change of a map over the noisy copies of each row; NaN for a map of zeros."""
    examples = torch.arange(len(own), device=own.device)
    original = method(forward).detach() * own
    farthest = torch.zeros_like(original[:, 0])
    for of_sample in noise.unbind(1):
        with torch.enable_grad():
            noisy = forward.rerun(forward.embedding + of_sample, examples, EXPLAINED_TARGET)
            changed = method(noisy).detach() * own
        farthest = torch.maximum(farthest, (changed - original).norm(dim=-1))
    return farthest / original.norm(dim=-1)


def _removed(
    own: Bool[Tensor, "batch token"], numbers: Sequence[int], seed: int
) -> Bool[Tensor, "batch set token"]:
    """Random sets of the text's tokens, drawn like coalitions of words (``draw_coalitions``)."""
    kept = draw_coalitions(own.sum(-1).tolist(), seed=seed, rows=numbers)
    removed = torch.zeros(len(own), len(kept[0]), own.shape[1], dtype=torch.bool, device=own.device)
    for row, sets in enumerate(kept):
        removed[row][:, own[row]] = torch.as_tensor(~sets, device=own.device)
    return removed


def _noise(
    embedding: Float[Tensor, "batch token hidden"],
    own: Bool[Tensor, "batch token"],
    numbers: Sequence[int],
    seed: int,
) -> Float[Tensor, "batch sample token hidden"]:
    noise = torch.zeros(len(own), SAMPLES, *embedding.shape[1:]).to(embedding)
    for row, number in enumerate(numbers):
        values = embedding[row, own[row]]
        drawn = np.random.default_rng([seed, number, 2]).uniform(-NOISE, NOISE, (SAMPLES, *values.shape))
        noise[row][:, own[row]] = torch.as_tensor(drawn).to(values) * values.square().mean().sqrt()
    return noise


def agreement_when_random(model: ProbedModel, method: Method, checked: CheckedRows) -> dict[str, Estimate]:
    """Spearman's ρ of a model's maps with its maps under random weights, averaged over rows and ``SEEDS``.

    ``head``: classifier and pooler are random. ``blocks``: all blocks are random as well, so that only the embeddings
    are trained. Parts that cannot be told from the other weights are left out. The model's weights are restored.
    """
    trained = predict_rows(model, checked.rows, checked.collate, labels=checked.labels, method=method)
    estimates = {}
    for name, parameters in _randomisable(model.model).items():
        drawn = []
        for seed in SEEDS:
            with randomised(model.model, parameters, seed):
                random = predict_rows(
                    model, checked.rows, checked.collate, labels=checked.labels, method=method
                )
            drawn.append(map_agreement(random.maps, trained.maps)["saliency"])
        rho = np.mean(drawn, axis=0)
        if len(rho := rho[np.isfinite(rho)]):
            estimates[name] = mean_estimate(rho, bounds=(-1.0, 1.0), seed=checked.seed)
    return estimates


def random_map_warnings(found: Mapping[str, Estimate], method: Method) -> list[str]:
    """A warning if the maps hardly change under random blocks: they do not depend on what the model learnt.

    A random head alone gives no warning. It reads the same trained blocks, so the maps of all methods agree by .8 or
    more; the floors of the figures account for that.
    """
    blocks = found.get("blocks")
    if blocks is None or blocks.value < UNCHANGED:
        return []
    return [
        f"{method.title} of the teacher hardly changes when its head and all of its blocks are random "
        f"(ρ = {blocks.value:.2f}): the map does not depend on what the model learnt. Take another --attribution, or "
        "read the figures on changed words"
    ]


def _randomisable(model: nn.Module) -> dict[str, Mapping[str, nn.Parameter]]:
    try:
        head = head_parameters(model)
    except ModelError:
        return {}
    try:
        return {"head": head, "blocks": cascade_parameters(model)[-1]}
    except ModelError:
        return {"head": head}
