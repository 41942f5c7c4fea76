"""The plan of a store: its columns, rows and files, for a new store or for one that is extended by more signals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from gradistill.data.batching import ON_ACCELERATOR
from gradistill.errors import StoreError
from gradistill.store.columns import Column, item_bytes
from gradistill.store.manifest import (
    EXTENDED,
    Manifest,
    refuse_other,
    shard_name,
    shard_number,
    without_other_signals,
)
from gradistill.store.shard_buffers import ShardBuffers

SHARD_BYTES = 8 << 20
"""Target size of a shard: large enough for sequential reading, small enough to fit into memory a few times and to be
lost when a build is killed. It applies to new stores only: a store that was begun keeps its rows per shard."""

OF_ANOTHER = "choose another folder, or delete that store: gradistill signals delete"
"""The remedy if a folder holds a store that was made for something else."""


@dataclass(frozen=True)
class BuildPlan:
    """The plan of a build: the teacher's signals for encoded rows, in their order.

    ``columns``: the columns to compute. ``extended``: the manifest of a finished store to which signals are added. Its
    columns are copied into the new shards, whose numbers follow those of its own; then the manifest is replaced.
    """

    folder: Path
    rows: Dataset
    columns: tuple[Column, ...]
    made_for: dict[str, Any]
    about: dict[str, Any]
    tokens_at_once: int = ON_ACCELERATOR
    """Tokens of one teacher pass, padding included. It affects the values by rounding only."""
    given_rows_per_shard: int | None = None
    """Rows per shard of an existing store, finished or not; it overrides this version's choice."""
    first_shard: int = 0
    """The number of the first shard file."""
    extended: Manifest | None = None
    """The manifest of the store that is extended."""

    @property
    def signals(self) -> list[dict[str, Any]]:
        """All columns of a shard, in the manifest's form."""
        return self.made_for["signals"]

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.rows["length"][:], dtype=np.int64)

    @property
    def size(self) -> int:
        """The total number of bytes of all shards."""
        frame = len(ShardBuffers(self.signals, np.empty(0, np.int64)).file([]))
        return self._content + self.shards * frame

    @property
    def _content(self) -> int:
        """Bytes of all values, and for each row of its index, its length and one offset per column."""
        tokens, rows = int(self.lengths.sum()), len(self.rows)
        items = sum(item_bytes(s) * (tokens if s["per"] == "token" else rows) for s in self.signals)
        return items + rows * 8 * (2 + len(self.signals))

    @property
    def rows_per_shard(self) -> int:
        return self.given_rows_per_shard or max(1, SHARD_BYTES * len(self.rows) // max(self._content, 1))

    def shard_file(self, number: int) -> Path:
        return self.folder / shard_name(self.first_shard + number)

    def rows_of(self, number: int) -> range:
        start = number * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, len(self.rows)))

    @property
    def shards(self) -> int:
        return -(-len(self.rows) // self.rows_per_shard)

    def of_store(self, manifest: Manifest) -> BuildPlan:
        """The plan with the shards of a finished store: with its rows per shard and its file numbers."""
        numbers = [shard_number(shard.file) for shard in manifest.shards]
        return replace(
            self, given_rows_per_shard=manifest.rows_per_shard, first_shard=min(numbers, default=0)
        )

    def extended_for(self, manifest: Manifest) -> BuildPlan | None:
        """The plan for the signals that a finished store lacks; None if it has all of them.

        Raises StoreError if the store was made for something else.
        """
        stored, needed = manifest.made_for, self.made_for
        if without_other_signals(stored, needed) == needed:
            return None
        refuse_other(self.folder, *map(_but_for_signals, (needed, stored)), remedy=OF_ANOTHER)
        _refuse_other_encoding(self, manifest)
        signals = {signal["name"]: signal for of in (stored, needed) for signal in of["signals"]}
        both = {**stored, **needed, "signals": [*signals.values()]}
        if without_other_signals(both, stored) != stored:
            refuse_other(self.folder, needed, stored, remedy=OF_ANOTHER)
        present = {signal["name"] for signal in stored["signals"]}
        numbers = [shard_number(shard.file) for shard in manifest.shards]
        return replace(
            self,
            columns=tuple(column for column in self.columns if column.name not in present),
            made_for=both,
            about={**manifest.about, EXTENDED: [*manifest.about.get(EXTENDED, []), self.about.get("method")]},
            first_shard=max(numbers, default=-1) + 1,
            extended=manifest,
        )


def _but_for_signals(made_for: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in made_for.items() if name not in ("signals", "words")}


def _refuse_other_encoding(plan: BuildPlan, manifest: Manifest) -> None:
    """Raise StoreError if the new signals have another encoding than the stored ones: a run reads a whole store in one
    encoding."""
    stored, added = (of.about.get("encoding") for of in (manifest, plan))
    if stored != added:
        raise StoreError(
            f"the signals in {plan.folder} are encoded as {stored}, and the signals to add as {added}",
            expected="one encoding for all signals of a store",
            remedy=f"give --encoding {stored}, or choose another folder",
        )
