"""The interface of a teacher's signals, and the teacher that computes them online."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Protocol, runtime_checkable

from torch import nn

from gradistill.attribution.gradients import widened
from gradistill.batch import Batch
from gradistill.models.probe import Probe, ProbedModel
from gradistill.signals.base import Signal
from gradistill.signals.compute import SignalValues, compute_signals


@runtime_checkable
class TeacherSignals(Protocol):
    """Anything that returns the teacher's signals for a batch, without gradients."""

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues: ...


class OnlineTeacher:
    """A teacher that computes its signals for each batch, in eval mode and with frozen weights.

    The signals are in float32 or wider, whatever the model's precision.
    """

    def __init__(self, model: nn.Module | ProbedModel, *, share_views: bool = True) -> None:
        self.share_views = share_views
        self.probed = ProbedModel.of(model)
        self.model = self.probed.model.eval().requires_grad_(False)
        self.seconds = 0.0
        """Wall time spent on signals so far."""

    @property
    def probe(self) -> Probe:
        return self.probed.probe

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues:
        start = perf_counter()
        if self.model.training:  # other code has switched it to training mode
            self.model.eval()
        probe = self.probed.verified(batch)
        values = compute_signals(
            self.model, probe, batch, signals, create_graph=False, share_views=self.share_views
        )
        self.seconds += perf_counter() - start
        return {signal: widened(value) for signal, value in values.items()}
