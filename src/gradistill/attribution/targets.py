"""Targets: the scalar of the logits that is differentiated with respect to the input.

Every target maps logits ``(batch, label)`` to values ``(batch, view)``, one value a view. What the authors
differentiate is ``label_nll`` / ``gold_loss`` (AD-KD, Wu et al. 2023, eq. 5) and ``confidence`` (GKD, Wang
et al. 2022, eq. 4). ``log_odds`` is the sound form of both: with ``F_c = z_c − logsumexp_{k≠c} z_k``,
``∇(−log p_c) = −(1 − p_c)·∇F_c`` and ``∇p_c = p_c(1 − p_c)·∇F_c``, so that after normalisation the signal is
theirs exactly, without the factor that vanishes on confident examples.

Regression has one output ``z`` and no labels: ``log_odds``, ``logit``, ``margin`` and ``confidence`` all mean
the prediction ``z`` itself, ``gold_loss`` is ``(z − y)²``, and ``label_nll`` does not exist.

With several labels a row each label is a Bernoulli variable of its own. ``log_odds``, ``logit`` and ``margin`` of
label c are then the logit ``z_c``, ``confidence`` is ``σ(z_c)``, ``label_nll`` ``−log σ(z_c)``, and ``gold_loss`` the
mean over the labels of the binary cross-entropy. A constant added to all logits changes them: C views take C gradients.
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
"""Views that are another in every step."""

LogitArray = Float[Tensor, "batch label"]
_T = TypeVar("_T", Tensor, RandomDraws)


def _without_own(logits: LogitArray) -> Float[Tensor, "batch label label"]:
    """Row ``c`` holds the logits of all labels but ``c``, which is −∞."""
    labels = logits.shape[1]
    own = torch.eye(labels, dtype=torch.bool, device=logits.device)
    return logits.unsqueeze(1).expand(-1, labels, labels).masked_fill(own, -torch.inf)


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
"""The same of every label where a row may have several."""


_GIVERS = {
    "gold": "a batch with labels",
    "teacher": "a teacher whose predictions are known",
    "sampled": "a batch for which a label was drawn: training",
    "projected": "a batch for which signs were drawn: training",
}


@dataclass(frozen=True)
class Target:
    """Which scalar (``kind``) of which label (``view``).

    ``view``: ``all`` labels, one view each (AD-KD's multi-view); ``own``, the label that the model itself
    predicts; ``teacher``, the label that the teacher predicts; ``gold``, the label of the data; ``sampled``, one
    that is drawn for each example and step, the same for teacher and student: C times what is measured there is
    an unbiased estimate of the sum over ``all``. ``projected`` is the sum of all labels with random signs: the
    squared norm of what is differentiated linearly is there an unbiased estimate of the sum over ``all``. (A
    regression has one output, and nothing to draw.)
    """

    kind: TargetKind = "log_odds"
    view: View | Literal["projected"] = "all"

    @property
    def shift_invariant(self) -> bool:
        """Whether adding a constant to all logits leaves the value: then C − 1 gradients span all views."""
        return self.kind != "logit"

    def views(self, labels: int) -> int:
        """How many values an example has for a model with so many outputs."""
        return labels if self.view == "all" else 1

    @property
    def whole(self) -> Target:
        """The target whose values hold those of this one, whatever label is drawn."""
        return replace(self, view="all") if self.view in DRAWN else self

    def from_whole(self, stored: Tensor, drawn: RandomDraws | None) -> Tensor:
        """What is drawn, ``(batch, view, …)``, of the same for all views: whatever is differentiated linearly."""
        if stored.shape[1] == 1:  # a regression has one view
            return stored
        given = self._given(drawn, "drawn labels")
        if self.view == "projected":
            return torch.einsum("bv...,bv->b...", stored, given.signs.to(stored)).unsqueeze(1)
        return stored[torch.arange(len(stored), device=stored.device), given.label].unsqueeze(1)

    def stands_for(self, drawn: RandomDraws | None) -> int:
        """How many views each one stands for in a sum over views."""
        return self._given(drawn, "drawn labels").labels if self.view == "sampled" else 1

    def check(self, labels: int, *, multi_label: bool = False) -> None:
        """Raise RecipeError where the target does not exist for a model with so many outputs."""
        if multi_label and self.view == "gold" and self.kind != "gold_loss":
            raise RecipeError(
                f"The target {self.kind} has view 'gold', and a row has several labels or none.",
                expected="view all, teacher, own or sampled; or the target gold_loss, which knows all of them",
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
                expected="view 'gold': the gold loss knows one label only",
                remedy="set view: gold, or target: label_nll for other labels",
            )

    def resolve(
        self,
        logits: LogitArray,
        gold: Tensor | None,
        teacher: Tensor | None,
        drawn: RandomDraws | None = None,
    ) -> Tensor | None:
        """What ``values`` differentiates at: label ids ``(batch,)``, gold scores, or None for all labels.

        ``teacher`` holds the labels that the teacher predicts. Resolved once for each example, so that a
        path of interpolated inputs keeps to one label.
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
        """The scalars to differentiate; one view for each label, or the one view chosen by ``at``."""
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
                remedy="choose another view, or give what is missing",
            )
        return wanted
