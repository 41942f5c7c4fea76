"""Files and folders that are whole or not there, their checksums, and the lock on a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

_CHUNK = 1 << 20
_OWN_DRAFT = r"\.gradistill-\d+-.+"
_GRACE = 2.0
"""Seconds that a killed process may take to release its files."""


def checksum_of(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            found.update(piece)
    return found.hexdigest()


def draft_beside(place: Path, name: str | None = None) -> Path:
    """The name of a file or folder that is being written, or removed; ``remove_drafts`` knows it."""
    return place.with_name(f".gradistill-{os.getpid()}-{name or place.name}")


def write_whole(file: Path, content: bytes | memoryview) -> None:
    """The file with all of its content, or as it was before, whatever happens meanwhile."""
    draft = draft_beside(file)
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(file.parent)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError for anything else, OSError where it cannot be read."""
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def discard(folder: Path) -> None:
    """Remove a folder: its name is free in one step, so that a kill never leaves a part of it there."""
    grave = draft_beside(folder, "removed")
    shutil.rmtree(grave, ignore_errors=True)
    folder.replace(grave)
    shutil.rmtree(grave)


def draft_of(names: str) -> re.Pattern[str]:
    """The names of drafts, and those that earlier versions gave to drafts of files of these names, a pattern."""
    return re.compile(rf"\.({names})\.\d+|{_OWN_DRAFT}")


def drafts_in(folder: Path) -> list[Path]:
    """What a process that was killed had begun to write or to remove, directly in a folder."""
    own = re.compile(_OWN_DRAFT)
    return [path for path in folder.glob(".gradistill-*") if own.fullmatch(path.name)]


def remove_drafts(folder: Path, *, below: bool = False) -> None:
    """Remove the drafts in a folder, and in those ``below`` it; the folder must be locked."""
    for place in (folder, *(path for path in folder.rglob("*") if below and path.is_dir())):
        for path in drafts_in(place):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def synced(folder: Path) -> None:
    """What stands in a folder is on the disk, not only on its way there."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(folder: Path, *, patience: float | None = _GRACE) -> Iterator[bool]:
    """Lock a folder, which is made if it is missing; yields False where another process holds the lock.

    The lock is on the folder itself and leaves no file behind. A process that dies releases it. ``patience`` is how
    many seconds to wait for it (None: as long as it takes). Folders made here that are empty at the end are removed.
    Raises OSError where the folder cannot be made or opened.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    until = None if patience is None else monotonic() + patience
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            try:
                had = _flocked(handle, until)
                if had and not _is_at(handle, folder):
                    continue  # whoever held it has removed the folder
                yield had
                return
            finally:
                os.close(handle)
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def _flocked(handle: int, until: float | None) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if until is not None and monotonic() > until:
                return False
            sleep(0.05)
        except OSError:
            return True  # a file system without locks
