"""Batches of encoded rows of similar length."""

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
"""Encoded rows; each has ``input_ids``."""
Collate = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class RowBatch:
    """A batch of rows: their indices ``places`` among all rows, collated ``columns``, and the ``batch`` on a device."""

    places: Sequence[int]
    columns: Mapping[str, Tensor]
    batch: Batch

    @property
    def own_tokens(self) -> Bool[Tensor, "batch token"]:
        """The tokens of the texts themselves: neither special nor padding. On the CPU."""
        return (self.columns["attention_mask"] * (1 - self.columns["special_tokens_mask"])).bool()


ON_CPU, ON_ACCELERATOR = 1024, 8192


def most_tokens(device: torch.device) -> int:
    """The most tokens of a batch, padding included, in forward passes without training.

    A CPU is faster with few tokens: their hidden states stay in its caches (docs/performance.md). An accelerator
    needs large batches.
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
    """Yield batches of rows of similar length, the longest rows first.

    A batch has at most ``tokens_at_once`` tokens, padding included (default: ``most_tokens`` of the device).
    ``labels``, one for each row, become the ``teacher_labels`` of its batch. With ``draws`` each batch gets a pool of
    token ids: the collator's ``token_pool``, or else the tokens of the rows. Raises GradistillError without rows, and
    for another number of labels.
    """
    pool = None
    if draws:
        pool = (
            token_pool(rows)
            if (collator_pool := getattr(collate, "token_pool", None)) is None
            else collator_pool
        )
    if not len(rows):
        raise GradistillError("There are no rows.", expected="one row at least")
    check_labels(labels, rows)
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
    """Raise GradistillError unless there is one label to explain for each row."""
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
    """The results of ``compute`` on the batches of ``row_batches``, one entry a row, in the order of the rows.

    ``on_progress`` is called after each batch with its number of rows.
    """
    results: list[Any] = [None] * len(rows)
    for row_batch in row_batches(rows, collate, device):
        for place, values in zip(row_batch.places, compute(row_batch), strict=True):
            results[place] = values
        on_progress(len(row_batch.places))
    return np.stack(results)


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The indices of all rows, in batches of similar length with at most ``tokens`` once padded (at least one row).

    The longest rows come first, so a batch that does not fit in memory fails at once. There is little padding, and
    batches of short rows have more rows, so every batch costs about the same.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batches: list[list[int]] = []
    for place in order:
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(place)
    return batches
