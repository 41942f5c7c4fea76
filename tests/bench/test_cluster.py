"""A bench's commands as jobs: sent, followed by a later call, sent again where they are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError

from gradistill.bench import cluster as clusters
from gradistill.bench.cluster import RECORD, TRIES, Cluster, Job
from gradistill.bench.process_pool import Command, CommandResult
from gradistill.errors import RecipeError
from small import logged
from typed_command import exit_code


class FakeJob:
    """A job whose end a test decides: a code, or None for one that leaves no result."""

    ends: ClassVar[dict[str, int | None]] = {}
    cancelled: ClassVar[list[str]] = []
    state = "NODE_FAIL"

    def __init__(self, folder: Path, job_id: str) -> None:
        self.job_id, self.paths = job_id, SimpleNamespace(stderr=f"{job_id}.err")

    def done(self) -> bool:
        return self.job_id in self.ends

    def cancel(self, check: bool) -> None:
        self.cancelled.append(self.job_id)
        self.ends[self.job_id] = None

    def result(self) -> tuple[int, float]:
        if (code := self.ends[self.job_id]) is None:
            raise UncompletedJobError
        return code, 1.0


class FakeExecutor:
    job_class = FakeJob

    def __init__(self) -> None:
        self.sent: list[Job] = []

    def submit_array(self, jobs: Sequence[Job]) -> list[FakeJob]:
        self.sent += jobs
        first = len(self.sent) - len(jobs)
        return [FakeJob(Path(), str(first + place)) for place in range(len(jobs))]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "POLL", 0.01)
    monkeypatch.setattr(FakeJob, "ends", {})
    monkeypatch.setattr(FakeJob, "cancelled", [])


def run(cluster: Cluster, folder: Path, *arguments: Sequence[str], inputs: str = "") -> list[CommandResult]:
    ended: list[CommandResult] = []
    commands = [
        Command(" ".join(words), words, folder / f"{k}.log", inputs_digest=inputs)
        for k, words in enumerate(arguments)
    ]
    cluster.run(commands, {"GRADISTILL_CACHE": str(folder)}, lambda end, left: ended.append(end))
    return ended


@contextmanager
def stopped() -> Iterator[None]:
    """The command inside is stopped while its jobs are at work."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_real_jobs_end_with_their_code_and_their_message(tmp_path: Path) -> None:
    executor = submitit.LocalExecutor(tmp_path / "jobs")
    ended = run(Cluster(executor, tmp_path / "jobs"), tmp_path, ["--version"], ["audit", "--nonsense"])
    assert {end.command.name: end.code for end in ended} == {"--version": 0, "audit --nonsense": 2}
    assert next(end.message for end in ended if end.code).startswith("error: ")
    assert json.loads((tmp_path / "jobs" / RECORD).read_text()) == {}, "no job is in flight"


def test_no_more_than_so_many_are_sent_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = FakeExecutor()

    def all_end(_: float) -> None:
        sizes.append(len(executor.sent))
        FakeJob.ends |= {str(k): 0 for k in range(len(executor.sent))}

    sizes: list[int] = []
    monkeypatch.setattr(clusters, "sleep", all_end)
    assert len(run(Cluster(executor, tmp_path, at_once=2), tmp_path, *[[str(k)] for k in range(5)])) == 5
    assert sizes == [2, 4, 5]


def test_a_lost_job_is_sent_again_and_then_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = FakeExecutor()
    monkeypatch.setattr(clusters, "sleep", lambda _: FakeJob.ends.update({str(len(executor.sent) - 1): None}))
    (end,) = run(Cluster(executor, tmp_path), tmp_path, ["distill"])
    assert len(executor.sent) == TRIES
    assert end.code == -1
    assert "job 2 was lost (NODE_FAIL)" in end.message


def test_a_later_call_follows_the_jobs_of_an_earlier_one(tmp_path: Path) -> None:
    executor = FakeExecutor()
    cluster = Cluster(executor, tmp_path)
    with stopped():
        run(cluster, tmp_path, ["one"], ["two"])
    FakeJob.ends = {"0": 0, "1": 0, "2": 0}
    ended = run(cluster, tmp_path, ["one"], ["two", "--changed"])
    assert [end.command.name for end in ended] == ["one", "two --changed"]
    assert [job.arguments for job in executor.sent] == [("one",), ("two",), ("two", "--changed")]


@pytest.mark.parametrize("at_work", [True, False])
def test_a_job_that_reads_something_else_now_is_sent_anew(
    at_work: bool, in_flight: Any, tmp_path: Path
) -> None:
    """The recipe, rows and teacher of a cell lie where they lay; what they hold is another."""
    cluster, executor = in_flight
    FakeJob.ends = {"1": 0} if at_work else {"0": 0, "1": 0}
    (end,) = run(cluster, tmp_path, ["one"], inputs="another recipe")
    assert end.code == 0
    assert len(executor.sent) == 2
    assert FakeJob.cancelled == (["0"] if at_work else [])


@pytest.fixture
def in_flight(tmp_path: Path) -> tuple[Cluster, FakeExecutor]:
    """Job 0, of the command "one", which an earlier call sent."""

    executor = FakeExecutor()
    cluster = Cluster(executor, tmp_path)
    with stopped():
        run(cluster, tmp_path, ["one"], inputs="a recipe")
    return cluster, executor


@pytest.mark.parametrize("inputs", ["a recipe", "another recipe"])
def test_a_job_is_known_while_other_commands_are_sent(inputs: str, in_flight: Any, tmp_path: Path) -> None:
    """As students that are at work while a call trains teachers."""
    cluster, executor = in_flight
    FakeJob.ends = {"1": 0, "2": 0}
    run(cluster, tmp_path, ["teacher"])
    assert set(json.loads((tmp_path / RECORD).read_text())) == {"one"}
    if inputs == "a recipe":
        FakeJob.ends["0"] = 0
    (end,) = run(cluster, tmp_path, ["one"], inputs=inputs)
    assert end.code == 0
    assert len(executor.sent) == (2 if inputs == "a recipe" else 3)
    assert FakeJob.cancelled == ([] if inputs == "a recipe" else ["0"])


def test_a_job_that_an_earlier_version_sent_is_followed(in_flight: Any, tmp_path: Path) -> None:
    cluster, executor = in_flight
    (known,) = json.loads((tmp_path / RECORD).read_text()).items()
    del known[1]["inputs"]
    damaged = {"two": {"job": "5"}, "three": [1]}
    (tmp_path / RECORD).write_text(json.dumps({known[0]: known[1], **damaged}))
    FakeJob.ends = {"0": 0, "1": 0, "2": 0}
    assert len(run(cluster, tmp_path, ["one"], ["two"], ["three"], inputs="whatever")) == 3
    assert [job.arguments[0] for job in executor.sent] == ["one", "two", "three"]


def test_nothing_is_sent_next_to_a_cancelled_job_that_does_not_end(
    in_flight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, executor = in_flight
    monkeypatch.setattr(clusters, "CANCEL_SECONDS", 0.05)
    monkeypatch.setattr(FakeJob, "cancel", lambda self, check: None)
    printed: list[str] = []
    with logged(printed):
        assert run(cluster, tmp_path, ["one"], inputs="another recipe") == []
    assert len(executor.sent) == 1
    assert "job 0 is still running" in printed[-1]


def test_a_job_that_the_cluster_refuses_is_reported(tmp_path: Path) -> None:
    class Refusing(FakeExecutor):
        def submit_array(self, jobs: Sequence[Job]) -> list[FakeJob]:
            raise FailedJobError("sbatch: error: invalid partition specified: gpuu")

    with pytest.raises(RecipeError, match=r"(?s)refused a job: sbatch: error: invalid partition.*--slurm"):
        run(Cluster(Refusing(), tmp_path), tmp_path, ["one"])


def test_fewer_at_once_than_an_earlier_call_sent(tmp_path: Path) -> None:
    executor, words = FakeExecutor(), [[str(k)] for k in range(6)]
    with stopped():
        run(Cluster(executor, tmp_path, at_once=3), tmp_path, *words[:3])
    with stopped():
        run(Cluster(executor, tmp_path, at_once=1), tmp_path, *words)
    assert len(executor.sent) == 3


def test_slurm_is_refused_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="no command srun"):
        Cluster.slurm(tmp_path, {})
    plan = tmp_path / "bench.yaml"
    plan.write_text("tasks: [mrpc]\nmethods: [kd]\n")
    for wrong, message in (
        (["--launcher", "slurmy"], "--launcher"),
        (["--slurm", "partition=gpu"], "the launcher is local"),
        (["--launcher", "slurm", "--slurm", "partition"], "NAME=VALUE"),
        (["--launcher", "slurm"], "no command srun"),
    ):
        assert exit_code(monkeypatch, ("bench", plan, *wrong, "--output", tmp_path / "out")) == 2
        assert message in capsys.readouterr().err


def test_options_reach_sbatch_under_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 1))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    cluster = Cluster.slurm(tmp_path, {"partition": "gpu", "gpus_per_node": "1"}, at_once=7)
    assert cluster.at_once == 7
    assert cluster.executor.parameters["partition"] == "gpu"
    assert cluster.executor.parameters["gpus_per_node"] == 1
    with pytest.raises(RecipeError, match="--slurm partitoin"):
        Cluster.slurm(tmp_path, {"partitoin": "gpu"})
