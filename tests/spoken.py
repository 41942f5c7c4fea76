"""What a tiny model says about the rows that all tests share."""

from __future__ import annotations

from typing import Any

from families import collated
from gradistill.models.probe import Probe
from gradistill.objectives._contract import Request
from gradistill.signals.speak import speak
from gradistill.types import Batch


def said(model: Any, *requests: Request, batch: Batch | None = None, **options: Any) -> Any:
    batch = Batch.of(collated(model.config.num_labels)) if batch is None else batch
    return speak(model, Probe.find(model), batch, requests, **{"create_graph": False, **options})
