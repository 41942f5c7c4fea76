"""Teacher signals once: which store serves a run, and building, showing and deleting stores."""

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
    read_unfinished,
    rebuild,
    store_lock,
    together,
)
from gradistill.training.distributed import processes

logger = logging.getLogger(__name__)

DEFAULT_ENCODING: Encoding = "int8"
"""Students from it are nearer to those from float32 than two seeds are to each other (docs/signals.md)."""


def cache_folder() -> Path:
    """Where ``auto`` keeps stores: ``$GRADISTILL_CACHE``, or ``signals`` in the user's cache."""
    if given := os.environ.get("GRADISTILL_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gradistill" / "signals"


@dataclass(frozen=True)
class StoreChoice:
    """``where`` teacher signals come from: ``auto`` (a store in the cache), ``online`` (no store), or a folder.

    Without an ``encoding`` a folder's own holds, and ``DEFAULT_ENCODING`` in the cache. ``loading``: the type of a
    teacher's numbers, and the devices that it is spread over.
    """

    where: str = "auto"
    encoding: Encoding | None = None
    verify: Verify = "full"
    loading: TeacherLoading = AS_IT_IS

    @property
    def folder(self) -> Path | None:
        return None if self.where in ("auto", "online") else Path(self.where)

    def check(self) -> None:
        """Raise StoreError for a folder that holds no finished store, RecipeError for a store's options without one."""
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
        """What is chosen of how a store is written and opened, as it is typed."""
        encoding = [] if self.encoding is None else [f"--encoding {self.encoding}"]
        return encoding if self.verify == "full" else [*encoding, f"--verify {self.verify}"]

    @property
    def kept_as(self) -> str:
        """What training reads: ``online``, or the encoding of the store."""
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

    With ``repair`` damaged shards of a finished store are written again, and no others. ``loading`` is how a large
    teacher is held.
    """

    encoding: Encoding = DEFAULT_ENCODING
    repair: bool = False
    loading: TeacherLoading = AS_IT_IS


DEFAULT_SETTINGS = StoreSettings()


@dataclass(frozen=True)
class StoreRows:
    """The encoded rows that a store is for, and how they were read: a tokenizer, cut at ``max_length`` tokens."""

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
    """What to build for these signals; without a folder, in the cache under its fingerprint."""
    columns = columns_for((Logits(), *signals), teacher.probe, encoding)
    purpose = made_for(teacher.model, read.tokenizer, read.rows, columns, max_length=read.max_length)
    place = folder or cache_folder() / digest(purpose)[:24]
    device: Any = processes().device
    tokens = most_tokens(device)
    return BuildPlan(
        place, read.rows, columns, purpose, {**about, "encoding": encoding}, tokens_at_once=tokens
    )


def stored_teacher(
    choice: StoreChoice, plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase
) -> StoredTeacher | None:
    """The store that ``choice`` names, open; the cache's is built or mended first, or None where it cannot be.

    Raises StoreError for a folder whose store is missing, damaged, or for something else.
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
    """Which of the processes of ``torchrun`` this one is."""
    state = processes()
    return ProcessShare(state.process_index, state.num_processes, lambda text: gather_object([text]))


def repaired_by_the_first(
    plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase, *, verify: Verify = "full"
) -> bool:
    """As ``repair_damaged_shards``, of several processes: the others find nothing to repair, and all agree."""
    share, whole = own_share(), False
    for turn in (share.is_first, not share.is_first):
        with together(plan.folder, share):
            if turn:
                whole = repair_damaged_shards(plan, teacher, tokenizer, verify=verify)
    return share.all_agree(whole)


def build_missing_shards(plan: BuildPlan, teacher: OnlineTeacher, tokenizer: PreTrainedTokenizerBase) -> None:
    """Build what the store lacks, with a bar; over all ranks of ``torchrun``."""
    state = processes()
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
    """Write the damaged shards of a finished store again, and no others; False where there is no finished store, or one
    that lacks some of the plan's signals.

    Raises StoreError where the store is for something else.
    """
    if not (plan.folder / MANIFEST).is_file():
        return False
    manifest = Manifest.read(plan.folder)
    lacks = plan.extended_for(manifest) is not None
    broken = damaged(plan.folder, manifest, verify=verify)
    if lacks or not is_for_the_same(plan.made_for, manifest.made_for):
        # signals of other methods cannot be computed for this one
        refuse_damaged(plan.folder, manifest, broken)
    if not broken:
        return not lacks
    logger.info(
        "\n".join(f"{plan.folder}: {shard} {what}; it is built again" for shard, what in broken.items())
    )
    numbers = [k for k, shard in enumerate(manifest.shards) if shard.file in broken]
    device = processes().device
    placed(teacher.model, device)
    rebuild(plan, numbers, teacher, DeviceCollator(tokenizer, device=device))
    return True


@dataclass(frozen=True)
class DeviceCollator(Collator):
    """Collates on a device."""

    device: torch.device | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in super().__call__(features).items()}


@contextmanager
def _found(folder: Path) -> Iterator[None]:
    """Raises StoreError where the system cannot find what is named."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder} cannot be read: {system_reason(error)}", remedy="check the path"
        ) from error


def describe(folder: Path) -> dict[str, Any]:
    """What, how many, how large, for which teacher. Raises StoreError for what is no store."""
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
    """Raise StoreError, naming the shards, where a store is damaged."""
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
    """Whether something that we wrote stands there and parses: the manifest, the plan, or any shard."""
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
