"""The teacher's signals behind one interface: computed online here, read from a store elsewhere."""

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
    """Whatever returns the teacher's signals for a batch; nothing of them carries a gradient."""

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues: ...


class OnlineTeacher:
    """A teacher that computes its signals anew for each batch, in eval mode, its weights out of every graph.

    Whatever it computes in, its signals are in float32 at least.
    """

    def __init__(self, model: nn.Module | ProbedModel, *, share_views: bool = True) -> None:
        self.share_views = share_views
        self.probed = ProbedModel.of(model)
        self.model = self.probed.model.eval().requires_grad_(False)
        self.seconds = 0.0
        """Wall time spent computing so far."""

    @property
    def probe(self) -> Probe:
        return self.probed.probe

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues:
        start = perf_counter()
        if self.model.training:  # somebody else trained or evaluated it meanwhile
            self.model.eval()
        probe = self.probed.verified(batch)
        values = compute_signals(
            self.model, probe, batch, signals, create_graph=False, share_views=self.share_views
        )
        self.seconds += perf_counter() - start
        return {signal: widened(value) for signal, value in values.items()}
