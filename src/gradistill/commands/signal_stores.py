"""Stores of teacher signals: choose the store of a run; build, describe and delete stores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gradistill.data import Collator
from gradistill.data.batching import most_tokens
from gradistill.errors import RecipeError, StoreError
from gradistill.io import digest, discard, system_reason
from gradistill.models.device_map import placed
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading
from gradistill.printing import progress_bars
from gradistill.signals import Logits, Signal
from gradistill.signals.teacher import OnlineTeacher
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import Encoding, columns_for
from gradistill.store.fingerprint import made_for
from gradistill.store.manifest import MANIFEST, SHARD, Manifest, is_for_the_same
from gradistill.store.reader import (
    StoredTeacher,
    Verify,
    damaged,
    open_shard,
    refuse_damaged,
    undamaged,
)
from gradistill.store.writer import (
    DRAFT,
    PLAN,
    ProcessShare,
    build,
    fail_in_all_processes,
    read_unfinished,
    rebuild,
    store_lock,
)
from gradistill.training.distributed import process_state

logger = logging.getLogger(__name__)

DEFAULT_ENCODING: Encoding = "int8"
"""The default encoding. Its students differ less from float32 students than two seeds differ (docs/signals.md)."""


def cache_folder() -> Path:
    """The folder of ``auto`` stores: ``$GRADISTILL_CACHE``, or ``signals`` in the user's cache."""
    if given := os.environ.get("GRADISTILL_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gradistill" / "signals"


@dataclass(frozen=True)
class StoreChoice:
    """``where`` teacher signals come from: ``auto`` (a store in the cache), ``online`` (no store), or a folder.

    The default ``encoding`` is that of the folder's store, and ``DEFAULT_ENCODING`` in the cache. ``loading``: the
    teacher's dtype, and the devices that it is spread over.
    """

    where: str = "auto"
    encoding: Encoding | None = None
    verify: Verify = "full"
    loading: TeacherLoading = AS_IT_IS

    @property
    def folder(self) -> Path | None:
        return None if self.where in ("auto", "online") else Path(self.where)

    def check(self) -> None:
        """Raise StoreError for a folder without a finished store, and RecipeError for store options without a store."""
        if self.where == "online" and (options := self.store_options):
            raise RecipeError(
                f"{' and '.join(options)} is about a store, and with --signals online there is none",
                expected="one of the two",
                remedy="leave one of them out",
            )
        if self.folder is not None:
            Manifest.read(self.folder)

    @property
    def store_options(self) -> list[str]:
        """The options on writing and opening a store that differ from the default, as they are typed."""
        encoding = [] if self.encoding is None else [f"--encoding {self.encoding}"]
        return encoding if self.verify == "full" else [*encoding, f"--verify {self.verify}"]

    @property
    def kept_as(self) -> str:
        """The kind of signals that training reads: ``online``, or the encoding of the store."""
        return self.where if self.where == "online" else self.written_as

    @property
    def written_as(self) -> Encoding:
        if self.encoding is None and self.folder is not None:
            written: Any = Manifest.read(self.folder).about.get("encoding")
            return written if written in get_args(Encoding) else DEFAULT_ENCODING
        return self.encoding or DEFAULT_ENCODING


AUTO = StoreChoice()


@dataclass(frozen=True)
class StoreSettings:
    """How a store is written.

    With ``repair`` only damaged shards of a finished store are written again. ``loading``: how a large teacher is
    loaded.
    """

    encoding: Encoding = DEFAULT_ENCODING
    repair: bool = False
    loading: TeacherLoading = AS_IT_IS


DEFAULT_SETTINGS = StoreSettings()


@dataclass(frozen=True)
class StoreRows:
    """The encoded rows of a store, the tokenizer that read them, and the ``max_length`` at which they are cut."""

    rows: Dataset
    tokenizer: PreTrainedTokenizerBase
    max_length: int


def plan_store(
    teacher: OnlineTeacher,
    read: StoreRows,
    signals: Sequence[Signal],
    *,
    folder: Path | None,
    encoding: Encoding,
    about: Mapping[str, Any],
) -> BuildPlan:
    """The plan of a store with these signals; without a folder it lies in the cache, named by its fingerprint."""
    columns = columns_for((Logits(), *signals), teacher.probe, encoding)
    purpose = made_for(teacher.model, read.tokenizer, read.rows, columns, max_length=read.max_length)
    place = folder or cache_folder() / digest(purpose)[:24]
    device: Any = process_state().device
    tokens = most_tokens(device)
    return BuildPlan(
        place, read.rows, columns, purpose, {**about, "encoding": encoding}, tokens_at_once=tokens
    )


def stored_teacher(
    choice: StoreChoice, plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase
) -> StoredTeacher | None:
    """The open store that ``choice`` names. A store in the cache is built or repaired first; None if that fails.

    Raises StoreError for a folder whose store is missing, damaged, or made for something else.
    """
    verify = choice.verify
    if choice.where == "auto":
        try:
            if not repaired_by_the_first(plan, teacher, tokenizer, verify=verify):
                build_missing_shards(plan, teacher, tokenizer)
        except (StoreError, OSError) as error:
            why = error.what if isinstance(error, StoreError) else f"{plan.folder}: {system_reason(error)}"
            logger.info(
                f"no store for teacher signals: {why}. The teacher computes its signals at every step instead."
            )
            return None
        verify = "fast"  # it was verified or written a moment ago
    logger.info(f"teacher signals: from {plan.folder}")
    return StoredTeacher.open(plan.folder, plan.made_for, plan.columns, plan.rows["index"], verify=verify)


def own_share() -> ProcessShare:
    """The share of this process among the processes of ``torchrun``."""
    state = process_state()
    return ProcessShare(state.process_index, state.num_processes, lambda text: gather_object([text]))


def repaired_by_the_first(
    plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase, *, verify: Verify = "full"
) -> bool:
    """``repair_damaged_shards`` for several processes: the first one repairs, and all return the same result."""
    share, whole = own_share(), False
    for turn in (share.is_first, not share.is_first):
        with fail_in_all_processes(plan.folder, share):
            if turn:
                whole = repair_damaged_shards(plan, teacher, tokenizer, verify=verify)
    return share.all_agree(whole)


def build_missing_shards(plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase) -> None:
    """Build the missing shards of a store, shared by all ranks of ``torchrun``, with a progress bar."""
    state = process_state()
    placed(teacher.model, state.device)
    if state.is_main_process:
        logger.info(f"teacher signals: {plan.size / 1e6:,.1f} MB into {plan.folder}")
    with progress_bars(disable=not state.is_main_process) as progress:
        bar = progress.add_task("teacher signals", total=len(plan.rows) / state.num_processes)
        build(
            plan,
            teacher,
            DeviceCollator(tokenizer, device=state.device),
            share=own_share(),
            on_progress=lambda rows: progress.advance(bar, rows),
        )


def repair_damaged_shards(
    plan: BuildPlan,
    teacher: OnlineTeacher,
    tokenizer: PreTrainedTokenizerBase,
    *,
    verify: Verify = "full",
) -> bool:
    """Write only the damaged shards of a finished store again; False if there is no finished store, or if it lacks some
    of the plan's signals.

    Raises StoreError for a damaged store that was made for something else, or lacks signals of the plan.
    """
    if not (plan.folder / MANIFEST).is_file():
        return False
    manifest = Manifest.read(plan.folder)
    lacks = plan.extended_for(manifest) is not None
    broken = damaged(plan.folder, manifest, verify=verify)
    if lacks or not is_for_the_same(plan.made_for, manifest.made_for):
        # this method cannot compute the signals of other methods
        refuse_damaged(plan.folder, manifest, broken)
    if not broken:
        return not lacks
    logger.info(
        "\n".join(f"{plan.folder}: {shard} {what}; it is built again" for shard, what in broken.items())
    )
    numbers = [k for k, shard in enumerate(manifest.shards) if shard.file in broken]
    device = process_state().device
    placed(teacher.model, device)
    rebuild(plan, numbers, teacher, DeviceCollator(tokenizer, device=device))
    return True


@dataclass(frozen=True)
class DeviceCollator(Collator):
    """A collator whose batches are on a device."""

    device: torch.device | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in super().__call__(features).items()}


@contextmanager
def _found(folder: Path) -> Iterator[None]:
    """Raise StoreError for errors of the system when it reads ``folder``."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder} cannot be read: {system_reason(error)}", remedy="check the path"
        ) from error


def describe(folder: Path) -> dict[str, Any]:
    """The content, size and teacher of a store. Raises StoreError for a folder that is no store."""
    with _found(folder):
        return _described(folder)


def _described(folder: Path) -> dict[str, Any]:
    if (folder / PLAN).is_file() and not (folder / MANIFEST).is_file():
        shards = list(folder.glob("shard-*.arrow"))
        size = sum(shard.stat().st_size for shard in shards)
        return {"folder": str(folder), "finished": "no", "shards": len(shards), "megabytes": size / 1e6}
    manifest = Manifest.read(folder)
    return {
        "folder": str(folder),
        **manifest.about,
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "megabytes": round(sum(shard.bytes for shard in manifest.shards) / 1e6, 3),
        "shards": len(manifest.shards),
        "finished": "yes",
        "signals": manifest.made_for["signals"],
    }


def check(folder: Path, *, verify: Verify) -> None:
    """Raise StoreError, with the names of the shards, if a store is damaged."""
    undamaged(folder, verify=verify)


def stores(folder: Path) -> list[Path]:
    """The stores in a folder of stores, finished or not."""
    with _found(folder):
        return sorted({path.parent for name in (MANIFEST, PLAN) for path in folder.glob(f"*/{name}")})


def delete(folder: Path) -> None:
    """Remove a store, whole or damaged. Raises StoreError for anything else."""
    refuse_no_store(folder)
    with store_lock(folder, wait=False):
        discard(folder)


def refuse_no_store(folder: Path) -> None:
    """Raise StoreError where a folder holds anything but a store, finished or not."""
    with _found(folder):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    ours = (MANIFEST, PLAN)
    foreign = [n for n in names if n not in ours and not SHARD.fullmatch(n) and not DRAFT.fullmatch(n)]
    if foreign or not _is_store(folder, names):
        raise StoreError(
            f"{folder} is no store of teacher signals" + (f": it holds {foreign[0]}" if foreign else ""),
            expected=f"a folder with a {MANIFEST} and shards",
            remedy="check the path: gradistill signals list",
        )


def _is_store(folder: Path, names: Sequence[str]) -> bool:
    """Whether the folder holds a manifest, a plan or a shard of ours that parses."""
    try:
        Manifest.read(folder)
        return True
    except StoreError:
        pass
    try:
        read_unfinished(folder)
        return True
    except (OSError, ValueError):
        pass
    for name in filter(SHARD.fullmatch, names):
        try:
            open_shard(folder / name)
            return True
        except ValueError:
            continue
    return False
