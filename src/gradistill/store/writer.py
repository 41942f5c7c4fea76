"""Building a store: shard by shard, each whole or not there, so that a build can be stopped at any moment."""

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
    """Which of several processes this one is, and how they meet: ``gather`` takes a text of this one, or None, waits
    for all, and returns what each of them gave."""

    rank: int = 0
    ranks: int = 1
    gather: Callable[[str | None], Sequence[str | None]] = lambda text: [text]

    def all_agree(self, true: bool) -> bool:
        """Whether it is true for all processes, each of which calls this."""
        return all(text is None for text in self.gather(None if true else "no"))

    @property
    def is_first(self) -> bool:
        return self.rank == 0


ALONE = ProcessShare()


@contextmanager
def together(folder: Path, share: ProcessShare) -> Iterator[None]:
    """All processes meet behind the block. Where a store or the disk fails one of them, it fails all: whoever goes on
    alone would wait for the others in another place than they do. Other errors end a process, and torchrun the others.

    Raises StoreError, and OSError where this process had one.
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
        raise StoreError(f"{folder} failed in another process: {reasons[0]}", remedy="see to it there")


def build(
    plan: BuildPlan,
    teacher: TeacherSignals,
    collate: Collate,
    *,
    share: ProcessShare = ALONE,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Build what is not there yet. Another process that builds the same waits for this one, and finds it done.

    Of several processes each builds its ``share`` of the shards, and the first writes the manifest once all are there.
    Raises StoreError, in each of them, where the folder holds something else or the disk has no room.
    """
    with ExitStack() as locked:
        with together(plan.folder, share):
            if share.is_first:
                locked.enter_context(store_lock(plan.folder))
                _open_folder(plan)
        with together(plan.folder, share):
            begun = _begun_here(plan)
            if begun is not None:
                _write_own(begun, teacher, collate, share, on_progress)
        if not share.all_agree(begun is None):
            with together(plan.folder, share):
                if share.is_first and begun is not None:
                    _finish(begun)


def _begun_here(plan: BuildPlan) -> BuildPlan | None:
    """What is to be written into a folder that is ready for it: all, what a store lacks, or None where it lacks
    nothing."""
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
    """Write the shards of this process that are not there yet."""
    own = range(share.rank, plan.shards, share.ranks)
    built = {number for number in own if _is_built(plan, number)}
    if built:
        logger.info(f"going on: {len(built)} of {len(own)} shards are there")
        on_progress(sum(len(plan.rows_of(number)) for number in built))
    for number in own:
        if number not in built:
            _write_shard(plan, number, teacher, collate)
            on_progress(len(plan.rows_of(number)))


def rebuild(plan: BuildPlan, numbers: Sequence[int], teacher: TeacherSignals, collate: Collate) -> None:
    """Write some shards of a finished store again, and their entries in the manifest: of no other shard.

    Raises StoreError where the store is for something else.
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
    """Make the folder ready for what is to be written there, if anything is."""
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
        goes_on = begun is not None and is_for_the_same(begun, extension.made_for)
        plan, stale = (_as_begun(extension), None) if goes_on else (extension, manifest)
    elif PLAN in present:
        plan = _as_begun(plan)
    elif present:
        raise StoreError(
            f"{folder} holds files that are no store: {', '.join(present[:5])}",
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
        for draft in drafts:  # of earlier versions
            (folder / draft).unlink(missing_ok=True)
        begun = {"made_for": plan.made_for, "rows_per_shard": plan.rows_per_shard}
        write_whole(folder / PLAN, json.dumps(begun, indent=1).encode())


def _begun_for(folder: Path) -> dict[str, Any] | None:
    """What the store is to be for once it has more signals, where some shards of that are written; None where none are,
    or nobody knows."""
    try:
        return read_unfinished(folder)[0]
    except (OSError, ValueError):
        return None


def _remove_leftovers(folder: Path, manifest: Manifest) -> None:
    """What a build left that was stopped right behind the manifest, or before it, with other signals."""
    shards = {shard.file for shard in manifest.shards}
    begun = _begun_for(folder)
    if begun is not None and not is_for_the_same(begun, manifest.made_for):
        logger.info(f"{folder}: shards that were begun for other signals are removed")
    with _writing(folder):
        for path in folder.iterdir():
            if path.name == PLAN or (SHARD.fullmatch(path.name) and path.name not in shards):
                with suppress(PermissionError):  # Windows: somebody reads it; the next build removes it
                    path.unlink()


def _is_built(plan: BuildPlan, number: int) -> bool:
    """Whether a shard of an unfinished store is there, is one, and is as it was written."""
    file, rows = plan.shard_file(number), plan.rows_of(number)
    if not file.is_file() or fault_of(file, len(rows), plan.signals) is not None:
        return False
    if not is_as_written(file):
        logger.warning(f"{file} is damaged: it is made again")
        return False
    if plan.extended is None:
        return True
    names = [signal["name"] for signal in plan.extended.made_for["signals"]]
    return _buffers(plan, rows).equals(open_shard(file), names)


def _buffers(plan: BuildPlan, rows: range) -> ShardBuffers:
    """The numbers of rows, with those of the store that is extended."""
    buffers = ShardBuffers(plan.signals, plan.lengths[rows.start : rows.stop])
    if plan.extended is not None:
        place, per_shard = rows.start, plan.extended.rows_per_shard
        while place < rows.stop:
            number, at = divmod(place, per_shard)
            count = min(per_shard - at, rows.stop - place)
            shard = open_shard(plan.folder / plan.extended.shards[number].file)
            buffers.copy(place - rows.start, shard, range(at, at + count))
            place += count
    return buffers


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """The drafts that a killed build left behind, and all other names."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    drafts = [name for name in names if DRAFT.fullmatch(name)]
    return drafts, [name for name in names if name not in drafts]


def _as_begun(plan: BuildPlan) -> BuildPlan:
    """The plan, with the shards of the unfinished store. Raises StoreError where that is for something else."""
    try:
        made_for, rows_per_shard = read_unfinished(plan.folder)
    except (OSError, ValueError) as error:
        raise UnusableStoreError(
            f"{plan.folder / PLAN} is damaged: {error}",
            expected="the plan of an unfinished store, as it was written",
            remedy=f"delete {plan.folder} and build the store again",
        ) from error
    refuse_other(plan.folder, plan.made_for, made_for, remedy=OF_ANOTHER)
    return replace(plan, given_rows_per_shard=rows_per_shard)


def read_unfinished(folder: Path) -> tuple[dict[str, Any], int]:
    """What an unfinished store is for, and its rows a shard. Raises OSError and ValueError where it cannot be read."""
    begun = read_object(folder / PLAN)
    made_for, rows_per_shard = begun.get("made_for"), begun.get("rows_per_shard")
    if not isinstance(made_for, dict):
        raise ValueError("it does not name what the store is for")
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
    """The values of an example; those of tokens from ``(view, token, …)`` with padding to ``(real token, view, …)``."""
    if not column.per_token:
        return values
    return values[mask] if column.signal.tokens_first else np.moveaxis(values[:, mask], 1, 0)


def _entry(plan: BuildPlan, number: int) -> Shard:
    """The manifest's entry for a shard that was just written."""
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
