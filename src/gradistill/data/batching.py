"""Encoded rows in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor

from gradistill.batch import Batch
from gradistill.data.collator import mask_token_id_of
from gradistill.data.token_pool import token_pool
from gradistill.errors import GradistillError

Rows = Dataset | Sequence[Mapping[str, Any]]
"""Encoded rows: with ``input_ids``."""
Collate = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class RowBatch:
    """Some of many rows: their ``places`` among all, the collated ``columns``, and the ``batch`` on a device."""

    places: Sequence[int]
    columns: Mapping[str, Tensor]
    batch: Batch

    @property
    def own_tokens(self) -> Bool[Tensor, "batch token"]:
        """The tokens of the texts themselves: neither special nor padding. On the CPU."""
        return (self.columns["attention_mask"] * (1 - self.columns["special_tokens_mask"])).bool()


ON_CPU, ON_ACCELERATOR = 1024, 8192


def most_tokens(device: torch.device) -> int:
    """How many tokens, padding included, share a forward pass that nothing is learned from.

    A CPU computes few at a time faster: their states stay in its caches (docs/performance.md). An accelerator wants
    to be filled.
    """
    return ON_CPU if device.type == "cpu" else ON_ACCELERATOR


def row_batches(
    rows: Rows,
    collate: Collate,
    device: torch.device,
    *,
    tokens_at_once: int | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    draws: bool = False,
) -> Iterator[RowBatch]:
    """Rows of like length together, the longest first, at most ``tokens_at_once`` tokens with their padding
    (``most_tokens`` of the device, unless given).

    ``labels``, one for each row, become the ``teacher_labels`` of its batch. With ``draws`` batches know tokens of the
    data: those that the collator has as ``token_pool``, or else those of the rows. Raises GradistillError without rows,
    and for another number of labels.
    """
    pool = None
    if draws:
        pool = token_pool(rows) if (own := getattr(collate, "token_pool", None)) is None else own
    if not len(rows):
        raise GradistillError("There are no rows.", expected="one row at least")
    if labels is not None and len(labels) != len(rows):
        raise GradistillError(
            f"There are {len(labels)} labels to explain, and {len(rows)} rows.",
            expected="one label for each row",
        )
    for places in by_length(_lengths(rows), tokens_at_once or most_tokens(device)):
        columns = collate([rows[place] for place in places])
        chosen = None
        if labels is not None:
            chosen = torch.as_tensor([int(labels[place]) for place in places], device=device)
        batch = Batch.of(
            {name: tensor.to(device) for name, tensor in columns.items()},
            teacher_labels=chosen,
            mask_token_id=mask_token_id_of(collate),
            token_pool=pool,
        )
        yield RowBatch(places, columns, batch)


def check_labels(labels: Sequence[int] | np.ndarray | None, rows: Rows) -> None:
    """Raise GradistillError for labels to explain that are not one a row."""
    if labels is not None and len(labels) != len(rows):
        raise GradistillError(
            f"There are {len(labels)} labels to explain, and {len(rows)} rows.",
            expected="one label for each row",
        )


def _lengths(rows: Rows) -> Sequence[int]:
    if isinstance(rows, Dataset) and "length" in rows.column_names:
        return rows["length"][:]
    return [len(rows[place]["input_ids"]) for place in range(len(rows))]


def in_row_order(
    compute: Callable[[RowBatch], Float[np.ndarray, "row ..."]],
    rows: Rows,
    collate: Collate,
    device: torch.device,
    *,
    on_progress: Callable[[int], object],
) -> Float[np.ndarray, "_ ..."]:
    """What ``compute`` returns for the batches of ``row_batches``, one entry a row, in the order of the rows.

    ``on_progress`` is called with the number of rows done.
    """
    found: list[Any] = [None] * len(rows)
    for some in row_batches(rows, collate, device):
        for place, values in zip(some.places, compute(some), strict=True):
            found[place] = values
        on_progress(len(some.places))
    return np.stack(found)


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The places of all rows, in batches of like length that hold at most ``tokens`` once padded (one row at least).

    Longest first: what does not fit in memory fails at once. Next to nothing is padded, and short rows come many at
    a time, so every batch costs about the same.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches: list[list[int]] = []
    for place in order:
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(place)
    return batches
