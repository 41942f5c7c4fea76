"""Targets: the scalar of the logits that is differentiated with respect to the input.

Every target maps logits ``(batch, label)`` to values ``(batch, view)``. The papers differentiate ``label_nll`` and
``gold_loss`` (AD-KD, Wu et al. 2023, eq. 5) and ``confidence`` (GKD, Wang et al. 2022, eq. 4). ``log_odds`` is the
well-conditioned form of both: with ``F_c = z_c − logsumexp_{k≠c} z_k``, ``∇(−log p_c) = −(1 − p_c)·∇F_c`` and
``∇p_c = p_c(1 − p_c)·∇F_c``. After normalisation the signal equals theirs exactly, without the factor that vanishes on
confident examples.

Regression has one output ``z`` and no labels: ``log_odds``, ``logit``, ``margin`` and ``confidence`` are all the
prediction ``z``, ``gold_loss`` is ``(z − y)²``, and ``label_nll`` does not exist.

With several labels a row each label is a separate Bernoulli variable. ``log_odds``, ``logit`` and ``margin`` of label c
are then the logit ``z_c``, ``confidence`` is ``σ(z_c)``, ``label_nll`` is ``−log σ(z_c)``, and ``gold_loss`` is the
mean over the labels of the binary cross-entropy. These targets are not shift-invariant: C views take C gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradistill.batch import RandomDraws
from gradistill.errors import RecipeError

TargetKind = Literal["log_odds", "label_nll", "confidence", "gold_loss", "logit", "margin"]
View = Literal["all", "own", "teacher", "gold", "sampled"]
DRAWN = ("sampled", "projected")
"""Views that are drawn again in every step."""

LogitArray = Float[Tensor, "batch label"]
_T = TypeVar("_T", Tensor, RandomDraws)


def _without_own(logits: LogitArray) -> Float[Tensor, "batch label label"]:
    """A matrix for each example whose row ``c`` holds all logits, with −∞ for label ``c``."""
    labels = logits.shape[1]
    diagonal = torch.eye(labels, dtype=torch.bool, device=logits.device)
    return logits.unsqueeze(1).expand(-1, labels, labels).masked_fill(diagonal, -torch.inf)


def _log_odds(logits: LogitArray) -> LogitArray:
    return logits - _without_own(logits).logsumexp(-1)


def _margin(logits: LogitArray) -> LogitArray:
    return logits - _without_own(logits).amax(-1)


_OF_EVERY_LABEL: dict[str, Callable[[Tensor], Tensor]] = {
    "log_odds": _log_odds,
    "label_nll": lambda logits: -logits.log_softmax(-1),
    "gold_loss": lambda logits: -logits.log_softmax(-1),
    "confidence": lambda logits: logits.softmax(-1),
    "logit": lambda logits: logits,
    "margin": _margin,
}


_OF_BERNOULLI: dict[str, Callable[[Tensor], Tensor]] = {
    "log_odds": lambda logits: logits,
    "label_nll": lambda logits: -functional.logsigmoid(logits),
    "confidence": torch.sigmoid,
    "logit": lambda logits: logits,
    "margin": lambda logits: logits,
}
"""The targets of every label with several labels a row."""


_GIVERS = {
    "gold": "a batch with labels",
    "teacher": "a teacher whose predictions are known",
    "sampled": "a batch with drawn labels, which training provides",
    "projected": "a batch with drawn signs, which training provides",
}


@dataclass(frozen=True)
class Target:
    """A scalar (``kind``) of one or all labels (``view``).

    Views: ``all``, every label as a view (AD-KD's multi-view); ``own``, the label that the model itself predicts;
    ``teacher``, the label that the teacher predicts; ``gold``, the label of the data. ``sampled``: a label that is
    drawn for each example and step, equal for teacher and student. C times its distance is an unbiased estimate of the
    sum over ``all``. ``projected``: the sum of all labels with random signs. The squared norm of a difference of
    gradients is then an unbiased estimate of the sum over ``all``. (A regression has one output, and nothing is drawn.)
    """

    kind: TargetKind = "log_odds"
    view: View | Literal["projected"] = "all"

    @property
    def shift_invariant(self) -> bool:
        """Whether a constant added to all logits does not change the value. Then C − 1 gradients span all views."""
        return self.kind != "logit"

    def views(self, labels: int) -> int:
        """The number of views of an example, for a model with ``labels`` outputs."""
        return labels if self.view == "all" else 1

    @property
    def whole(self) -> Target:
        """The target that contains this one for every draw: the one with all views."""
        return replace(self, view="all") if self.view in DRAWN else self

    def from_whole(self, stored: Tensor, drawn: RandomDraws | None) -> Tensor:
        """The drawn view, ``(batch, 1, …)``, from stored values of all views. They must be linear in the gradients."""
        if stored.shape[1] == 1:  # a regression has one view
            return stored
        given = self._given(drawn, "drawn labels")
        if self.view == "projected":
            return torch.einsum("bv...,bv->b...", stored, given.signs.to(stored)).unsqueeze(1)
        return stored[torch.arange(len(stored), device=stored.device), given.label].unsqueeze(1)

    def sampling_factor(self, drawn: RandomDraws | None) -> int:
        """The number of views that one computed view stands for in a sum over views."""
        return self._given(drawn, "drawn labels").labels if self.view == "sampled" else 1

    def check(self, labels: int, *, multi_label: bool = False) -> None:
        """Raise RecipeError if the target does not exist for a model with ``labels`` outputs."""
        if multi_label and self.view == "gold" and self.kind != "gold_loss":
            raise RecipeError(
                f"The target {self.kind} has view 'gold', and a row has several labels or none.",
                expected="view all, teacher, own or sampled; or the target gold_loss, which uses all labels",
                remedy="set view: all, or target: gold_loss",
            )
        if labels == 1 and self.kind == "label_nll":
            raise RecipeError(
                "The target label_nll does not exist in a regression.",
                expected="log_odds or logit (the prediction) or gold_loss (its squared error)",
                remedy="set target: log_odds",
            )
        if self.kind == "gold_loss" and self.view != "gold":
            raise RecipeError(
                f"The target gold_loss has view {self.view!r}.",
                expected="view 'gold', as the gold loss is of the gold label",
                remedy="set view: gold, or target: label_nll for other labels",
            )

    def resolve(
        self,
        logits: LogitArray,
        gold: Tensor | None,
        teacher: Tensor | None,
        drawn: RandomDraws | None = None,
    ) -> Tensor | None:
        """The argument ``at`` of ``values``: label ids ``(batch,)``, gold scores, drawn signs, or None for all labels.

        ``teacher`` holds the labels that the teacher predicts. It is resolved once for each example, so that all inputs
        along a path use the same label.
        """
        if self.view == "gold":
            return self._given(gold, "the gold labels")
        if logits.shape[1] == 1 or self.view == "all":
            return None
        if self.view == "own":
            return logits.detach().argmax(-1)
        if self.view in DRAWN:
            given = self._given(drawn, "drawn labels")
            return given.label if self.view == "sampled" else given.signs
        return self._given(teacher, "the teacher's labels")

    def values(
        self, logits: LogitArray, at: Tensor | None, *, multi_label: bool = False
    ) -> Float[Tensor, "batch view"]:
        """The scalars to differentiate: one view for each label, or the single view that ``at`` selects."""
        if multi_label and self.kind == "gold_loss":
            flags = self._given(at, "the gold labels").to(logits)
            losses = functional.binary_cross_entropy_with_logits(logits, flags, reduction="none")
            return losses.mean(1, keepdim=True)
        if logits.shape[1] == 1 and not multi_label:
            if self.kind == "gold_loss":
                return (logits - self._given(at, "the gold scores").to(logits).unsqueeze(1)).square()
            return logits
        values = (_OF_BERNOULLI if multi_label else _OF_EVERY_LABEL)[self.kind](logits)
        if at is None:
            return values
        if self.view == "projected":
            return (values * at.to(values)).sum(1, keepdim=True)
        return values.gather(1, at.long().unsqueeze(1))

    def _given(self, wanted: _T | None, what: str) -> _T:
        if wanted is None:
            raise RecipeError(
                f"the target {self.kind} with view {self.view!r} needs {what}, and there are none",
                expected=_GIVERS[self.view],
                remedy="choose another view, or provide what is missing",
            )
        return wanted
