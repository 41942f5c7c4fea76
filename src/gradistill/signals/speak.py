"""What one model says about one batch. Teacher and student run this same code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradistill.attribution.gradients import view_gradients
from gradistill.attribution.integrated import integrated_gradients
from gradistill.attribution.scores import token_scores
from gradistill.attribution.targets import Target
from gradistill.models.probe import Probe
from gradistill.objectives._contract import (
    AttributionScores,
    ClsGradient,
    ClsStates,
    InputGradient,
    Logits,
    Request,
)
from gradistill.types import Batch

Said = Mapping[Request, Tensor]


@dataclass(frozen=True)
class _Heard:
    """One forward pass: what the requests are answered from. ``gradients[target]`` holds one tensor a site."""

    logits: Tensor
    states: tuple[Tensor, ...]
    embedding: Tensor | None
    at: Mapping[Target, Tensor | None]
    gradients: Mapping[Target, list[Tensor]]
    sites: tuple[int, ...]


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
    targets = tuple(dict.fromkeys(r.target for r in wanted if not isinstance(r, Logits | ClsStates)))
    with torch.set_grad_enabled(create_graph or bool(targets)):
        heard = _listen(model, probe, batch, wanted, targets, create_graph, teacher_labels, share_views)
        said = {
            request: _answer(model, probe, batch, heard, request, create_graph, rows_at_once)
            for request in wanted
        }
    return said if create_graph else {request: tensor.detach() for request, tensor in said.items()}


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 at least: targets and losses are never computed in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _listen(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    requests: tuple[Request, ...],
    targets: tuple[Target, ...],
    create_graph: bool,
    teacher_labels: Tensor | None,
    share_views: bool,
) -> _Heard:
    layers = sorted({k for r in requests if isinstance(r, ClsGradient) for k in r.layers})
    of_states = [r for r in requests if isinstance(r, ClsStates | ClsGradient)]
    states_wanted = bool(of_states)
    if any(probe.layers in r.layers for r in of_states):
        probe = replace(
            probe, trim=None
        )  # a trimmed last state is right where the head reads it, and only there
    if not targets:
        with probe.trimmed(model, batch.mask):
            outputs = model(**batch.inputs, output_hidden_states=states_wanted)
        return _Heard(widened(outputs.logits), _states(outputs), None, {}, {}, ())
    with probe.tapped(model) as taps, probe.trimmed(model, batch.mask):
        outputs = model(**batch.inputs, output_hidden_states=states_wanted)
    logits, states = widened(outputs.logits), _states(outputs)
    if teacher_labels is None:
        teacher_labels = logits.detach().argmax(-1)
    at = {target: target.resolve(logits, batch.labels, teacher_labels, batch.drawn) for target in targets}
    values = [target.values(logits, at[target]) for target in targets]
    gradients = view_gradients(
        torch.cat(values, dim=1),
        logits,
        [taps[-1], *(states[k] for k in layers)],
        create_graph=create_graph,
        shift_invariant=share_views and all(target.shift_invariant for target in targets),
    )
    of_targets = zip(*(site.split([v.shape[1] for v in values], dim=1) for site in gradients), strict=True)
    by_target = {target: list(sites) for target, sites in zip(targets, of_targets, strict=True)}
    return _Heard(logits, states, taps[-1], at, by_target, tuple(layers))


def _states(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs.hidden_states or ())


def _answer(
    model: nn.Module,
    probe: Probe,
    batch: Batch,
    heard: _Heard,
    request: Request,
    create_graph: bool,
    rows_at_once: int,
) -> Tensor:
    rows = torch.arange(len(batch), device=heard.logits.device)
    position = probe.text_position(batch.mask)
    match request:
        case Logits():
            return heard.logits
        case ClsStates(layers):
            return torch.stack([heard.states[k][rows, position] for k in layers], dim=1)
        case InputGradient(target):
            return heard.gradients[target][0]
        case ClsGradient(target, layers):
            sites = [heard.gradients[target][1 + heard.sites.index(k)] for k in layers]
            return torch.stack([site[rows, :, position] for site in sites], dim=2)
        case AttributionScores(target, steps, rule, keep):
            assert heard.embedding is not None  # a target was asked for, so the embedding output was tapped
            if (steps, rule) == (1, "right_riemann"):
                attributions = heard.embedding.unsqueeze(1) * heard.gradients[target][0]
            else:
                attributions = integrated_gradients(
                    lambda x, times: from_embeddings(model, probe, batch, x, times),
                    heard.embedding,
                    target,
                    heard.at[target],
                    steps=steps,
                    rule=rule,
                    rows_at_once=rows_at_once,
                    create_graph=create_graph,
                )
            return token_scores(attributions, batch.mask.unsqueeze(1), keep=keep)


def from_embeddings(model: nn.Module, probe: Probe, batch: Batch, rows: Tensor, times: int) -> Tensor:
    """Logits from given embedding outputs: ``times`` copies of the batch, one after the other, in ``rows``."""
    with probe.tapped(model, replacement=rows), probe.trimmed(model, batch.mask.repeat(times, 1)):
        return widened(model(**batch.repeated(times)).logits)
