"""The attributions of many rows, fast: rows of like length together, within a budget of tokens and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gradistill.attribution.adaptive import integrated_to_tolerance
from gradistill.attribution.integrated import Integrated, integrated_in_steps
from gradistill.attribution.targets import Target
from gradistill.errors import RecipeError
from gradistill.models.still import still
from gradistill.objectives._contract import InputGradient, Logits
from gradistill.signals.asking import Collate, Question, Rows, questions
from gradistill.signals.speak import from_embeddings, speak

Steps = int | Literal["auto"]
METHODS = ("gradient_x_input", "integrated_gradients")
TARGET = Target("log_odds", "teacher")


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
    tokens_at_once: int = 2048,
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
            f"the method {method!r} was asked for",
            expected=" or ".join(METHODS),
            remedy="choose one of these",
        )
    gradient = method == "gradient_x_input"
    lengths = [len(rows[place]["input_ids"]) for place in range(len(rows))]
    # Nodes fill the forward passes of Integrated Gradients: fewer rows, of more equal length, share a batch.
    budget = tokens_at_once if gradient else tokens_at_once // 4
    for question in questions(model, rows, collate, lengths=lengths, tokens_at_once=budget):
        mask = question.batch.mask
        with still(model):  # not around the yield: who stops listening leaves the model as it was
            asked = _Asked.about(model, question, labels, gradient=gradient)
            found = asked.answered(steps, tolerance, rows_at_once=max(1, tokens_at_once // mask.shape[1]))
        own = zip(question.places, asked.labels.tolist(), found.attributions, mask, *found[1:], strict=True)
        for place, label, attributions, real, residual, nodes in own:
            yield Attributed(place, label, attributions[real], float(residual), int(nodes))


@dataclass(frozen=True)
class _Asked:
    """A batch after its first forward pass, of which ``gradient`` is taken where that is all there is to take."""

    run: Callable[[Tensor, Tensor], Tensor]
    logits: Float[Tensor, "batch label"]
    embedding: Float[Tensor, "batch token hidden"]
    labels: Int[Tensor, " batch"]
    gradient: Float[Tensor, "batch token hidden"] | None

    @classmethod
    def about(
        cls, model: nn.Module, question: Question, labels: Sequence[int] | None, *, gradient: bool
    ) -> _Asked:
        batch, probe = question.batch, question.probe
        given = None if labels is None else batch.mask.new_tensor(
            [labels[place] for place in question.places], dtype=torch.long
        )  # fmt: skip

        def run(rows: Tensor, places: Tensor) -> Tensor:
            return from_embeddings(model, probe, batch.rows(places), rows, 1)

        wanted = InputGradient(TARGET)
        requests = (Logits(), wanted) if gradient else (Logits(),)
        with probe.tapped(model) as taps:
            said = speak(model, probe, batch, requests, create_graph=False, teacher_labels=given)
        logits = said[Logits()]
        return cls(
            run,
            logits,
            taps[0].detach(),
            logits.argmax(-1) if given is None else given,
            said[wanted][:, 0] if gradient else None,
        )

    @property
    def at(self) -> Tensor | None:
        return TARGET.resolve(self.logits, None, self.labels)

    def answered(self, steps: Steps, tolerance: float, *, rows_at_once: int) -> Integrated:
        if self.gradient is not None:
            taken = torch.ones_like(self.labels)
            return Integrated(
                self.embedding * self.gradient, torch.full_like(self.logits[:, 0], torch.nan), taken
            )
        if steps == "auto":
            return integrated_to_tolerance(
                self.run, self.embedding, TARGET, self.at, tolerance=tolerance, rows_at_once=rows_at_once
            )
        return integrated_in_steps(
            self.run, self.embedding, self.logits, TARGET, self.at, steps=steps, rows_at_once=rows_at_once
        )
