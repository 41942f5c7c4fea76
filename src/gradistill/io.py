"""Files and folders: atomic writes, checksums, the lock on a folder, disk errors, differences of contents."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from gradistill.errors import check_type

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_TORCH = ("PytorchStreamWriter", "inline_container", "writing file", "iostream error")
"""Parts of torch.save's messages for a failing disk; its RuntimeError has no system reason."""
_FOLDERS_OPEN = os.name == "posix"
"""Whether the system opens a folder like a file. Windows does not."""
_OWN_DRAFT = r"\.gradistill-\d+-.+"
_GRACE = 2.0
"""Seconds to wait for a killed process to release its files."""


def system_reason(error: Exception) -> str:
    """The system's reason in an error of reading or writing, or the error's message if it has none."""
    return getattr(error, "strerror", None) or str(error)


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed because the disk, or the user's quota, has no room."""
    return error.errno in _FULL


def reason_of_the_disk(error: Exception) -> str | None:
    """The system's reason if a library could not write a file; None for any other error.

    safetensors and tokenizers quote the number of the system's error; torch gives no reason.
    """
    match = _OF_RUST.search(str(error))
    number = int(match[1]) if match else error.errno if isinstance(error, OSError) else None
    if number in _DISK:
        return os.strerror(number)
    return "torch could not write a file" if any(part in str(error) for part in _OF_TORCH) else None


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The differences of two nested dictionaries: the keys joined by dots, the value before and the value now.

    A key that is missing on one side has the value None there. Lists are compared as a whole.

    Example::

        list(differences({"a": {"b": 1}}, {"a": {"b": 2}})) == [("a.b", 1, 2)]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif before != now:
        yield path, before, now


def shown_differences(before: Any, now: Any) -> list[str]:
    """The ``differences`` as lines of a message.

    Example: ``shown_differences({"a": 1}, {"a": 2}) == ["a: 1 before, 2 now"]``
    """
    return [f"{path}: {old!r} before, {new!r} now" for path, old, new in differences(before, now)]


def checksum_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    checksum = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            checksum.update(piece)
    return checksum.hexdigest()


def digest(content: Any) -> str:
    """The SHA-256 of ``content`` as JSON in a canonical form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def path_of(
    given: str | os.PathLike[str], name: str = "output", expected: str = "a path, such as 'runs/student'"
) -> Path:
    """The argument ``name`` as a path. Raises RecipeError if it is not one."""
    check_type(name, given, (str, os.PathLike), expected)
    return Path(given)


def draft_beside(place: Path, name: str | None = None) -> Path:
    """The temporary name of a file or folder that is being written or removed. ``remove_drafts`` recognises it."""
    return place.with_name(f".gradistill-{os.getpid()}-{name or place.name}")


def write_whole(file: Path, content: bytes | memoryview) -> None:
    """Write a file atomically: it has all of its new content, or is as before, whatever happens meanwhile."""
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
    """The JSON object in a file. Raises ValueError for anything else, OSError if it cannot be read."""
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def discard(folder: Path) -> None:
    """Remove a folder. It is renamed first, in one step, so a kill never leaves a part of it under its name."""
    grave = draft_beside(folder, "removed")
    shutil.rmtree(grave, ignore_errors=True)
    folder.replace(grave)
    shutil.rmtree(grave)


def draft_of(names: str) -> re.Pattern[str]:
    """A pattern for names of drafts, also of earlier versions' drafts of files with these ``names`` (a pattern)."""
    return re.compile(rf"\.({names})\.\d+|{_OWN_DRAFT}")


def drafts_in(folder: Path) -> list[Path]:
    """The drafts directly in a folder: files and folders that a killed process had begun to write or remove."""
    pattern = re.compile(_OWN_DRAFT)
    return [path for path in folder.glob(".gradistill-*") if pattern.fullmatch(path.name)]


def remove_drafts(folder: Path, *, below: bool = False) -> None:
    """Remove the drafts in a folder, and in those ``below`` it; the folder must be locked."""
    for place in (folder, *(path for path in folder.rglob("*") if below and path.is_dir())):
        for path in drafts_in(place):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def synced(folder: Path) -> None:
    """Flush all files of a folder to the disk, and the folder itself."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open(
                "rb" if os.name == "posix" else "r+b"
            ) as stream:  # Windows flushes only writable files
                os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, if the system can."""
    if _FOLDERS_OPEN:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(folder: Path, *, patience: float | None = _GRACE) -> Iterator[bool]:
    """Lock a folder, which is made if it is missing. Yields False if another process holds the lock.

    The lock is on the folder itself and leaves no file behind. If the system cannot open a folder (Windows), it is on a
    file in the user's temporary folder. A process that dies releases it. On a file system without locks it yields True.
    ``patience`` is how many seconds to wait (None: as long as it takes). Folders made here that are empty at the end
    are removed. Raises OSError if the folder cannot be made or opened.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    until = None if patience is None else monotonic() + patience
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _opened_for_lock(folder)
            try:
                had = _lock_until(handle, until)
                if had and not _is_still_there(folder, handle):
                    continue  # the process that held the lock has removed the folder
                yield had
                return
            finally:
                os.close(handle)
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _opened_for_lock(folder: Path) -> int:
    """A descriptor to lock: of the folder, or of a file that is named by a hash of the folder's resolved path."""
    if _FOLDERS_OPEN:
        return os.open(folder, os.O_RDONLY)
    path = os.path.normcase(os.path.realpath(folder))
    file = Path(tempfile.gettempdir(), "gradistill-locks", hashlib.sha256(os.fsencode(path)).hexdigest())
    file.parent.mkdir(exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT)


def _is_still_there(folder: Path, handle: int) -> bool:
    try:
        place = folder.stat()
    except FileNotFoundError:
        return False
    return not _FOLDERS_OPEN or os.path.samestat(os.fstat(handle), place)


def _lock_until(handle: int, until: float | None) -> bool:
    """Whether the descriptor is locked before the time ``until``. True on a file system without locks."""
    from filelock import lock_descriptor  # only a command that writes waits for this import

    while True:
        try:
            if lock_descriptor(handle, blocking=False):
                return True
        except OSError:
            return True
        if until is not None and monotonic() > until:
            return False
        sleep(0.05)
