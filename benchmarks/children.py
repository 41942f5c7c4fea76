"""Commands of gradistill in forks of this process, which has all libraries loaded: to be killed, or let down."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from gradistill.bench import process_pool
from gradistill.cli import main as gradistill
from gradistill.commands import predict
from gradistill.store import build_plan

BEGUN = "### gradistill"
WRITES = "### writes "


class Child:
    """A process in a group of its own; what it prints is added to ``log``. It can stand for a ``Popen``."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        before: Callable[[], object] | None = None,
    ) -> None:
        self.returncode: int | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.environ.update(environment)
                (before or (lambda: None))()
                code = _commanded(arguments, log)
            finally:
                sys.stdout.flush()
                os._exit(code)

    def poll(self) -> int | None:
        return self._reaped(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while until is not None and self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("gradistill", timeout or 0)
            time.sleep(0.01)
        code = self._reaped(0)
        assert code is not None
        return code

    def terminate(self) -> None:
        self._signalled(signal.SIGTERM)

    def kill(self) -> None:
        self._signalled(signal.SIGKILL)

    def _signalled(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _reaped(self, options: int) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode


def _commanded(arguments: Sequence[str], log: Path) -> int:
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"{BEGUN} {' '.join(arguments)}\n")
        stream.flush()
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["gradistill", *arguments]
    build_plan.SHARD_BYTES = 1 << 15  # so that these few rows fill some shards
    predict.CHUNK_ROWS = 8  # and some chunks
    process_pool._started, process_pool._bar = _student, _no_bar
    try:
        gradistill()
        return 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        print(f"{WRITES}{_library().writes_seen()}", flush=True)


def _student(command: process_pool.Command, _width: object, environment: Mapping[str, str]) -> Any:
    """What a bench starts, forked as well: it would load all libraries anew."""
    command.log.unlink(missing_ok=True)

    bench = os.getpid()

    def begin() -> None:
        process_pool._die_with(bench)
        os.closerange(3, 1024)  # the lock of the bench among them, as Popen does
        _library().forget_writes()

    return Child(command.arguments, command.log, environment, begin)


def _no_bar(_total: int) -> Any:
    """A bar has a thread, and a process with threads should not fork."""
    return nullcontext(lambda _left: None)


def let_down(folder: Path) -> None:
    """Start this script anew with a library that counts writes and makes one fail, built in ``folder``."""
    if "LD_PRELOAD" in os.environ:
        return
    source = Path(__file__).with_name("failing_writes.c")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "failing_writes.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": str(library)})


def _library() -> Any:
    return ctypes.CDLL(None)
