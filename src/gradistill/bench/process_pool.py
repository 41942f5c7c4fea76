"""Many commands, a few at once: each in a process of its own, which dies with this one and cannot take it along."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from gradistill.printing import progress_bars

FIRST_GUESS = 2e9
"""Bytes that a process may need, until one has ended."""
_HEADROOM = 1.3


@dataclass
class Prerequisite:
    """What has to be there before several commands can start, such as a store.

    ``build`` makes it, once, and returns the ``arguments`` that name it to these commands.
    """

    build: Callable[[], Sequence[str]]
    arguments: Sequence[str] | None = None

    def built(self) -> Sequence[str]:
        """The arguments; the first call builds what they name."""
        if self.arguments is None:
            self.arguments = self.build()
        return self.arguments


@dataclass(frozen=True)
class Command:
    """``arguments`` of gradistill, and those of its prerequisite; all that it prints goes to ``log``.

    ``inputs_digest``: of what it reads (recipe, rows, teacher), whose paths in the arguments stay what they are.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    prerequisite: Prerequisite | None = None
    inputs_digest: str = ""

    @property
    def can_start(self) -> bool:
        """Whether nothing has to be built before."""
        return self.prerequisite is None or self.prerequisite.arguments is not None

    def argv(self) -> list[str]:
        """All arguments; the prerequisite is built now, if it is not there."""
        return [*self.arguments, *(self.prerequisite.built() if self.prerequisite is not None else ())]


@dataclass(frozen=True)
class Ended:
    """``message`` is the error that a failed command printed, or the end of whatever it did print."""

    command: Command
    code: int
    seconds: float

    @property
    def message(self) -> str:
        text = self.command.log.read_text(encoding="utf-8", errors="replace").strip()
        start = text.rfind("error: ")
        return text[start:] if start >= 0 else "\n".join(text.splitlines()[-5:])


@dataclass(frozen=True)
class Width:
    """How many run ``at_once``, and with how many ``threads`` each.

    The threads do not depend on what memory allows meanwhile: sums in another order would give other students.
    """

    at_once: int
    threads: int

    @classmethod
    def of_this_machine(cls, at_once: int | None = None) -> Width:
        """On one accelerator one at a time; on a CPU one for every four cores, but two where there are two."""
        process: Any = psutil.Process()  # macOS has no affinity
        cores = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
        if at_once is None:
            import torch  # here: a job of a cluster waits for its command without it

            at_once = 1 if torch.accelerator.is_available() else max(min(2, cores), cores // 4)
        return cls(at_once, max(1, cores // at_once))


def run_all(
    commands: Sequence[Command],
    width: Width,
    environment: Mapping[str, str],
    needed: Callable[[], float],
    on_end: Callable[[Ended, float], None],
) -> None:
    """Run them in their order. ``on_end`` is called with each as it ends, and with the seconds left for the others.

    Another is started only while memory for it is free: ``needed`` bytes, by what others took. A prerequisite is built
    before the first that needs it, while nothing else runs, as it takes all cores. Whatever stops this process stops
    them too.
    """
    waiting, running = list(commands), dict[subprocess.Popen[bytes], tuple[Command, float]]()
    spent, done = 0.0, 0
    with run_bar(len(commands)) as advance:
        try:
            while waiting or running:
                while (
                    waiting
                    and len(running) < width.at_once
                    and (not running or (waiting[0].can_start and _free() > _HEADROOM * needed()))
                ):
                    command = waiting.pop(0)
                    running[_started(command, width, environment)] = command, monotonic()
                for process in [process for process in running if process.poll() is not None]:
                    command, began = running.pop(process)
                    ended = Ended(command, process.returncode, monotonic() - began)
                    spent, done = spent + ended.seconds, done + 1
                    left = spent / done * (len(waiting) + 0.5 * len(running)) / width.at_once
                    on_end(ended, left)
                    advance(left)
                sleep(0.1)
        finally:
            _stopped(running)


def _started(command: Command, width: Width, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    threads = {name: str(width.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    argv = command.argv()
    with command.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gradistill", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **threads, **environment},
            preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
        )


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the one that started it dies, were it by SIGKILL (prctl(2))."""
    import ctypes
    import signal

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it has died already
            os._exit(1)


def _stopped(running: Mapping[subprocess.Popen[bytes], object]) -> None:
    """They hold a lock on their folder and go on from their last checkpoint another time."""
    for process in running:
        process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _free() -> float:
    """Bytes of memory that a new process can have without swapping."""
    return float(psutil.virtual_memory().available)


@contextmanager
def run_bar(total: int) -> Iterator[Callable[[float], None]]:
    """A bar over so many commands; call what it yields, with the seconds left, after each."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    with progress_bars(*columns) as progress:
        bar = progress.add_task("running", total=total, left="")

        def advance(left: float) -> None:
            progress.update(bar, advance=1, left=f"about {duration(left)} left")

        yield advance


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
