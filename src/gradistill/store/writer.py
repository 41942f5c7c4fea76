"""Building a store shard by shard. Each shard is complete or absent, so a build can be stopped at any time."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.batch import Batch
from gradistill.data.batching import Collate, by_length
from gradistill.data.collator import mask_token_id_of
from gradistill.data.token_pool import token_pool
from gradistill.errors import StoreError, UnusableStoreError
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
from gradistill.store.build_plan import OF_ANOTHER, BuildPlan
from gradistill.store.columns import Column, packed
from gradistill.store.manifest import MANIFEST, SHARD, Manifest, Shard, is_for_the_same, refuse_other
from gradistill.store.reader import damaged, fault_of, is_as_written, open_shard, refuse_damaged
from gradistill.store.shard_buffers import ShardBuffers

logger = logging.getLogger(__name__)

PLAN = "building.json"
DRAFT = draft_of(rf"{SHARD.pattern}|manifest\.json|building\.json")


@dataclass(frozen=True)
class ProcessShare:
    """The rank of this process, and how processes communicate. ``gather`` takes a text or None, waits for all
    processes, and returns the values of all of them."""

    rank: int = 0
    ranks: int = 1
    gather: Callable[[str | None], Sequence[str | None]] = lambda text: [text]

    def all_agree(self, true: bool) -> bool:
        """Whether ``true`` is true in all processes. Every process must call this."""
        return all(text is None for text in self.gather(None if true else "no"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0


ALONE = ProcessShare()


@contextmanager
def fail_in_all_processes(folder: Path, share: ProcessShare) -> Iterator[None]:
    """A barrier at the end of the block. A StoreError or OSError in one process is raised in all, so none waits on.

    Other errors end their process, and torchrun ends the others. Raises StoreError, or OSError if it occurred in this
    process.
    """
    failure: StoreError | OSError | None = None
    try:
        yield
    except (StoreError, OSError) as error:
        failure = error
    what = failure.what if isinstance(failure, StoreError) else failure and system_reason(failure)
    reasons = [reason for reason in share.gather(what) if reason is not None]
    if failure is not None:
        raise failure
    if reasons:
        raise StoreError(
            f"{folder} failed in another process: {reasons[0]}", remedy="see the error of that process"
        )


def build(
    plan: BuildPlan,
    teacher: TeacherSignals,
    collate: Collate,
    *,
    share: ProcessShare = ALONE,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Build the missing shards of a store. Another command that builds the same store waits until this one is done.

    With several processes each builds its ``share`` of the shards, and the first writes the manifest at the end.
    Raises StoreError in each of them if the folder holds something else or the disk is full.
    """
    with ExitStack() as locked:
        with fail_in_all_processes(plan.folder, share):
            if share.is_first:
                locked.enter_context(store_lock(plan.folder))
                _open_folder(plan)
        with fail_in_all_processes(plan.folder, share):
            begun = _begun_here(plan)
            if begun is not None:
                _write_own(begun, teacher, collate, share, on_progress)
        if not share.all_agree(begun is None):
            with fail_in_all_processes(plan.folder, share):
                if share.is_first and begun is not None:
                    _finish(begun)


def _begun_here(plan: BuildPlan) -> BuildPlan | None:
    """The plan for a prepared folder: the whole store, or the signals that the store lacks; None if it is complete."""
    if (plan.folder / MANIFEST).is_file():
        extension = plan.extended_for(Manifest.read(plan.folder))
        return None if extension is None else _as_begun(extension)
    return _as_begun(plan)


def _write_own(
    plan: BuildPlan,
    teacher: TeacherSignals,
    collate: Collate,
    share: ProcessShare,
    on_progress: Callable[[int], object],
) -> None:
    """Write the missing shards of this process."""
    numbers = range(share.rank, plan.shards, share.ranks)
    built = {number for number in numbers if _is_built(plan, number)}
    if built:
        logger.info(f"resuming: {len(built)} of {len(numbers)} shards are finished")
        on_progress(sum(len(plan.rows_of(number)) for number in built))
    for number in numbers:
        if number not in built:
            _write_shard(plan, number, teacher, collate)
            on_progress(len(plan.rows_of(number)))


def rebuild(plan: BuildPlan, numbers: Sequence[int], teacher: TeacherSignals, collate: Collate) -> None:
    """Rewrite the shards ``numbers`` of a finished store and their entries in the manifest, and no others.

    Raises StoreError if the store was made for something else.
    """
    with store_lock(plan.folder):
        manifest = Manifest.read(plan.folder)
        refuse_other(plan.folder, plan.made_for, manifest.made_for, remedy=OF_ANOTHER)
        plan = plan.of_store(manifest)
        for number in numbers:
            _write_shard(plan, number, teacher, collate)
        shards = (_entry(plan, k) if k in numbers else shard for k, shard in enumerate(manifest.shards))
        replace(manifest, shards=tuple(shards)).write(plan.folder)


def _open_folder(plan: BuildPlan) -> None:
    """Prepare the folder for the shards to write: check its content and the disk, and write the plan."""
    folder = plan.folder
    drafts, present = _files(folder)
    stale: Manifest | None = None
    if MANIFEST in present:
        manifest = Manifest.read(folder)
        extension, begun = plan.extended_for(manifest), _begun_for(folder)
        if extension is None:
            if begun is None or is_for_the_same(begun, manifest.made_for):
                _remove_leftovers(folder, manifest)
            return
        refuse_damaged(folder, manifest, damaged(folder, manifest, verify="full"))
        logger.info(f"{folder} gets more signals: {', '.join(column.name for column in extension.columns)}")
        resumes = begun is not None and is_for_the_same(begun, extension.made_for)
        plan, stale = (_as_begun(extension), None) if resumes else (extension, manifest)
    elif PLAN in present:
        plan = _as_begun(plan)
    elif present:
        raise StoreError(
            f"{folder} holds files that are not a store: {', '.join(present[:5])}",
            expected="a new or empty folder, or a store",
            remedy="choose another --output",
        )
    missing = sum(not plan.shard_file(number).is_file() for number in range(plan.shards))
    _refuse_full_disk(folder, plan.size * missing // max(plan.shards, 1))
    if stale is not None:
        _remove_leftovers(folder, stale)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder)
        for draft in drafts:  # left by earlier versions
            (folder / draft).unlink(missing_ok=True)
        begun = {"made_for": plan.made_for, "rows_per_shard": plan.rows_per_shard}
        write_whole(folder / PLAN, json.dumps(begun, indent=1).encode())


def _begun_for(folder: Path) -> dict[str, Any] | None:
    """``made_for`` of an extension that was begun in this folder; None if there is none, or if it cannot be read."""
    try:
        return read_unfinished(folder)[0]
    except (OSError, ValueError):
        return None


def _remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """Remove the plan and the shards that are not in the manifest, which a stopped build left."""
    shards = {shard.file for shard in manifest.shards}
    begun = _begun_for(folder)
    if begun is not None and not is_for_the_same(begun, manifest.made_for):
        logger.info(f"{folder}: unfinished shards for other signals are removed")
    with _writing(folder):
        for path in folder.iterdir():
            if path.name == PLAN or (SHARD.fullmatch(path.name) and path.name not in shards):
                with suppress(PermissionError):  # Windows: a process reads it; the next build removes it
                    path.unlink()


def _is_built(plan: BuildPlan, number: int) -> bool:
    """Whether a shard of an unfinished store is complete and unchanged."""
    file, rows = plan.shard_file(number), plan.rows_of(number)
    if not file.is_file() or fault_of(file, len(rows), plan.signals) is not None:
        return False
    if not is_as_written(file):
        logger.warning(f"{file} is damaged and is built again")
        return False
    if plan.extended is None:
        return True
    names = [signal["name"] for signal in plan.extended.made_for["signals"]]
    return _buffers(plan, rows).equals(open_shard(file), names)


def _buffers(plan: BuildPlan, rows: range) -> ShardBuffers:
    """Buffers for rows, filled with the columns of the store that is extended."""
    buffers = ShardBuffers(plan.signals, plan.lengths[rows.start : rows.stop])
    if plan.extended is not None:
        place, per_shard = rows.start, plan.extended.rows_per_shard
        while place < rows.stop:
            number, first = divmod(place, per_shard)
            count = min(per_shard - first, rows.stop - place)
            shard = open_shard(plan.folder / plan.extended.shards[number].file)
            buffers.copy(place - rows.start, shard, range(first, first + count))
            place += count
    return buffers


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the drafts that a killed build left, and all other names."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    drafts = [name for name in names if DRAFT.fullmatch(name)]
    return drafts, [name for name in names if name not in drafts]


def _as_begun(plan: BuildPlan) -> BuildPlan:
    """The plan with the rows per shard of the unfinished store. Raises StoreError if that is for something else."""
    try:
        made_for, rows_per_shard = read_unfinished(plan.folder)
    except (OSError, ValueError) as error:
        raise UnusableStoreError(
            f"{plan.folder / PLAN} is damaged: {error}",
            expected="the unchanged plan of an unfinished store",
            remedy=f"delete {plan.folder} and build the store again",
        ) from error
    refuse_other(plan.folder, plan.made_for, made_for, remedy=OF_ANOTHER)
    return replace(plan, given_rows_per_shard=rows_per_shard)


def read_unfinished(folder: Path) -> tuple[dict[str, Any], int]:
    """``made_for`` and rows per shard of an unfinished store. Raises OSError or ValueError if they cannot be read."""
    begun = read_object(folder / PLAN)
    made_for, rows_per_shard = begun.get("made_for"), begun.get("rows_per_shard")
    if not isinstance(made_for, dict):
        raise ValueError("it does not define what the store is made for")
    if type(rows_per_shard) is not int or rows_per_shard < 1:
        raise ValueError(f"its rows_per_shard is {rows_per_shard!r}, which must be 1 or more")
    return made_for, rows_per_shard


def _refuse_full_disk(folder: Path, needed: int) -> None:
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"the store needs {needed / 1e6:,.0f} MB, and {place} has {free / 1e6:,.0f} MB left",
            expected="room for the whole store",
            remedy="free some space, choose another folder, a smaller --encoding, or --signals online",
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Convert an OSError inside the block to a StoreError."""
    try:
        yield
    except OSError as error:
        full = is_disk_full(error)
        raise StoreError(
            f"{folder} cannot be written: {system_reason(error)}",
            expected="room for the whole store" if full else "a folder that can be written",
            remedy="free some space and give the same command again: complete shards are kept"
            if full
            else "check the disk and give the same command again, or choose another folder",
        ) from error


def _write_shard(plan: BuildPlan, number: int, teacher: TeacherSignals, collate: Collate) -> None:
    rows = plan.rows_of(number)
    lengths = plan.lengths[rows.start : rows.stop]
    shard = _buffers(plan, rows)
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
    """The values of an example for a store. Token values go from ``(view, token, …)`` to ``(real token, view, …)``."""
    if not column.per_token:
        return values
    return values[mask] if column.signal.tokens_first else np.moveaxis(values[:, mask], 1, 0)


def _entry(plan: BuildPlan, number: int) -> Shard:
    """The manifest's entry for a written shard."""
    file = plan.shard_file(number)
    return Shard(file.name, len(plan.rows_of(number)), file.stat().st_size, checksum_of(file))


def _finish(plan: BuildPlan) -> None:
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
    _remove_leftovers(plan.folder, manifest)


@contextmanager
def store_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a store's folder. The lock ends with the process, and leaves no file in the parent folder.

    If another process holds the lock, wait for it, or without ``wait`` raise StoreError. Raises StoreError if the
    folder cannot be created.
    """
    with ExitStack() as stack:
        try:
            acquired = stack.enter_context(locked(folder, patience=None if wait else 0.0))
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{folder} cannot be used for a store: {system_reason(error)}",
                expected="a folder that can be created and written",
                remedy="choose another folder, or --signals online",
            ) from error
        if not acquired:
            raise StoreError(
                f"{folder} is being built by another process", remedy="wait for it, or stop it"
            ) from None
        yield
