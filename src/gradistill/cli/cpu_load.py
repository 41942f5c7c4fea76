"""Set how OpenMP threads wait, by the load of the machine, before torch is imported and reads these variables once.

OpenMP threads spin while they wait for each other. On an idle machine that is fastest. With other processes running, a
spinning thread takes the core from the thread that it waits for, and a step takes several times as long.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from time import sleep

from gradistill.core_times import SHARED, busy_shares, core_times

logger = logging.getLogger(__name__)

WAITING, THREADS = "OMP_WAIT_POLICY", "OMP_NUM_THREADS"
OWN_WAITING = (WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables with which a user sets how threads wait."""
SAMPLE = 0.15
"""Seconds over which the load is measured."""


def settle_openmp() -> None:
    """Set the variables of OpenMP for this process, and log them. It has no effect once torch is imported."""
    if "torch" in sys.modules:
        return
    busy, cores = busy_cores()
    chosen = openmp_settings(os.environ, busy, cores)
    os.environ.update(chosen)
    if chosen:
        shown = " ".join(f"{name}={value}" for name, value in chosen.items())
        logger.debug(f"{busy:.1f} of {cores} cores are busy: {shown}")


def openmp_settings(variables: Mapping[str, str], busy: float, cores: int) -> dict[str, str]:
    """The variables to set if ``busy`` of the ``cores`` are busy. A user's own settings of waiting are kept.

    Example: ``openmp_settings({}, 1.0, 2) == {"OMP_WAIT_POLICY": "PASSIVE"}``
    """
    alone = variables.get(THREADS) == "1" or cores == 1
    if busy < SHARED or alone or any(name in variables for name in OWN_WAITING):
        return {}
    return {WAITING: "PASSIVE"}


def busy_cores() -> tuple[float, int]:
    """The number of this process's cores that other processes keep busy, and the number of its cores.

    Processes that run at a lower priority (``nice``) do not count.
    """
    before = core_times()
    sleep(SAMPLE)
    shares = busy_shares(before, core_times())
    return sum(shares), max(len(shares), 1)
