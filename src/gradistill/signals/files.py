"""Files that are whole or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_CHUNK = 1 << 20


def checksum_of(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            found.update(piece)
    return found.hexdigest()


def write_whole(file: Path, content: bytes | memoryview) -> None:
    """The file with all of its content, or as it was before, whatever happens meanwhile."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(file.parent)


def draft_of(names: str) -> re.Pattern[str]:
    """The names that ``write_whole`` gives to what it has begun to write into files of these names, a pattern."""
    return re.compile(rf"\.({names})\.\d+")


def remove_drafts(folder: Path) -> None:
    """What a process that was killed had begun to write, anywhere below; the folder must be locked."""
    drafts = draft_of(".+")
    for path in folder.rglob(".*"):
        if drafts.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
