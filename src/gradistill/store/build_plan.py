"""What a store is to hold, for which rows, and in which files: of a new store, and of one that gets more signals."""

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
"""Aimed at: large enough to read in one sweep, small enough to hold a few times in memory and to lose when killed.

For new stores only: one that was begun keeps its rows a shard."""

OF_ANOTHER = "choose another folder, or delete that store: gradistill signals delete"
"""What to do where a folder holds a store for something else."""


@dataclass(frozen=True)
class BuildPlan:
    """What to build: the teacher's signals for encoded rows, in their order.

    ``columns`` are those to compute. A store that is there already and gets more signals is ``extended``: its columns
    are copied into the new shards, which have numbers behind those of its own, until the manifest names them.
    """

    folder: Path
    rows: Dataset
    columns: tuple[Column, ...]
    made_for: dict[str, Any]
    about: dict[str, Any]
    tokens_at_once: int = ON_ACCELERATOR
    """Of one teacher pass, padding included; the numbers do not depend on it but for rounding."""
    given_rows_per_shard: int | None = None
    """Rows a shard of the store that is there already, finished or not, whatever this version would choose."""
    first_shard: int = 0
    """The number of the first file."""
    extended: Manifest | None = None
    """Of the store that is extended."""

    @property
    def signals(self) -> list[dict[str, Any]]:
        """All columns of a shard, as the manifest has them."""
        return self.made_for["signals"]

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.rows["length"][:], dtype=np.int64)

    @property
    def size(self) -> int:
        """Bytes of all shards together."""
        frame = len(ShardBuffers(self.signals, np.empty(0, np.int64)).file([]))
        return self._content + self.shards * frame

    @property
    def _content(self) -> int:
        """Bytes of the numbers, and for each row those of its number, its length and an offset a column."""
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
        """The plan with the shards of a finished store, of as many rows and with these files."""
        numbers = [shard_number(shard.file) for shard in manifest.shards]
        return replace(
            self, given_rows_per_shard=manifest.rows_per_shard, first_shard=min(numbers, default=0)
        )

    def extended_for(self, manifest: Manifest) -> BuildPlan | None:
        """The plan for the signals that a finished store lacks; None where it has all of these.

        Raises StoreError where the store is for something else.
        """
        found, wanted = manifest.made_for, self.made_for
        if without_other_signals(found, wanted) == wanted:
            return None
        refuse_other(self.folder, *map(_but_for_signals, (wanted, found)), remedy=OF_ANOTHER)
        _refuse_other_encoding(self, manifest)
        signals = {signal["name"]: signal for of in (found, wanted) for signal in of["signals"]}
        both = {**found, **wanted, "signals": [*signals.values()]}
        if without_other_signals(both, found) != found:
            refuse_other(self.folder, wanted, found, remedy=OF_ANOTHER)
        there = {signal["name"] for signal in found["signals"]}
        numbers = [shard_number(shard.file) for shard in manifest.shards]
        return replace(
            self,
            columns=tuple(column for column in self.columns if column.name not in there),
            made_for=both,
            about={**manifest.about, EXTENDED: [*manifest.about.get(EXTENDED, []), self.about.get("method")]},
            first_shard=max(numbers, default=-1) + 1,
            extended=manifest,
        )


def _but_for_signals(made_for: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in made_for.items() if name not in ("signals", "words")}


def _refuse_other_encoding(plan: BuildPlan, manifest: Manifest) -> None:
    """Raise StoreError where the new signals would be written in another way than those that are there: a run reads
    all of a store in one."""
    there, wanted = (of.about.get("encoding") for of in (manifest, plan))
    if there != wanted:
        raise StoreError(
            f"the numbers in {plan.folder} are written as {there}, and those to add are to be {wanted}",
            expected="one encoding for all signals of a store",
            remedy=f"give --encoding {there}, or choose another folder",
        )
