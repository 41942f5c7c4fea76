"""Run the commands of a bench as jobs of a cluster: submit them by submitit, follow them, and resubmit lost ones."""

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

from gradistill.bench.process_pool import Command, CommandResult, run_bar
from gradistill.errors import RecipeError, nearest
from gradistill.io import digest, read_object, write_whole
from gradistill.package_versions import installing

logger = logging.getLogger(__name__)

MOST_JOBS = 100
"""The default number of jobs in the cluster's queue at once (``--jobs``)."""
TRIES = 3
"""The number of times that a job is submitted if it ends without a result, as after a failure of its node."""
MINUTES = 240
"""The time limit of a job. A job that reaches it is queued again and resumes from its last checkpoint."""
POLL = 5.0
"""Seconds between two checks of the jobs."""
CANCEL_SECONDS = 60.0
"""Seconds to wait for cancelled jobs to end."""
RECORD = "jobs.json"


@dataclass(frozen=True)
class Job:
    """One command that runs on a node; a call returns its exit code and its seconds."""

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
        """The job that submitit queues again when the time limit or another job stops this one."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Cluster:
    """A cluster: submitit's ``executor``, the ``folder`` of its files, and how many jobs wait or run ``at_once``."""

    executor: Any
    folder: Path
    at_once: int = MOST_JOBS

    @classmethod
    def slurm(cls, folder: Path, options: Mapping[str, str], at_once: int | None = None) -> Cluster:
        """The Slurm cluster that ``sbatch`` on this machine submits to.

        Parameters:
            ``folder``: for the jobs' files; nodes and this machine must both see it.
            ``options``: of sbatch, by submitit's names: ``partition``, ``time`` (minutes), ``gpus_per_node``, ``mem``.

        Raises RecipeError without submitit, without Slurm, and for an option that submitit does not have.

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
            unknown = next((name for name in options if name not in known), None)
            raise RecipeError(
                f"--slurm {unknown}: no option that is known" if unknown else f"--slurm: {error}",
                expected="an option of sbatch, by submitit's name",
                remedy=nearest(unknown, known) if unknown else "correct it",
            ) from error
        return cls(executor, folder, at_once or MOST_JOBS)

    def run(
        self,
        commands: Sequence[Command],
        environment: Mapping[str, str],
        on_end: Callable[[CommandResult, float], None],
    ) -> None:
        """``run_all`` in jobs. They keep running when this process stops, and the next call follows them."""
        with run_bar(len(commands)) as advance:
            _Queue(self, environment, on_end, advance).empty(list(commands))


@dataclass
class _Sent:
    command: Command
    job: Any
    tries: int


@dataclass
class _Queue:
    """The jobs that wait or run (``in_flight``). ``jobs.json`` lists them, so that another process can follow them.

    ``of_other_calls``: running jobs of commands that are not part of this call, such as students while teachers train.
    """

    cluster: Cluster
    environment: Mapping[str, str]
    on_end: Callable[[CommandResult, float], None]
    advance: Callable[[float], None]
    in_flight: list[_Sent] = field(default_factory=list)
    of_other_calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    spent: float = 0.0
    done: int = 0

    def empty(self, waiting: list[Command]) -> None:
        waiting = self._found_again(waiting)
        while waiting or self.in_flight:
            free = max(0, self.cluster.at_once - len(self.in_flight))  # an earlier call may have sent more
            self._send([(command, 1) for command in waiting[:free]])
            waiting = waiting[free:]
            again: list[tuple[Command, int]] = []
            over = [sent for sent in self.in_flight if sent.job.done()]
            for sent in over:
                self.in_flight.remove(sent)
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
            if self.in_flight:
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
        except FailedJobError as error:
            raise RecipeError(
                f"the cluster refused a job: {error}",
                expected="options that it takes",
                remedy="correct the options of --slurm; running jobs continue, and the same command follows them",
            ) from error
        self.in_flight += [
            _Sent(command, job, tries) for (command, tries), job in zip(wanted, sent, strict=True)
        ]
        self._record()

    def _report(self, ended: CommandResult, waiting: int) -> None:
        self.spent, self.done = self.spent + ended.seconds, self.done + 1
        left = self.spent / self.done * (waiting + len(self.in_flight)) / max(len(self.in_flight), 1)
        self.on_end(ended, left)
        self.advance(left)

    def _found_again(self, commands: Sequence[Command]) -> list[Command]:
        """Follow the jobs that an earlier call submitted for the same commands, and cancel jobs with other inputs.
        Returns the commands without a job."""
        known = self._known()
        waiting, other = [], list[_Sent]()
        for command in commands:
            entry = known.pop(command.name, None)
            if entry is None:
                waiting.append(command)
                continue
            sent = _Sent(command, self._job(entry), entry["tries"])
            if _is_for(command, entry):
                self.in_flight.append(sent)
                logger.info(f"{command.name}: followed as job {entry['job']}, which an earlier call sent")
            elif sent.job.done():
                waiting.append(command)
            else:
                logger.warning(
                    f"{command.name}: job {entry['job']} of an earlier call has another recipe, rows or teacher: it is "
                    "cancelled and sent again"
                )
                other.append(sent)
                known[command.name] = entry
        ended = _cancelled(other)
        self.of_other_calls = {name: entry for name, entry in known.items() if not self._job(entry).done()}
        return [*waiting, *(sent.command for sent in ended)]

    def _known(self) -> dict[str, dict[str, Any]]:
        """The entries of ``jobs.json``, by command."""
        try:
            entries = read_object(self.cluster.folder / RECORD)
        except (OSError, ValueError):
            return {}
        needed = {"job", "tries", "command"}
        return {
            name: entry
            for name, entry in entries.items()
            if isinstance(entry, dict) and entry.keys() >= needed
        }

    def _job(self, entry: Mapping[str, Any]) -> Any:
        return self.cluster.executor.job_class(self.cluster.folder, entry["job"])

    def _record(self) -> None:
        entries = {
            sent.command.name: {
                "job": sent.job.job_id,
                "tries": sent.tries,
                "command": digest(list(sent.command.arguments)),
                "inputs": sent.command.inputs_digest,
            }
            for sent in self.in_flight
        }
        self.cluster.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.of_other_calls | entries, indent=1) + "\n"
        write_whole(self.cluster.folder / RECORD, content.encode())


def _is_for(command: Command, entry: Mapping[str, Any]) -> bool:
    """Whether a job was submitted for this command with the same inputs. An entry of an earlier version without
    ``inputs`` counts as the same."""
    inputs = entry.get("inputs", command.inputs_digest)
    return (entry["command"], inputs) == (digest(list(command.arguments)), command.inputs_digest)


def _cancelled(other: Sequence[_Sent]) -> list[_Sent]:
    """Cancel jobs and wait for their end, because new jobs write into the same folders. Returns those that ended."""
    for sent in other:
        sent.job.cancel(check=False)
    latest = monotonic() + CANCEL_SECONDS
    while not all(sent.job.done() for sent in other) and monotonic() < latest:
        sleep(POLL)
    ended = [sent for sent in other if sent.job.done()]
    for sent in other:
        if sent not in ended:
            logger.warning(
                f"{sent.command.name}: its cancelled job {sent.job.job_id} is still running, and no other is sent; "
                "give the command again when it has ended"
            )
    return ended


def _ended(sent: _Sent) -> CommandResult | None:
    """The result of a job that ended; None if the job left no result."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        code, seconds = sent.job.result()
    except (FailedJobError, UncompletedJobError):
        return None
    return CommandResult(sent.command, code, seconds)


def _lost(sent: _Sent) -> CommandResult:
    sent.command.log.parent.mkdir(parents=True, exist_ok=True)
    with sent.command.log.open("a", encoding="utf-8") as log:
        log.write(
            f"\nerror: job {sent.job.job_id} was lost ({sent.job.state}), the last of {TRIES} that were sent. "
            f"Its files: {sent.job.paths.stderr}\n"
        )
    return CommandResult(sent.command, -1, 0.0)


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
