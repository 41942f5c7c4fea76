"""A model asked about many rows: batches of like length, with a probe whose trim held on the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor, nn

from gradistill.data.batching import by_length
from gradistill.models.probe import Probe
from gradistill.types import Batch

Rows = Dataset | Sequence[Mapping[str, Any]]
Collate = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Question:
    """One batch to ask about: the ``places`` of its rows among all, the collated ``columns`` as they came, the
    batch on the model's device, the model's probe, and the token id that stands for a word taken away."""

    places: Sequence[int]
    columns: Mapping[str, Tensor]
    batch: Batch
    probe: Probe
    blank: int | None


def questions(
    model: nn.Module, rows: Rows, collate: Collate, *, lengths: Sequence[int], tokens_at_once: int
) -> Iterator[Question]:
    """Rows of like length together, the longest first, at most ``tokens_at_once`` tokens with their padding.

    The last block is trimmed where that holds on the first batch (``Probe.verified``).
    """
    probe, checked, device = Probe.find(model), False, next(model.parameters()).device
    blank = getattr(collate, "blank", None)
    for places in by_length(lengths, tokens_at_once):
        columns = collate([rows[place] for place in places])
        batch = Batch.of({key: value.to(device) for key, value in columns.items()})
        if not checked:
            probe, checked = probe.verified(model, batch), True
        yield Question(places, columns, batch, probe, blank)
