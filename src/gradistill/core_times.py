"""The load of the cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import perf_counter, process_time
from typing import Any

SHARED = 0.4
"""If others keep this many cores busy or more, the machine is shared. The system itself uses less of a core."""
_WORK = ("user", "system", "irq", "softirq", "steal")
_GIVES_WAY = "nice"
"""The time of processes at a lower priority."""


def core_times() -> Sequence[Any]:
    """The time counters of the cores that this process may use, since the machine started."""
    import psutil

    times_of_cores = psutil.cpu_times(percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times_of_cores))
    return [times for core, times in enumerate(times_of_cores) if core in usable]


def busy_shares(before: Sequence[Any], after: Sequence[Any], *, low_priority: bool = False) -> list[float]:
    """The share of the time between two readings in which each core was busy.

    Processes of low priority count as idle, with ``low_priority`` as busy.
    """
    work = (*_WORK, *([_GIVES_WAY] if low_priority else ()))
    return [_share(early, late, work) for early, late in zip(before, after, strict=True)]


def _share(early: Any, late: Any, work: Sequence[str]) -> float:
    def spent(*names: str) -> float:
        return sum(getattr(late, name, 0.0) - getattr(early, name, 0.0) for name in names)

    whole = spent(*_WORK, _GIVES_WAY, "idle", "iowait")
    return spent(*work) / whole if whole > 0 else 0.0


class OtherWork:
    """The number of cores that other processes keep busy, measured since this object was made."""

    def __init__(self) -> None:
        self._cores, self._own, self._start = core_times(), process_time(), perf_counter()

    def cores(self) -> float:
        """The load of all other processes together, in cores, such as 1.5."""
        own_load = (process_time() - self._own) / max(perf_counter() - self._start, 1e-9)
        return max(sum(busy_shares(self._cores, core_times(), low_priority=True)) - own_load, 0.0)
