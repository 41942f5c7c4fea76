"""Locks that leave nothing behind, errors of the disk, and what two dictionaries differ in."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradistill import io

HOLDER = """
import sys, time
from pathlib import Path
from gradistill import io
io._FOLDERS_OPEN = sys.argv[2] == "folder"
with io.locked(Path(sys.argv[1])) as had:
    print(had, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["folder", "file"])
def lock_on(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What carries the lock: the folder itself, or a file elsewhere, as on Windows."""
    temporary = str(tmp_path_factory.mktemp("temporary"))
    monkeypatch.setattr(io, "_FOLDERS_OPEN", request.param == "folder")
    monkeypatch.setenv("TMPDIR", temporary)
    monkeypatch.setattr(io.tempfile, "tempdir", temporary)
    return request.param


@pytest.fixture
def holder(tmp_path: Path, lock_on: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock on the folder ``held``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "held"), lock_on], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_another_process_holds_is_not_locked(holder: object, tmp_path: Path) -> None:
    with io.locked(tmp_path / "held", patience=0.0) as had:
        assert not had
    with io.locked(tmp_path / "." / "held", patience=0.0) as had:
        assert not had
    with io.locked(tmp_path / "other", patience=0.0) as had:
        assert had


def test_a_killed_process_releases_its_lock_and_leaves_no_file(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL)
    with io.locked(tmp_path / "held", patience=5.0) as had:
        assert had
    assert [path.name for path in tmp_path.rglob("*")] == ["held"]  # which the killed process had made


def test_a_lock_leaves_no_file_and_no_folder_that_it_made(lock_on: str, tmp_path: Path) -> None:
    with io.locked(tmp_path / "new" / "folder") as had:
        assert had
        assert list((tmp_path / "new" / "folder").iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_its_holder_removes_is_made_again(lock_on: str, tmp_path: Path) -> None:
    """The lock of a removed folder is no lock on the new one."""
    folder = tmp_path / "folder"
    with io.locked(folder):
        folder.rmdir()
        if lock_on == "folder":
            with io.locked(folder, patience=0.0) as had:
                assert had
                assert folder.is_dir()


def test_a_file_system_without_locks_counts_as_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", refused)
    with io.locked(tmp_path, patience=0.0) as had:
        assert had


def test_the_system_gives_a_reason_or_the_error_does() -> None:
    assert (
        io.system_reason(OSError(errno.ENOENT, "No such file or directory", "a"))
        == "No such file or directory"
    )
    assert io.system_reason(OSError("the hub is away")) == "the hub is away"
    assert io.system_reason(ValueError("embedded null byte")) == "embedded null byte"


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_disk_without_room_is_recognised(number: int, full: bool) -> None:
    assert io.is_disk_full(OSError(number, "reason")) == full


def test_differences_are_named_by_their_keys() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": 0, "same": {"x": None}}
    now = {"a": {"b": 2, "c": [1, 3]}, "same": {"x": None}, "new": {"y": 1}}
    assert list(io.differences(before, now)) == [
        ("a.b", 1, 2),
        ("a.c", [1, 2], [1, 3]),
        ("gone", 0, None),
        ("new", None, {"y": 1}),
    ]
    assert list(io.differences(now, now)) == []
    assert list(io.differences(1, 2, "whole")) == [("whole", 1, 2)]
