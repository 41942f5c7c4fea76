"""Building a store: shard by shard, each whole or not there, so that a build can be stopped at any moment."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from torch import Tensor

from gradistill.batch import Batch
from gradistill.data.batching import ON_ACCELERATOR, by_length
from gradistill.data.collator import mask_token_id_of
from gradistill.data.token_pool import token_pool
from gradistill.errors import StoreError
from gradistill.io import (
    checksum_of,
    digest,
    draft_of,
    is_disk_full,
    locked,
    read_object,
    remove_drafts,
    system_reason,
    write_whole,
)
from gradistill.signals.teacher import TeacherSignals
from gradistill.store.columns import Column, packed
from gradistill.store.manifest import MANIFEST, SHARD, Manifest, Shard, of_these, refuse_other
from gradistill.store.reader import fault_of

logger = logging.getLogger(__name__)

PLAN = "building.json"
DRAFT = draft_of(rf"{SHARD.pattern}|manifest\.json|building\.json")
SHARD_BYTES = 8 << 20
"""Aimed at: large enough to read in one sweep, small enough to hold a few times in memory and to lose when killed.

For new stores only: one that was begun keeps its rows a shard."""

Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]]


@dataclass(frozen=True)
class Build:
    """What to build: the teacher's signals for encoded rows, in their order."""

    folder: Path
    rows: Dataset
    columns: tuple[Column, ...]
    made_for: dict[str, Any]
    about: dict[str, Any]
    tokens_at_once: int = ON_ACCELERATOR
    """Of one teacher pass, padding included; the numbers do not depend on it but for rounding."""
    begun_with: int | None = None
    """Rows a shard of the store that is there already, whatever this version would choose."""

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.asarray(self.rows["length"][:], dtype=np.int64)

    @property
    def size(self) -> int:
        """Bytes of all shards together."""
        frame = len(_Shard(self.columns, np.empty(0, np.int64)).file([]))
        return self._content + self.shards * frame

    @property
    def _content(self) -> int:
        """Bytes of the numbers, and for each row those of its number, its length and an offset a column."""
        tokens, rows = int(self.lengths.sum()), len(self.rows)
        items = sum(c.item_bytes * (tokens if c.per_token else rows) for c in self.columns)
        return items + rows * 8 * (2 + len(self.columns))

    @property
    def rows_per_shard(self) -> int:
        return self.begun_with or max(1, SHARD_BYTES * len(self.rows) // max(self._content, 1))

    def shard_file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.arrow"

    def rows_of(self, number: int) -> range:
        start = number * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, len(self.rows)))

    @property
    def shards(self) -> int:
        return -(-len(self.rows) // self.rows_per_shard)


@dataclass(frozen=True)
class ProcessShare:
    """Which of several processes this one is, and how they wait for each other."""

    rank: int = 0
    ranks: int = 1
    barrier: Callable[[], object] = lambda: None


ALONE = ProcessShare()


def build(
    plan: Build,
    teacher: TeacherSignals,
    collate: Collate,
    *,
    share: ProcessShare = ALONE,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Build what is not there yet. Another process that builds the same waits for this one, and finds it done.

    Of several processes each builds its ``share`` of the shards, and the first writes the manifest behind the
    barrier. Raises StoreError where the folder holds something else or the disk has no room.
    """
    first = share.rank == 0
    with store_lock(plan.folder) if first else nullcontext():
        if first:
            _open_folder(plan)
        share.barrier()
        if (plan.folder / MANIFEST).is_file():
            return
        plan = _as_begun(plan)
        own = range(share.rank, plan.shards, share.ranks)
        built = {number for number in own if _is_built(plan, number)}
        if built:
            logger.info(f"going on: {len(built)} of {len(own)} shards are there")
            on_progress(sum(len(plan.rows_of(number)) for number in built))
        for number in own:
            if number not in built:
                _write_shard(plan, number, teacher, collate)
                on_progress(len(plan.rows_of(number)))
        share.barrier()
        if first:
            _finish(plan)
        share.barrier()


def rebuild(plan: Build, numbers: Sequence[int], teacher: TeacherSignals, collate: Collate) -> None:
    """Write some shards of a finished store again, and their entries in the manifest: of no other shard.

    Raises StoreError where the store is for something else.
    """
    with store_lock(plan.folder):
        manifest = Manifest.read(plan.folder)
        _refuse_other(plan, manifest.made_for)
        plan = replace(plan, begun_with=manifest.rows_per_shard)
        for number in numbers:
            _write_shard(plan, number, teacher, collate)
        shards = (_entry(plan, k) if k in numbers else shard for k, shard in enumerate(manifest.shards))
        replace(manifest, shards=tuple(shards)).write(plan.folder)


def _open_folder(plan: Build) -> None:
    folder = plan.folder
    drafts, present = _files(folder)
    if MANIFEST in present:
        _refuse_other(plan, of_these(Manifest.read(folder).made_for, plan.made_for))  # it may hold more
        if PLAN in present:  # whoever wrote the manifest was stopped right behind it
            (folder / PLAN).unlink()
        return
    if PLAN in present:
        plan = _as_begun(plan)
    elif present:
        raise StoreError(
            f"{folder} holds files that are no store: {', '.join(present[:5])}",
            expected="a new or empty folder, or a store",
            remedy="choose another --output",
        )
    there = sum(_is_built(plan, number) for number in range(plan.shards))
    _refuse_full_disk(folder, plan.size * (plan.shards - there) // max(plan.shards, 1))
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder)
        for draft in drafts:  # of earlier versions
            (folder / draft).unlink(missing_ok=True)
        begun = {"made_for": plan.made_for, "rows_per_shard": plan.rows_per_shard}
        write_whole(folder / PLAN, json.dumps(begun, indent=1).encode())


def _is_built(plan: Build, number: int) -> bool:
    """Whether a shard of an unfinished store is there, and is one: nothing else vouches for it yet."""
    file, signals = plan.shard_file(number), [column.as_dict() for column in plan.columns]
    return file.is_file() and fault_of(file, len(plan.rows_of(number)), signals) is None


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """The drafts that a killed build left behind, and all other names."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    drafts = [name for name in names if DRAFT.fullmatch(name)]
    return drafts, [name for name in names if name not in drafts]


def _as_begun(plan: Build) -> Build:
    """The plan, with the shards of the unfinished store. Raises StoreError where that is for something else."""
    try:
        made_for, rows_per_shard = read_unfinished(plan.folder)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{plan.folder / PLAN} is damaged: {error}",
            expected="the plan of an unfinished store, as it was written",
            remedy=f"delete {plan.folder} and build the store again",
        ) from error
    _refuse_other(plan, made_for)
    return replace(plan, begun_with=rows_per_shard)


def read_unfinished(folder: Path) -> tuple[dict[str, Any], int]:
    """What an unfinished store is for, and its rows a shard. Raises OSError and ValueError where it cannot be read."""
    begun = read_object(folder / PLAN)
    made_for, rows_per_shard = begun.get("made_for"), begun.get("rows_per_shard")
    if not isinstance(made_for, dict):
        raise ValueError("it does not name what the store is for")
    if type(rows_per_shard) is not int or rows_per_shard < 1:
        raise ValueError(f"its rows_per_shard is {rows_per_shard!r}, which must be 1 or more")
    return made_for, rows_per_shard


def _refuse_other(plan: Build, found: dict[str, Any]) -> None:
    remedy = "choose another folder, or delete that store: gradistill signals delete"
    refuse_other(plan.folder, plan.made_for, found, remedy=remedy)


def _refuse_full_disk(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"the store needs {needed / 1e6:,.0f} MB, and {place} has {free / 1e6:,.0f} MB left",
            expected="room for the whole store",
            remedy="free some, choose another folder, a narrower --encoding, or --signals online",
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raises StoreError where the disk refuses something inside."""
    try:
        yield
    except OSError as error:
        full = is_disk_full(error)
        raise StoreError(
            f"{folder} cannot be written: {system_reason(error)}",
            expected="room for the whole store" if full else "a folder that can be written",
            remedy="free some and give the same command again: whole shards are kept"
            if full
            else "see to the disk and give the same command again, or choose another folder",
        ) from error


def _write_shard(plan: Build, number: int, teacher: TeacherSignals, collate: Collate) -> None:
    rows = plan.rows_of(number)
    lengths = plan.lengths[rows.start : rows.stop]
    shard = _Shard(plan.columns, lengths)
    pool = token_pool(plan.rows) if any(column.signal.replaces_words for column in plan.columns) else None
    for places in by_length(lengths.tolist(), plan.tokens_at_once):
        columns = collate([plan.rows[rows.start + place] for place in places])
        batch = Batch.of(columns, mask_token_id=mask_token_id_of(collate), token_pool=pool)
        for place, row in zip(places, _signals_by_row(plan.columns, teacher, batch), strict=True):
            shard.put(place, row)
    indices = plan.rows["index"][rows.start : rows.stop]
    with _writing(plan.folder):
        write_whole(plan.shard_file(number), shard.file(indices))


def _signals_by_row(
    columns: Sequence[Column], teacher: TeacherSignals, batch: Batch
) -> Iterator[dict[str, bytes]]:
    values = teacher(batch, [column.signal for column in columns])
    arrays = {column: values[column.signal].float().cpu().numpy() for column in columns}
    mask = batch.mask.cpu().numpy()
    for k in range(len(batch)):
        yield {
            column.name: packed(_stored(column, arrays[column][k], mask[k]), column.encoding)
            for column in columns
        }  # fmt: skip


def _stored(column: Column, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The values of an example; those of tokens from ``(view, token, …)`` with padding to ``(real token, view, …)``."""
    if not column.per_token:
        return values
    return values[mask] if column.signal.tokens_first else np.moveaxis(values[:, mask], 1, 0)


class _Shard:
    """The numbers of rows of these ``lengths``, each where the file has it: an object of Python a row is far larger."""

    def __init__(self, columns: Sequence[Column], lengths: np.ndarray) -> None:
        self.lengths = lengths
        sizes = {c.name: c.item_bytes * (lengths if c.per_token else np.ones_like(lengths)) for c in columns}
        self.starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}
        self.numbers = {name: memoryview(bytearray(int(starts[-1]))) for name, starts in self.starts.items()}

    def put(self, place: int, row: Mapping[str, bytes]) -> None:
        for name, numbers in row.items():
            start, stop = self.starts[name][place : place + 2]
            self.numbers[name][start:stop] = numbers

    def file(self, indices: Sequence[int]) -> memoryview:
        arrays = {
            "index": pa.array(indices, pa.int64()),
            "length": pa.array(self.lengths, pa.int64()),
            **{name: self._column(name) for name in self.numbers},
        }
        batch = pa.record_batch(list(arrays.values()), names=list(arrays))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return memoryview(sink.getvalue())

    def _column(self, name: str) -> pa.Array:
        buffers = [None, pa.py_buffer(self.starts[name]), pa.py_buffer(self.numbers[name])]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self.lengths), buffers)


def _entry(plan: Build, number: int) -> Shard:
    """The manifest's entry for a shard that was just written."""
    file = plan.shard_file(number)
    return Shard(file.name, len(plan.rows_of(number)), file.stat().st_size, checksum_of(file))


def _finish(plan: Build) -> None:
    manifest = Manifest(
        made_for=plan.made_for,
        about={**plan.about, "fingerprint": digest(plan.made_for)},
        rows=len(plan.rows),
        tokens=int(plan.lengths.sum()),
        rows_per_shard=plan.rows_per_shard,
        shards=tuple(_entry(plan, number) for number in range(plan.shards)),
    )
    with _writing(plan.folder):
        manifest.write(plan.folder)
        (plan.folder / PLAN).unlink(missing_ok=True)


@contextmanager
def store_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a store's folder; a process that dies releases it, and nothing is left beside the store.

    Another process is waited for, or refused with a StoreError where ``wait`` is not set. Raises StoreError where the
    folder cannot be made.
    """
    with ExitStack() as stack:
        try:
            had = stack.enter_context(locked(folder, patience=None if wait else 0.0))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{folder} cannot be used for a store: {system_reason(error)}",
                expected="a folder that can be made and written",
                remedy="choose another folder, or --signals online",
            ) from error
        if not had:
            raise StoreError(
                f"{folder} is being built by another process", remedy="wait for it, or stop it"
            ) from None
        yield
