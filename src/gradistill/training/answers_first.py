"""Answer-first gradients: where what helps the reasons hurts the answers, the answers have their way.

A step has two gradients at the student's parameters: g_a of the terms on answers (``hard_label``, ``soft_label``), and
g_r of all the others. Only g_r is changed:

* ``project``: if ``⟨g_a, g_r⟩ < 0``, ``g_r ← g_r − (⟨g_a, g_r⟩ / ‖g_a‖²) g_a``. This is PCGrad (Yu et al. 2020, arXiv
  2001.06782, algorithm 1) with two deviations: it is one-sided, because g_a is never changed, and a task is a group of
  terms.
* ``cap``: the same, and then ``g_r ← min(1, c ‖g_a‖ / ‖g_r‖) g_r``.
* ``log``: neither. The two gradients are only compared.
* ``auto``: ``cap``, from the step on that ``begin`` is followed by. Until then the loss is left whole.

Products and norms are over all of the student's parameters together, of the gradient of the whole optimizer step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from gradistill.recipe.schema import ComputeSettings


class AnswersFirst:
    """Keeps the gradient of the answers apart while a step accumulates batches, and puts both together at its end.

    The gradient of the other terms goes the way of any loss: into ``.grad``, by the backward pass of the Trainer, where
    DistributedDataParallel averages it over processes. That of the answers is taken before, in a backward pass of its
    own that ends in no ``.grad`` and so starts no hook; it is averaged here, once a step.
    """

    def __init__(self, compute: ComputeSettings, device: torch.device) -> None:
        self.rule, self.cap = compute.gradient_conflict, compute.gradient_cap
        self._begun, self._on = self.rule != "auto", False
        self._sums = torch.zeros(3, device=device)
        self.reset()

    def begin(self) -> None:
        """Under the rule ``auto``: cap from the next optimizer step on."""
        self._begun = True

    def reset(self) -> None:
        """Before an optimizer step: forget what an earlier one accumulated that did not end."""
        self._on = self._begun
        self._parameters: Sequence[nn.Parameter] = ()
        self._answers: list[Tensor] = []

    @contextmanager
    def step(self, parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> Iterator[None]:
        """A training step on one batch: forward and backward pass.

        Behind the last batch of an optimizer step ``.grad`` of these parameters, the student's, is the combination.
        """
        if not self._on:
            yield
            return
        self._parameters, self._accelerator = parameters, accelerator
        try:
            yield
        finally:
            self._parameters = ()
        if accelerator.sync_gradients and self._answers:
            self._combine(parameters, accelerator)

    @property
    def running(self) -> bool:
        """Whether a training step runs: a loss that is computed for anything else stays whole."""
        return bool(self._parameters)

    def split(self, answers: Tensor, rest: Tensor) -> Tensor:
        """Take the gradient of the answers' loss; returns a loss of the value of both with the gradient of ``rest``.

        The answers stay in its graph with a factor of 0: each process then has a gradient for the same parameters.
        """
        parameters, accelerator = self._parameters, self._accelerator
        scaled = answers / accelerator.gradient_accumulation_steps  # as ``Accelerator.backward``
        if accelerator.scaler is not None:
            scaled = accelerator.scaler.scale(scaled)
        with torch.autocast(answers.device.type, enabled=False):  # backward passes are not run under autocast
            found = torch.autograd.grad(scaled, parameters, retain_graph=True, materialize_grads=True)
        if self._answers:
            for total, one in zip(self._answers, found, strict=True):
                total.add_(one)
        else:
            self._answers = list(found)
        return rest + answers.detach() + 0 * answers

    def logged(self) -> dict[str, float]:
        """Means over the steps since the last time on which both gradients were there: their cosine, and
        ``‖g_r‖ / ‖g_a‖``, both before g_r is changed."""
        cosine, ratio, steps = self._sums.tolist()
        self._sums.zero_()
        if not steps:
            return {}
        return {"gradient_cosine": cosine / steps, "gradient_norm_ratio": ratio / steps}

    @torch.no_grad()
    def _combine(self, parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
        answers, self._answers = _averaged(self._answers, accelerator), []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        rest = [parameter.grad for parameter in parameters if parameter.grad is not None]
        product, of_answers, of_rest = _inner(answers, rest), _inner(answers, answers), _inner(rest, rest)
        self._note(product, of_answers, of_rest)
        if self.rule != "log":
            along = torch.where(product < 0, product / of_answers, 0.0)
            for ours, theirs in zip(rest, answers, strict=True):
                ours.sub_(along.to(ours) * theirs)
        if self.rule in ("cap", "auto"):
            most = self.cap * of_answers.sqrt()
            norm = _inner(rest, rest).sqrt()
            factor = torch.where(norm > most, most / norm, 1.0)
            for ours in rest:
                ours.mul_(factor.to(ours))
        for ours, theirs in zip(rest, answers, strict=True):
            ours.add_(theirs)

    def _note(self, product: Tensor, of_answers: Tensor, of_rest: Tensor) -> None:
        """Steps on which a gradient is 0 or not finite are passed over: there is no cosine."""
        norms = of_answers.sqrt(), of_rest.sqrt()
        both = torch.stack([product / (norms[0] * norms[1]), norms[1] / norms[0], torch.ones_like(product)])
        there = both.isfinite().all() & (of_rest > 0)
        self._sums += torch.where(there, both, 0.0).to(self._sums)


def _averaged(gradients: list[Tensor], accelerator: Accelerator) -> list[Tensor]:
    """The mean over processes, of all gradients of one type at once."""
    if accelerator.num_processes == 1:
        return gradients
    found = list(gradients)
    for kind in {(gradient.device, gradient.dtype) for gradient in gradients}:
        places = [k for k, gradient in enumerate(gradients) if (gradient.device, gradient.dtype) == kind]
        flat = accelerator.reduce(torch.cat([gradients[k].flatten() for k in places]), "mean")
        parts = flat.split([gradients[k].numel() for k in places])  # pyright: ignore[reportAttributeAccessIssue]
        for k, part in zip(places, parts, strict=True):
            found[k] = part.view_as(gradients[k])
    return found


def _inner(some: Sequence[Tensor], others: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The inner product of two vectors in parts; narrow types are added up in float32."""
    wide = [torch.promote_types(one.dtype, torch.float32) for one in some]
    parts = [
        one.to(kind).flatten().dot(other.to(kind).flatten())
        for one, other, kind in zip(some, others, wide, strict=True)
    ]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()
