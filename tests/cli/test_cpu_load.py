"""How threads wait follows the load, and never goes against what the user has set."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from gradistill.cli import cpu_load
from gradistill.cli.cpu_load import busy_cores, openmp_settings, settle_openmp

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize(
    ("variables", "busy", "cores", "wanted"),
    [
        ({}, 0.1, 2, {}),
        ({}, 1.0, 2, PASSIVE),
        ({}, 2.0, 2, PASSIVE),
        ({}, 1.0, 16, PASSIVE),
        ({"OMP_NUM_THREADS": "4"}, 1.0, 8, PASSIVE),
        ({"OMP_NUM_THREADS": "1"}, 1.0, 8, {}),
        ({}, 1.0, 1, {}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, 2.0, 2, {}),
        ({"GOMP_SPINCOUNT": "0"}, 2.0, 2, {}),
    ],
)
def test_settings(variables: dict[str, str], busy: float, cores: int, wanted: dict[str, str]) -> None:
    assert openmp_settings(variables, busy, cores) == wanted


def test_the_load_of_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Core 0 is idle half of the time, core 1 works at a lower priority, core 2 is not ours."""
    still = SimpleNamespace(user=5.0, system=1.0, idle=9.0, iowait=0.0, nice=0.0)
    later = [
        SimpleNamespace(user=5.4, system=1.1, idle=9.4, iowait=0.1, nice=0.0),
        SimpleNamespace(user=5.0, system=1.0, idle=9.0, iowait=0.0, nice=1.0),
        SimpleNamespace(user=6.0, system=1.0, idle=9.0, iowait=0.0, nice=0.0),
    ]
    readings = iter([[still] * 3, later])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(cpu_load, "SAMPLE", 0)
    busy, cores = busy_cores()
    assert cores == 2
    assert busy == pytest.approx(0.5)


def test_nothing_is_set_once_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: F401

    monkeypatch.setattr(cpu_load, "busy_cores", lambda: (2.0, 2))
    before = dict(os.environ)
    settle_openmp()
    assert dict(os.environ) == before
