"""The commands of a bench as jobs of a cluster: sent through submitit, followed, and sent again where they are lost."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from gradistill.bench.process_pool import Command, Ended, run_bar
from gradistill.errors import RecipeError, nearest
from gradistill.io import read_object, write_whole
from gradistill.package_versions import installing

logger = logging.getLogger(__name__)

MOST_JOBS = 100
"""Jobs in the cluster's queue at once, unless ``--jobs`` names another number."""
TRIES = 3
"""How often a job is sent that ends without a word, as one does whose node fails."""
MINUTES = 240
"""Time limit of a job. One that reaches it is put into the queue again and goes on from its last checkpoint."""
POLL = 5.0
"""Seconds between two looks at the jobs."""
CANCELLING = 60.0
"""Seconds that a cancelled job has for its end."""
RECORD = "jobs.json"


@dataclass(frozen=True)
class Job:
    """One command, carried out on a node; returns its exit code and its seconds."""

    arguments: tuple[str, ...]
    log: str
    environment: Mapping[str, str]

    def __call__(self) -> tuple[int, float]:
        start = monotonic()
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with Path(self.log).open("ab") as log:
            ended = subprocess.run(
                [sys.executable, "-m", "gradistill", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                check=False,
            )
        return ended.returncode, monotonic() - start

    def checkpoint(self) -> Any:
        """What submitit sends to the queue again when the time limit or another job stops this one."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Cluster:
    """Where jobs go: ``executor`` of submitit, whose files lie in ``folder``, and how many wait or run ``at_once``."""

    executor: Any
    folder: Path
    at_once: int = MOST_JOBS

    @classmethod
    def slurm(cls, folder: Path, options: Mapping[str, str], at_once: int | None = None) -> Cluster:
        """The Slurm that ``sbatch`` of this machine sends jobs to.

        Parameters:
            ``folder``: for the jobs' files; nodes and this machine must both see it.
            ``options``: of sbatch, by submitit's names: ``partition``, ``time`` (minutes), ``gpus_per_node``, ``mem``.

        Raises RecipeError without submitit, without Slurm, and for an option that submitit does not know.

        Example: ``Cluster.slurm(Path("runs/bench/jobs"), {"partition": "gpu", "gpus_per_node": "1"})``
        """
        submitit = _submitit()
        try:
            executor = submitit.SlurmExecutor(folder)
        except RuntimeError as error:
            raise RecipeError(
                "--launcher slurm: this machine has no Slurm (there is no command srun).",
                expected="a login node of the cluster",
                remedy="give the command there, or leave --launcher out",
            ) from error
        numbers = {name: int(value) if value.isdecimal() else value for name, value in options.items()}
        try:
            executor.update_parameters(**{"time": MINUTES, "job_name": "gradistill", **numbers})
        except ValueError as error:
            known = re.findall(r"- (\w+) \(default", str(error))
            wrong = next((name for name in options if name not in known), None)
            raise RecipeError(
                f"--slurm {wrong}: no option that is known" if wrong else f"--slurm: {error}",
                expected="an option of sbatch, by submitit's name",
                remedy=nearest(wrong, known) if wrong else "correct it",
            ) from error
        return cls(executor, folder, at_once or MOST_JOBS)

    def run(
        self,
        commands: Sequence[Command],
        environment: Mapping[str, str],
        on_end: Callable[[Ended, float], None],
    ) -> None:
        """As ``run_all``, in jobs. Stopping this process leaves the jobs at work; the next call finds them again."""
        with run_bar(len(commands)) as advance:
            _Queue(self, environment, on_end, advance).empty(list(commands))


@dataclass
class _Sent:
    command: Command
    job: Any
    tries: int


@dataclass
class _Queue:
    """Jobs in flight. ``jobs.json`` names them, so that another process can follow them."""

    cluster: Cluster
    environment: Mapping[str, str]
    on_end: Callable[[Ended, float], None]
    advance: Callable[[float], None]
    flying: list[_Sent] = field(default_factory=list)
    spent: float = 0.0
    done: int = 0

    def empty(self, waiting: list[Command]) -> None:
        waiting = self._found_again(waiting)
        while waiting or self.flying:
            free = max(0, self.cluster.at_once - len(self.flying))  # an earlier call may have sent more
            self._send([(command, 1) for command in waiting[:free]])
            waiting = waiting[free:]
            again: list[tuple[Command, int]] = []
            over = [sent for sent in self.flying if sent.job.done()]
            for sent in over:
                self.flying.remove(sent)
                ended = _ended(sent)
                if ended is None and sent.tries < TRIES:
                    logger.warning(
                        f"{sent.command.name}: job {sent.job.job_id} was lost ({sent.job.state}), sent again"
                    )
                    again.append((sent.command, sent.tries + 1))
                else:
                    self._report(ended or _lost(sent), len(waiting))
            self._send(again)
            if over:
                self._record()
            if self.flying:
                sleep(POLL)

    def _send(self, wanted: Sequence[tuple[Command, int]]) -> None:
        from submitit.core.utils import FailedJobError

        if not wanted:
            return
        for command, tries in wanted:
            if tries == 1:
                command.log.unlink(missing_ok=True)
        jobs = [Job(tuple(command.arguments), str(command.log), self.environment) for command, _ in wanted]
        try:
            sent = self.cluster.executor.submit_array(jobs)
        except (FailedJobError, OSError) as error:
            raise RecipeError(
                f"the cluster refused a job: {error}",
                expected="options that it takes",
                remedy="correct those of --slurm; jobs that are at work go on, and the same command finds them",
            ) from error
        self.flying += [
            _Sent(command, job, tries) for (command, tries), job in zip(wanted, sent, strict=True)
        ]
        self._record()

    def _report(self, ended: Ended, waiting: int) -> None:
        self.spent, self.done = self.spent + ended.seconds, self.done + 1
        left = self.spent / self.done * (waiting + len(self.flying)) / max(len(self.flying), 1)
        self.on_end(ended, left)
        self.advance(left)

    def _found_again(self, commands: Sequence[Command]) -> list[Command]:
        """Follow the jobs that an earlier call sent for the same commands; returns the commands without one."""
        try:
            known = read_object(self.cluster.folder / RECORD)
        except (OSError, ValueError):
            known = {}
        waiting = []
        for command in commands:
            entry = known.get(command.name)
            if entry is None:
                waiting.append(command)
                continue
            job = self.cluster.executor.job_class(self.cluster.folder, entry["job"])
            if entry["command"] == command.mark:
                self.flying.append(_Sent(command, job, entry["tries"]))
                logger.info(f"{command.name}: followed as job {entry['job']}, which an earlier call sent")
                continue
            waiting.append(command)
            if not job.done():
                logger.warning(
                    f"{command.name}: job {entry['job']} of an earlier call has another recipe, rows or teacher: it is "
                    "cancelled, and sent anew"
                )
                _cancel(job)
        return waiting

    def _record(self) -> None:
        entries = {
            sent.command.name: {
                "job": sent.job.job_id,
                "tries": sent.tries,
                "command": sent.command.mark,
            }
            for sent in self.flying
        }
        self.cluster.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.cluster.folder / RECORD, (json.dumps(entries, indent=1) + "\n").encode())


def _cancel(job: Any) -> None:
    """Cancel a job, and wait for its end: the next one writes into the same folder."""
    job.cancel(check=False)
    latest = monotonic() + CANCELLING
    while not job.done() and monotonic() < latest:
        sleep(POLL)


def _ended(sent: _Sent) -> Ended | None:
    """How a job ended; None where it left no result."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        code, seconds = sent.job.result()
    except (FailedJobError, UncompletedJobError):
        return None
    return Ended(sent.command, code, seconds)


def _lost(sent: _Sent) -> Ended:
    sent.command.log.parent.mkdir(parents=True, exist_ok=True)
    with sent.command.log.open("a", encoding="utf-8") as log:
        log.write(
            f"\nerror: job {sent.job.job_id} was lost ({sent.job.state}), the last of {TRIES} that were sent. "
            f"Its files: {sent.job.paths.stderr}\n"
        )
    return Ended(sent.command, -1, 0.0)


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise RecipeError(
            "--launcher slurm needs submitit, which is not installed.",
            expected="the extra slurm",
            remedy=installing("slurm"),
        ) from error
    return submitit
