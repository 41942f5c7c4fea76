"""Two processes that share a batch take the step that one process takes (METHODS.md 5)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import torch

from gradistill.training.weight_average import WeightAverage
from slow import slow
from training.two_processes import run_cases

CASES = {
    "gkd": {"per_device_train_batch_size": 4},
    "gkd_cls": {"per_device_train_batch_size": 4},
    "tinybert": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "pretrain": {"per_device_train_batch_size": 4},
    "coalition": {"per_device_train_batch_size": 4},
    "adkd": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "adkd in float32": {"per_device_train_batch_size": 4},
    "rationale in float32": {"per_device_train_batch_size": 4},
    "states under project": {"per_device_train_batch_size": 4},
    "kd averaged": {"per_device_train_batch_size": 4, "max_steps": 4},
    "against under cap": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
}
"""A batch of eight over two processes: at once, or in two accumulated halves."""
SLOW = ("gkd_cls", "tinybert", "pretrain", "adkd in float32", "rationale in float32", "states under project")
"""Left to ``make test-all``."""
SHARED = {"adkd of 0.5": {"per_device_train_batch_size": 4}}
"""Gradients of half of the rows, which each process draws for itself."""


@pytest.fixture(scope="module")
def of_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, forked: Any) -> Path:
    """What both processes came to, in every case that a test of this session asks for."""
    asked = {item.callspec.params["case"] for item in request.session.items if "of_two" in item.fixturenames}
    cases = {case: arguments for case, arguments in (CASES | SHARED).items() if case in asked}
    folder = tmp_path_factory.mktemp("ddp")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    if sys.platform == "linux":
        shared["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine's own name resolves to
    processes = []
    for rank in range(2):
        environment = {
            name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()
        }
        processes.append(forked.Process(target=run_cases, args=(folder, cases, environment), daemon=True))
        processes[-1].start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.mark.parametrize("case", [slow(case) if case in SLOW else case for case in CASES])
def test_two_processes_end_with_the_weights_of_one(case: str, of_two: Path, kit: Any) -> None:
    method, narrow = case.removesuffix(" in float32"), case.endswith(" in float32")
    method, _, rule = method.removesuffix(" averaged").partition(" under ")
    models = kit.models(frozen=method in ("gkd", "gkd_cls", "rationale"))
    student, teacher = models if narrow else (model.double() for model in models)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    options = kit.rule(rule, cap=0.1) if rule else {}
    if case.endswith("averaged"):
        options["callbacks"] = [WeightAverage(0.5)]
    one = {**CASES[case], "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    trainer = kit.trainer(method, (student, teacher), options=options, sgd=True, **one)
    trainer.train()
    found = [torch.load(of_two / f"{case}-{rank}.pt") for rank in (0, 1)]
    # the same terms in another order, twice, at a learning rate of 1
    near = {"rtol": 1e-4, "atol": 2e-5} if narrow else {"rtol": 1e-9, "atol": 1e-11}
    assert any(not torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    for name, tensor in student.state_dict().items():
        assert torch.equal(found[0]["weights"][name], found[1]["weights"][name]), name
        torch.testing.assert_close(found[0]["weights"][name], tensor, **near)
    assert losses(found[0]["history"]) == losses(found[1]["history"])
    for ours, theirs in zip(losses(trainer.state.log_history), losses(found[0]["history"]), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)  # logged in float32
    loss = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    assert [one["evaluated"]["eval_loss"] for one in found] == pytest.approx([loss, loss], rel=1e-4)


@pytest.mark.parametrize("case", SHARED)
def test_two_processes_that_draw_rows_stay_together(case: str, of_two: Path) -> None:
    """Each runs its student twice a step, over the rows with a gradient and over the others."""
    found = [torch.load(of_two / f"{case}-{rank}.pt") for rank in (0, 1)]
    for name, tensor in found[0]["weights"].items():
        assert tensor.isfinite().all()
        assert torch.equal(found[1]["weights"][name], tensor), name
    assert losses(found[0]["history"]) == losses(found[1]["history"])


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_who_leaves_the_others_ends_the_threads_of_the_group(tmp_path: Path) -> None:
    """Also where reference cycles, as a trainer's, hold the group: threads that outlive Python may abort it."""
    script = f"""
import os
from torch import distributed
from gradistill.training.distributed import leave_process_group
leave_process_group()
before = len(os.listdir("/proc/self/task"))
distributed.init_process_group("gloo", init_method="file://{tmp_path / "store"}", rank=0, world_size=1)
cycle = [distributed.group.WORLD]
cycle.append(cycle)
del cycle
during = len(os.listdir("/proc/self/task"))
leave_process_group()
print(during > before, len(os.listdir("/proc/self/task")) > before)
"""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True False\n"


def losses(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {key: value for key, value in logs.items() if key == "loss" or "/" in key or "gradient" in key}
        for logs in history
        if "loss" in logs
    ]
