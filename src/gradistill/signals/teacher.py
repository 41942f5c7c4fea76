"""The teacher's signals behind one interface: computed online here, read from a store elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Protocol, runtime_checkable

from torch import nn

from gradistill.models.probe import Probe
from gradistill.objectives._contract import Request
from gradistill.signals.speak import Said, speak
from gradistill.types import Batch


@runtime_checkable
class TeacherSignals(Protocol):
    """Whatever can say what the teacher says about a batch; nothing of it carries a gradient."""

    def __call__(self, batch: Batch, requests: Iterable[Request]) -> Said: ...


class OnlineTeacher:
    """A teacher that speaks for each batch anew, in eval mode, its weights out of every graph."""

    def __init__(self, model: nn.Module, probe: Probe | None = None, *, share_views: bool = True) -> None:
        self.share_views = share_views
        self.model = model.eval().requires_grad_(False)
        self.probe = probe or Probe.find(model)
        self._verified = False
        self.seconds = 0.0
        """Wall time spent speaking so far."""

    def __call__(self, batch: Batch, requests: Iterable[Request]) -> Said:
        start = perf_counter()
        if not self._verified:
            self.probe, self._verified = self.probe.verified(self.model, batch), True
        said = speak(
            self.model, self.probe, batch, requests, create_graph=False, share_views=self.share_views
        )
        self.seconds += perf_counter() - start
        return said
