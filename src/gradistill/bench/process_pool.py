"""Run many commands, a few at once, each in its own process. Processes end with this one; their failure does not end
it."""

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
"""The assumed bytes of memory of a process, until one has ended."""
_HEADROOM = 1.3
_GROWTH = 60.0
"""Seconds in which a new process takes most of its memory."""


@dataclass
class Prerequisite:
    """Something that must exist before several commands can start, such as a store.

    ``build`` is called once. It returns the ``arguments`` that name the result to these commands.
    """

    build: Callable[[], Sequence[str]]
    arguments: Sequence[str] | None = None

    def built(self) -> Sequence[str]:
        """The arguments. The first call builds what they name."""
        if self.arguments is None:
            self.arguments = self.build()
        return self.arguments


@dataclass(frozen=True)
class Command:
    """A gradistill command: its ``arguments``, and those of its prerequisite. Its output goes to the file ``log``.

    ``inputs_digest`` is a hash of the content that it reads (recipe, rows, teacher); the arguments hold only paths.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    prerequisite: Prerequisite | None = None
    inputs_digest: str = ""

    @property
    def can_start(self) -> bool:
        """Whether no prerequisite has to be built first."""
        return self.prerequisite is None or self.prerequisite.arguments is not None

    def argv(self) -> list[str]:
        """All arguments. The prerequisite is built now, if it does not exist."""
        return [*self.arguments, *(self.prerequisite.built() if self.prerequisite is not None else ())]


@dataclass(frozen=True)
class CommandResult:
    """A command that ended. ``message`` is the error that it printed, or else the end of its output."""

    command: Command
    code: int
    seconds: float

    @property
    def message(self) -> str:
        text = self.command.log.read_text(encoding="utf-8", errors="replace").strip()
        start = text.rfind("error: ")
        return text[start:] if start >= 0 else "\n".join(text.splitlines()[-5:])


@dataclass(frozen=True)
class Concurrency:
    """The number of commands that run ``at_once``, and of the ``threads`` of each.

    The number of threads does not depend on free memory, because another order of sums gives other students.
    """

    at_once: int
    threads: int

    @classmethod
    def of_this_machine(cls, at_once: int | None = None) -> Concurrency:
        """The default for this machine: one command with an accelerator; else one for four cores, and at least two with
        two cores."""
        process: Any = psutil.Process()  # macOS has no affinity
        cores = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
        if at_once is None:
            import torch  # imported here, because a job of a cluster does not need it

            at_once = 1 if torch.accelerator.is_available() else max(min(2, cores), cores // 4)
        return cls(at_once, max(1, cores // at_once))


def run_all(
    commands: Sequence[Command],
    concurrency: Concurrency,
    environment: Mapping[str, str],
    needed: Callable[[], float],
    on_end: Callable[[CommandResult, float], None],
) -> None:
    """Run commands in their order. ``on_end`` is called with each that ends, and with the seconds left for the others.

    A further command is started only if memory for it is free: ``needed`` bytes, from the usage of others, and as much
    for each command that has just started and not yet taken its own. A prerequisite is built before the first command
    that needs it, while nothing else runs, because it uses all cores.
    All commands are stopped with this process.
    """
    waiting, running = list(commands), dict[subprocess.Popen[bytes], tuple[Command, float]]()
    spent, done = 0.0, 0

    def has_room() -> bool:
        growing = sum(monotonic() - began < _GROWTH for _, began in running.values())
        return _free() > (1 + growing) * _HEADROOM * needed()

    with run_bar(len(commands)) as advance:
        try:
            while waiting or running:
                while (
                    waiting
                    and len(running) < concurrency.at_once
                    and (not running or (waiting[0].can_start and has_room()))
                ):
                    command = waiting.pop(0)
                    running[_started(command, concurrency, environment)] = command, monotonic()
                for process in [process for process in running if process.poll() is not None]:
                    command, began = running.pop(process)
                    ended = CommandResult(command, process.returncode, monotonic() - began)
                    spent, done = spent + ended.seconds, done + 1
                    left = spent / done * (len(waiting) + 0.5 * len(running)) / concurrency.at_once
                    on_end(ended, left)
                    advance(left)
                sleep(0.1)
        finally:
            _stopped(running)


def _started(
    command: Command, concurrency: Concurrency, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    threads = {name: str(concurrency.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
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
    """Let the kernel kill this process when its parent dies, even by SIGKILL (prctl(2))."""
    import ctypes
    import signal

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # the parent has already died
            os._exit(1)


def _stopped(running: Mapping[subprocess.Popen[bytes], object]) -> None:
    """Stop the processes and wait for their end, which frees the locks on their folders. Their runs can resume."""
    for process in running:
        process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _free() -> float:
    """The bytes of memory that a new process can use without swapping."""
    return float(psutil.virtual_memory().available)


@contextmanager
def run_bar(total: int) -> Iterator[Callable[[float], None]]:
    """A progress bar over ``total`` commands. Call the yielded function with the seconds left after each command."""
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
    """Seconds as text: 40 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
