"""What one model says about one batch. Teacher and student run this same code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gradistill.attribution.gradients import view_gradients
from gradistill.attribution.integrated import integrated_gradients
from gradistill.attribution.scores import signed_scores, token_scores
from gradistill.attribution.targets import Target
from gradistill.errors import ModelError
from gradistill.models.attention import Heads, attending
from gradistill.models.probe import Probe
from gradistill.models.tracing import unwrapped
from gradistill.objectives._contract import (
    AttentionVectors,
    AttributionScores,
    ClsGradient,
    ClsStates,
    Gradients,
    InputGradient,
    Logits,
    OfLayers,
    Part,
    Request,
    States,
)
from gradistill.types import UNLABELLED, Batch

Said = Mapping[Request, Tensor]
PARTS = get_args(Part)


@dataclass(frozen=True)
class _Passed:
    """One forward pass. ``embedding`` is there where something is differentiated with respect to it.

    ``sites`` are the states inside the model: DistributedDataParallel gives out copies, which a loss must be made of,
    but from which no path leads to the logits.
    """

    logits: Tensor
    states: tuple[Tensor, ...]
    sites: tuple[Tensor, ...]
    attention: list[Heads]
    embedding: Tensor | None


@dataclass(frozen=True)
class _Differentiated:
    """``gradients[target]`` holds one tensor a site: the embedding output, then the states after ``layers``."""

    at: Mapping[Target, Tensor | None]
    gradients: Mapping[Target, list[Tensor]]
    layers: tuple[int, ...]


def speak(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    requests: Iterable[Request],
    *,
    create_graph: bool,
    teacher_labels: Tensor | None = None,
    rows_at_once: int = 64,
    share_views: bool = True,
) -> Said:
    """Answer every request from one forward pass and one call for all inner gradients.

    With ``create_graph`` everything keeps its graph (a student in training); without it everything is detached.
    ``teacher_labels`` are the labels that the teacher predicts, for targets with view ``teacher``; where there
    are none this model's own predictions stand in, because then it is the teacher. Integrated Gradients of
    several steps run forward again, at most ``rows_at_once`` rows at a time. Without ``share_views`` every view takes
    an inner gradient of its own, as the papers' code does.
    """
    wanted = tuple(dict.fromkeys(requests))
    targets = tuple(dict.fromkeys(r.target for r in wanted if isinstance(r, Gradients)))
    with torch.set_grad_enabled(create_graph or bool(targets)):
        passed = _run(model, probe, batch, wanted, tapped=bool(targets))
        layers = sorted({k for r in wanted if isinstance(r, ClsGradient) for k in r.layers})
        found = _differentiate(passed, batch, targets, layers, create_graph, teacher_labels, share_views)
        said = {
            request: _answer(model, probe, batch, passed, found, request, create_graph, rows_at_once)
            for request in wanted
        }
    return said if create_graph else {request: tensor.detach() for request, tensor in said.items()}


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 at least: targets and losses are never computed in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _run(
    model: nn.Module, probe: Probe, batch: Batch, requests: Sequence[Request], *, tapped: bool
) -> _Passed:
    of_layers = [r for r in requests if isinstance(r, OfLayers | ClsGradient)]
    attended = any(isinstance(r, AttentionVectors) for r in requests)
    if attended and not probe.heads:
        raise ModelError(
            f"the self-attention of {type(unwrapped(model)).__name__} cannot be looked into",
            expected="attention that transformers' AttentionInterface chooses, of one width in all layers",
            remedy="use a method without attention (kd, adkd, ckd), or another architecture",
        )
    if any(probe.layers in r.layers for r in of_layers):  # the last state is to be right for every token
        probe = replace(probe, trim=None)
    taps: list[Tensor] = []
    with ExitStack() as looking:
        if tapped:
            taps = looking.enter_context(probe.tapped(model))
        looking.enter_context(probe.trimmed(model, batch.mask))
        attention = looking.enter_context(attending(model)) if attended else []
        inside: list[Any] = []
        note = unwrapped(model).register_forward_hook(lambda _model, _inputs, said: inside.append(said))
        looking.callback(note.remove)
        outputs = model(**batch.inputs, output_hidden_states=bool(of_layers))
    states, sites = (tuple(said.hidden_states or ()) for said in (outputs, inside[-1]))
    return _Passed(widened(outputs.logits), states, sites, attention, taps[-1] if taps else None)


def _differentiate(
    passed: _Passed,
    batch: Batch,
    targets: Sequence[Target],
    layers: Sequence[int],
    create_graph: bool,
    teacher_labels: Tensor | None,
    share_views: bool,
) -> _Differentiated:
    if passed.embedding is None:
        return _Differentiated({}, {}, ())
    logits = passed.logits
    if teacher_labels is None:
        teacher_labels = logits.detach().argmax(-1)
    gold = _labels_for(batch, teacher_labels)
    at = {target: target.resolve(logits, gold, teacher_labels, batch.drawn) for target in targets}
    values = [target.values(logits, at[target]) for target in targets]
    gradients = view_gradients(
        torch.cat(values, dim=1),
        logits,
        [passed.embedding, *(passed.sites[k] for k in layers)],
        create_graph=create_graph,
        shift_invariant=share_views and all(target.shift_invariant for target in targets),
    )
    of_targets = zip(*(site.split([v.shape[1] for v in values], dim=1) for site in gradients), strict=True)
    by_target = {target: list(sites) for target, sites in zip(targets, of_targets, strict=True)}
    return _Differentiated(at, by_target, tuple(layers))


def _labels_for(batch: Batch, teacher_labels: Tensor) -> Tensor | None:
    """The gold labels; for rows that have none, what the teacher predicts."""
    if batch.labels is None or batch.labels.is_floating_point():
        return batch.labels
    return torch.where(batch.labels == UNLABELLED, teacher_labels, batch.labels)


def _answer(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    passed: _Passed,
    found: _Differentiated,
    request: Request,
    create_graph: bool,
    rows_at_once: int,
) -> Tensor:
    rows = torch.arange(len(batch), device=passed.logits.device)
    position = probe.text_position(batch.mask)
    match request:
        case Logits():
            return passed.logits
        case ClsStates(layers):
            return torch.stack([passed.states[k][rows, position] for k in layers], dim=1)
        case States(layers):
            return widened(torch.stack([passed.states[k] for k in layers], dim=1))
        case AttentionVectors(part, layers):
            met = [passed.attention[k - 1][PARTS.index(part)] for k in layers]
            return widened(torch.stack([vectors.transpose(1, 2) for vectors in met], dim=1))
        case InputGradient(target):
            return found.gradients[target][0]
        case ClsGradient(target, layers):
            sites = [found.gradients[target][1 + found.layers.index(k)] for k in layers]
            return torch.stack([site[rows, :, position] for site in sites], dim=2)
        case AttributionScores(_, _, _, keep, signed):
            attributions = _attributions(
                model, probe, batch, passed, found, request, create_graph, rows_at_once
            )
            mask = batch.mask.unsqueeze(1)
            return (
                signed_scores(attributions, mask) if signed else token_scores(attributions, mask, keep=keep)
            )


def _attributions(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    passed: _Passed,
    found: _Differentiated,
    request: AttributionScores,
    create_graph: bool,
    rows_at_once: int,
) -> Tensor:
    assert passed.embedding is not None  # a target was asked for, so the embedding output was tapped
    if (request.steps, request.rule) == (1, "right_riemann"):
        return passed.embedding.unsqueeze(1) * found.gradients[request.target][0]
    return integrated_gradients(
        lambda x, times: from_embeddings(model, probe, batch, x, times),
        passed.embedding,
        request.target,
        found.at[request.target],
        steps=request.steps,
        rule=request.rule,
        rows_at_once=rows_at_once,
        create_graph=create_graph,
    )


def from_embeddings(model: nn.Module, probe: Probe, batch: Batch, rows: Tensor, times: int) -> Tensor:
    """Logits from given embedding outputs: ``times`` copies of the batch, one after the other, in ``rows``."""
    with probe.tapped(model, replacement=rows), probe.trimmed(model, batch.mask.repeat(times, 1)):
        return widened(model(**batch.repeated(times)).logits)
