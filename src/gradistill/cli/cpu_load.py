"""How OpenMP waits, by the load that there is: settled before torch is imported, which reads these variables once.

Threads of OpenMP spin while they wait for each other. On a quiet machine that is the fastest way. Beside other
processes a spinning thread takes the core from the one that it waits for, and a step takes a multiple of its time.
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
"""Variables by which a user settles how threads wait."""
SAMPLE = 0.15
"""Seconds over which the load is looked at."""


def settle_openmp() -> None:
    """Set the variables of OpenMP for this process, and log what was set. Without effect once torch is imported."""
    if "torch" in sys.modules:
        return
    busy, cores = busy_cores()
    chosen = openmp_settings(os.environ, busy, cores)
    os.environ.update(chosen)
    if chosen:
        shown = " ".join(f"{name}={value}" for name, value in chosen.items())
        logger.debug(f"{busy:.1f} of {cores} cores are busy: {shown}")


def openmp_settings(variables: Mapping[str, str], busy: float, cores: int) -> dict[str, str]:
    """What to set beside ``busy`` of so many ``cores``. What the user has set about waiting stays.

    Example: ``openmp_settings({}, 1.0, 2) == {"OMP_WAIT_POLICY": "PASSIVE"}``
    """
    alone = variables.get(THREADS) == "1" or cores == 1
    if busy < SHARED or alone or any(name in variables for name in OWN_WAITING):
        return {}
    return {WAITING: "PASSIVE"}


def busy_cores() -> tuple[float, int]:
    """How many of the cores that this process may use others keep busy, and how many there are.

    Processes that run at a lower priority (``nice``) give way and do not count.
    """
    before = core_times()
    sleep(SAMPLE)
    shares = busy_shares(before, core_times())
    return sum(shares), max(len(shares), 1)
