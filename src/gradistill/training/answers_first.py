"""Answer-first gradients: where the two gradients conflict, the prediction losses have priority.

A step has two gradients at the student's parameters: g_a of the prediction losses (``hard_label``, ``soft_label``), and
g_r of all other terms. Only g_r is changed:

* ``project``: if ``⟨g_a, g_r⟩ < 0``, ``g_r ← g_r − (⟨g_a, g_r⟩ / ‖g_a‖²) g_a``. This is PCGrad (Yu et al. 2020, arXiv
  2001.06782, algorithm 1) with two deviations: it is one-sided, because g_a is never changed, and a task is a group of
  terms.
* ``cap``: the same, and then ``g_r ← min(1, c ‖g_a‖ / ‖g_r‖) g_r``.
* ``log``: g_r is not changed. The two gradients are only compared.
* ``auto``: the plain loss until ``begin()`` is called, then ``cap`` from the next optimizer step on.

Products and norms are over all parameters of the student together, for the gradient of the whole optimizer step.
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
    """Accumulates the prediction losses' gradient separately during an optimizer step, and combines both at its end.

    The gradient of the other terms is computed by the Trainer's backward pass: it ends in ``.grad``, and
    DistributedDataParallel averages it over processes. The gradient of the prediction losses is computed before, by
    ``torch.autograd.grad``, which fills no ``.grad`` and triggers no hook. It is averaged here, once in a step.
    """

    def __init__(self, compute: ComputeSettings, device: torch.device) -> None:
        self.rule, self.cap = compute.gradient_conflict, compute.gradient_cap
        self._begun, self._on = self.rule != "auto", False
        self._sums = torch.zeros(3, device=device)
        self.reset()

    def begin(self) -> None:
        """Under the rule ``auto``: apply ``cap`` from the next optimizer step on."""
        self._begun = True

    def reset(self) -> None:
        """Discard what an unfinished optimizer step accumulated. Call this before an optimizer step."""
        self._on = self._begun
        self._parameters: Sequence[nn.Parameter] = ()
        self._answers: list[Tensor] = []

    @contextmanager
    def step(self, parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> Iterator[None]:
        """A context for a training step on one batch (forward and backward pass).

        After the last batch of an optimizer step, ``.grad`` of the student's ``parameters`` is the combined gradient.
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
        """Whether a training step is running. Losses that are computed outside of one are not split."""
        return bool(self._parameters)

    def split(self, answers: Tensor, rest: Tensor) -> Tensor:
        """Compute the gradient of ``answers`` now. The returned loss is the sum of both, with the gradient of ``rest``.

        ``answers`` stays in its graph with a factor of 0, so that all processes have gradients for the same parameters.
        """
        parameters, accelerator = self._parameters, self._accelerator
        scaled = answers / accelerator.gradient_accumulation_steps  # as ``Accelerator.backward``
        if accelerator.scaler is not None:
            scaled = accelerator.scaler.scale(scaled)
        with torch.autocast(answers.device.type, enabled=False):  # backward passes are not run under autocast
            gradients = torch.autograd.grad(scaled, parameters, retain_graph=True, materialize_grads=True)
        if self._answers:
            for total, gradient in zip(self._answers, gradients, strict=True):
                total.add_(gradient)
        else:
            self._answers = list(gradients)
        return rest + answers.detach() + 0 * answers

    def logged(self) -> dict[str, float]:
        """The mean cosine of g_a and g_r and the mean ``‖g_r‖ / ‖g_a‖``, both before g_r is changed. Means are over the
        steps since the last call on which both gradients were nonzero."""
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
        """Add the step's cosine and ratio to the sums. Steps on which a gradient is 0 or not finite are left out."""
        norms = of_answers.sqrt(), of_rest.sqrt()
        both = torch.stack([product / (norms[0] * norms[1]), norms[1] / norms[0], torch.ones_like(product)])
        defined = both.isfinite().all() & (of_rest > 0)
        self._sums += torch.where(defined, both, 0.0).to(self._sums)


def _averaged(gradients: list[Tensor], accelerator: Accelerator) -> list[Tensor]:
    """The means of ``gradients`` over processes, reduced together for each device and dtype."""
    if accelerator.num_processes == 1:
        return gradients
    means = list(gradients)
    for kind in {(gradient.device, gradient.dtype) for gradient in gradients}:
        places = [k for k, gradient in enumerate(gradients) if (gradient.device, gradient.dtype) == kind]
        flat = accelerator.reduce(torch.cat([gradients[k].flatten() for k in places]), "mean")
        parts = flat.split([gradients[k].numel() for k in places])  # pyright: ignore[reportAttributeAccessIssue]
        for k, part in zip(places, parts, strict=True):
            means[k] = part.view_as(gradients[k])
    return means


def _inner(some: Sequence[Tensor], others: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The inner product of two vectors that are given in parts. Low precision is accumulated in float32."""
    wide = [torch.promote_types(one.dtype, torch.float32) for one in some]
    parts = [
        one.to(kind).flatten().dot(other.to(kind).flatten())
        for one, other, kind in zip(some, others, wide, strict=True)
    ]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()
