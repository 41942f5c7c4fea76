"""Applies ``compute.gradient_conflict``: compares the gradients of prediction losses and other terms, warns if the
predictions are drowned, or gives them priority."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from gradistill.objectives import Term
from gradistill.recipe import ComputeSettings
from gradistill.training.answers_first import AnswersFirst
from gradistill.training.gradient_balance import GradientBalance

logger = logging.getLogger(__name__)


class GradientConflict:
    """The rule of one training. ``off`` and ``auto`` compare the gradients of prediction losses and gradient objectives
    on early steps (``GradientBalance``): ``off`` warns, ``auto`` caps. The other rules apply from the first step on.
    ``trained`` returns the student's trained parameters.
    """

    def __init__(
        self,
        compute: ComputeSettings,
        accelerator: Accelerator,
        trained: Callable[[], Sequence[nn.Parameter]],
    ) -> None:
        rule = compute.gradient_conflict
        self._cap, self._accelerator, self._trained = compute.gradient_cap, accelerator, trained
        self._first = None if rule == "off" else AnswersFirst(compute, accelerator.device)
        self._balance = GradientBalance() if rule in ("off", "auto") else None

    def save(self, checkpoint: Path) -> None:
        """Write the comparisons into a checkpoint, so that a resumed run has the same result."""
        if self._balance is not None:
            self._balance.save(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Restore the comparisons from a checkpoint, and cap again if it did before."""
        if self._balance is None:
            return
        self._balance.load(checkpoint)
        if self._balance.drowning_ratio is not None and self._first is not None:
            self._first.begin()

    def reset(self) -> None:
        """Discard what an unfinished optimizer step accumulated. Call this before an optimizer step."""
        if self._first is not None:
            self._first.reset()

    def step(self) -> AbstractContextManager[None]:
        """A context for a training step on one batch (forward and backward pass)."""
        return self._first.step(self._trained(), self._accelerator) if self._first else nullcontext()

    def loss(self, averaged: Callable[[Iterable[str]], Tensor], terms: Sequence[Term]) -> Tensor:
        """The loss of all ``terms``. If a rule is active, the gradient of the prediction losses is computed separately.
        ``averaged`` returns the loss of the terms with given names."""
        predictions = [term.name for term in terms if term.objective.is_prediction_loss and term.weight]
        others = [term.name for term in terms if term.name not in predictions]
        if predictions and others and self._first is not None and self._first.running:
            return self._first.split(averaged(predictions), averaged(others))
        return averaged(term.name for term in terms)

    def compare(
        self,
        averaged: Callable[[Iterable[str]], Tensor],
        terms: Sequence[Term],
        staged: Sequence[Term],
        step: int,
    ) -> None:
        """Compare both gradients if a comparison is due, and cap or warn if the predictions are drowned.

        ``averaged`` returns the loss of the terms with given names, with their average weights over the steps.
        ``staged`` are the terms whose stage it is; ``terms`` are those that run at optimizer ``step`` (from 0).
        """
        predictions = [term.name for term in terms if term.objective.is_prediction_loss and term.weight]
        gradients = [term.name for term in terms if term.objective.second_order and term.weight]
        if self._balance is None or not predictions or not gradients:
            return
        if self._balance.due(step, [term.name for term in staged if term.objective.second_order]):
            both = averaged(predictions), averaged(gradients)
            self._balance.compare(step, *both, self._trained(), self._accelerator)
            if (ratio := self._balance.drowning_ratio) is not None:
                self._cap_or_warn(gradients, ratio)

    def _cap_or_warn(self, drowning: Sequence[str], ratio: float) -> None:
        fault = f"the gradient of {' and '.join(drowning)} is {ratio:.0f} times that of the prediction losses"
        if self._first is not None:
            self._first.begin()
            logger.warning(
                f"{fault}, which would hardly be trained. From the next step on, the gradient of all other terms is at "
                f"most {self._cap:g} times as long (compute.gradient_conflict: auto)"
            )
            return
        smaller = " and ".join(f"objectives.{name}.weight" for name in drowning)
        logger.warning(
            f"{fault}. The optimizer sees their sum, and will hardly train the predictions: try a tenth of {smaller}, "
            "or compute.gradient_conflict: auto"
        )

    @property
    def record(self) -> dict[str, Any] | None:
        """The comparisons (``DistillationTrainer.gradient_balance``), or None if there are none."""
        balance = self._balance
        if balance is None or balance.ratio is None:
            return None
        capped = balance.drowning_ratio is not None and self._first is not None
        return {
            "ratio": balance.ratio,
            "ratios": balance.ratios,
            "capped_from_step": balance.steps[-1] + 1 if capped else None,
        }

    def logged(self) -> dict[str, float]:
        """The figures of ``AnswersFirst.logged`` since the last call; empty if no rule is active."""
        return self._first.logged() if self._first is not None else {}
