"""Reading a store of teacher signals: it is verified when it is opened, and read in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gradistill.batch import Batch
from gradistill.errors import StoreError, UnusableStoreError
from gradistill.io import checksum_of
from gradistill.signals.base import Signal
from gradistill.signals.compute import SignalValues
from gradistill.store.columns import Column, item_bytes, unpacked
from gradistill.store.manifest import EXTENDED, MANIFEST, Manifest, refuse_other, without_other_signals

Verify = Literal["full", "fast"]


@dataclass(frozen=True)
class MappedShard:
    """One memory-mapped shard: for each column the bytes of all rows, and the offset at which each row starts."""

    data: Mapping[str, memoryview]
    offsets: Mapping[str, np.ndarray]
    lengths: np.ndarray

    def row(self, column: str, place: int) -> memoryview:
        offsets = self.offsets[column]
        return self.data[column][offsets[place] : offsets[place + 1]]


class StoredTeacher:
    """A teacher whose signals are read from a store (``TeacherSignals``). ``seconds`` is the time spent on reading."""

    def __init__(
        self, folder: Path, manifest: Manifest, columns: Sequence[Column], rows: Iterable[int]
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.columns = {column.signal: column for column in columns}
        numbers = [int(index) for index in rows]
        self.places = {index: place for place, index in enumerate(numbers)}
        if len(self.places) < len(numbers):
            raise StoreError(
                f"{len(numbers) - len(self.places)} of {len(numbers)} rows have the index of another row",
                expected="a unique index for each row, by which its signals are looked up",
                remedy="number the rows again, 0 to n − 1, in the column index",
            )
        self.seconds = 0.0
        self._shard = lru_cache(maxsize=None)(self._opened)

    @classmethod
    def open(
        cls, folder: Path, made_for: dict[str, Any], columns: Sequence[Column], rows: Iterable[int],
        *, verify: Verify = "full",
    ) -> StoredTeacher:  # fmt: skip
        """Open and verify a store. ``rows`` are the row indices in the order of the data. A store may hold more signals
        than ``columns``. Raises StoreError if it was made for something else (with the differences) or is damaged
        (with the shards)."""
        remedy = "build a store for this teacher, data and recipe: gradistill signals, or give --signals auto"
        refuse_other(
            folder, made_for, without_other_signals(Manifest.read(folder).made_for, made_for), remedy=remedy
        )
        manifest = undamaged(folder, verify=verify)
        rows = list(rows)
        if len(rows) != manifest.rows:
            raise StoreError(
                f"{folder} holds the signals of {manifest.rows} rows, and the data have {len(rows)}",
                expected="a store made for this teacher, data and recipe",
                remedy=remedy,
            )
        return cls(folder, manifest, columns, rows)

    def __call__(self, batch: Batch, signals: Iterable[Signal]) -> SignalValues:
        start = perf_counter()
        if batch.index is None:
            raise StoreError(
                "The batch has no row indices, which are needed to read a store.",
                expected="a column 'index' in the training data",
                remedy="use gradistill.data.encode",
            )
        signals = tuple(signals)
        self._refuse_missing(batch.index.tolist(), signals)
        places = [self.places[index] for index in batch.index.tolist()]
        values = {
            signal: signal.from_stored(self._kept(self.columns[signal.stored_as()], batch, places), batch)
            for signal in signals
        }
        self.seconds += perf_counter() - start
        return values

    def _refuse_missing(self, indices: Sequence[int], signals: Sequence[Signal]) -> None:
        """Raise StoreError for rows and signals that the store does not hold."""
        rows = [index for index in indices if index not in self.places]
        columns = [s.stored_as().column_name for s in signals if s.stored_as() not in self.columns]
        if rows or columns:
            missing = f"the rows {rows[:8]}" if rows else f"the signals {', '.join(columns)}"
            raise StoreError(
                f"{self.folder} does not hold {missing}.",
                expected="a store with these rows and with all signals that the recipe needs",
                remedy="build such a store: gradistill signals, or give --signals auto",
            )

    def _kept(self, column: Column, batch: Batch, places: Sequence[int]) -> Tensor:
        rows = []
        for place in places:
            shard, row = self._found(place)
            shape = (int(shard.lengths[row]), *column.shape) if column.per_token else column.shape
            rows.append(unpacked(shard.row(column.name, row), shape, column.encoding))
        mask = batch.mask.cpu()
        if not column.per_token:
            return torch.from_numpy(np.stack(rows)).to(batch.mask.device)
        full = torch.zeros(*mask.shape, *column.shape)
        full[mask] = torch.from_numpy(np.concatenate(rows))
        return (full if column.signal.tokens_first else full.movedim(1, 2)).to(batch.mask.device)

    def _found(self, place: int) -> tuple[MappedShard, int]:
        """The shard of a row, and the row's position in it. If the store was extended since it was opened, its new
        manifest is read."""
        while True:
            number, row = divmod(place, self.manifest.rows_per_shard)
            try:
                return self._shard(number), row
            except FileNotFoundError:
                self._follow()

    def _follow(self) -> None:
        now, needed = Manifest.read(self.folder), self.manifest.made_for
        refuse_other(
            self.folder, needed, without_other_signals(now.made_for, needed), remedy="build it again"
        )
        if now == self.manifest or now.rows != self.manifest.rows:
            refuse_damaged(
                self.folder, now, damaged(self.folder, now, verify="fast") or {MANIFEST: "has other rows"}
            )
        self.manifest = now
        self._shard.cache_clear()

    def _opened(self, number: int) -> MappedShard:
        file = self.folder / self.manifest.shards[number].file
        try:
            return open_shard(file)
        except ValueError as error:
            if file.exists():
                raise
            raise FileNotFoundError(file) from error


def open_shard(file: Path) -> MappedShard:
    """Memory-map a shard. Raises ValueError for a file that is not a shard."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        table = reader.get_batch(0)
        table.validate(full=True)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    kinds = [table.schema.field(k).type for k in range(len(table.schema.names))]
    if table.schema.names[:2] != ["index", "length"] or kinds[:2] != [pa.int64(), pa.int64()]:
        raise ValueError("it has no columns index and length")
    if any(kind != pa.large_binary() for kind in kinds[2:]) or any(c.null_count for c in table.columns):
        raise ValueError("its columns do not hold bytes")
    data, offsets = {}, {}
    for name in table.schema.names[2:]:
        _, starts, content = table.column(name).buffers()
        offsets[name] = np.frombuffer(starts, dtype="<i8", count=table.num_rows + 1)
        data[name] = memoryview(content)
    return MappedShard(data, offsets, table.column("length").to_numpy())


CONTENT = b"sha256 of the content"
"""Key of a shard's Arrow metadata. It verifies shards of an unfinished store, which has no manifest yet."""


def content_hash(columns: Mapping[str, memoryview]) -> str:
    """A hash of the names and bytes of columns, in their order."""
    sha = hashlib.sha256()
    for name, content in columns.items():
        sha.update(f"{name} {content.nbytes} ".encode())
        sha.update(content)
    return sha.hexdigest()


def is_as_written(file: Path) -> bool:
    """Whether a shard's content matches its hash. Shards of earlier versions have no hash and count as unchanged."""
    table = pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    noted = (table.schema.metadata or {}).get(CONTENT)
    if noted is None:
        return True
    shard = open_shard(file)
    numbers = {name: table.column(name).to_numpy().data for name in ("index", "length")}
    content = {name: shard.data[name][slice(*shard.offsets[name][[0, -1]])] for name in shard.data}
    return content_hash({**numbers, **content}) == noted.decode("ascii", "replace")


def undamaged(folder: Path, *, verify: Verify) -> Manifest:
    """The manifest of a store, after verifying its shards. Raises StoreError with the names of damaged shards.

    If another process extends the store meanwhile, its shards change, and it is read again.
    """
    while True:
        manifest = Manifest.read(folder)
        broken = damaged(folder, manifest, verify=verify)
        if not broken or Manifest.read(folder) == manifest:
            refuse_damaged(folder, manifest, broken)
            return manifest


def damaged(folder: Path, manifest: Manifest, *, verify: Verify) -> dict[str, str]:
    """The damaged shards of a store, each with its fault. ``fast`` skips checksums, so it misses flipped bits."""
    faults = {}
    for shard in manifest.shards:
        file = folder / shard.file
        if not file.is_file():
            faults[shard.file] = "is missing"
        elif file.stat().st_size != shard.bytes:
            faults[shard.file] = f"has {file.stat().st_size} bytes, not {shard.bytes}"
        elif verify == "full" and checksum_of(file) != shard.sha256:
            faults[shard.file] = "has another checksum"
        elif fault := fault_of(file, shard.rows, manifest.made_for["signals"]):
            faults[shard.file] = f"is no shard: {fault}"
    return faults


def fault_of(file: Path, rows: int, signals: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a file is not a shard of ``rows`` rows with these signals (``Column.as_dict``); None if it is one."""
    try:
        shard = open_shard(file)
    except ValueError as error:
        return str(error)
    if len(shard.lengths) != rows:
        return f"it holds {len(shard.lengths)} rows, not {rows}"
    if shard.data.keys() != {signal["name"] for signal in signals}:
        return "it holds other signals"
    for signal in signals:
        items = shard.lengths if signal["per"] == "token" else 1
        if bool((np.diff(shard.offsets[signal["name"]]) != items * item_bytes(signal)).any()):
            return f"its rows of {signal['name']} have another size"
    return None


def refuse_damaged(folder: Path, manifest: Manifest, broken: Mapping[str, str]) -> None:
    """Raise StoreError with the names of the damaged shards, if there are any."""
    if broken:
        again = "rebuild these shards: give the command that built the store, with --repair"
        anew = (
            "several commands built it, so none can repair it: gradistill signals delete, and build it again"
        )
        raise UnusableStoreError(
            f"{folder} is damaged: " + ", ".join(f"{shard} {what}" for shard, what in broken.items()),
            expected="unchanged shards",
            remedy=anew if manifest.about.get(EXTENDED) else again,
        )
