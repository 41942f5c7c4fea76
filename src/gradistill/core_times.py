"""How busy the cores are that this process may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import perf_counter, process_time
from typing import Any

SHARED = 0.4
"""So many busy cores are others at work; the system itself keeps less of a core busy."""
_WORK = ("user", "system", "irq", "softirq", "steal")
_GIVES_WAY = "nice"
"""The time of processes at a lower priority."""


def core_times() -> Sequence[Any]:
    """The counters of these cores since the machine started."""
    import psutil

    found = psutil.cpu_times(percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(found))
    return [times for core, times in enumerate(found) if core in own]


def busy_shares(before: Sequence[Any], after: Sequence[Any], *, low_priority: bool = False) -> list[float]:
    """The share of the time between two readings that each core worked; processes of low priority count as idle ones,
    or as all others do."""
    work = (*_WORK, *([_GIVES_WAY] if low_priority else ()))
    return [_share(early, late, work) for early, late in zip(before, after, strict=True)]


def _share(early: Any, late: Any, work: Sequence[str]) -> float:
    def spent(*names: str) -> float:
        return sum(getattr(late, name, 0.0) - getattr(early, name, 0.0) for name in names)

    whole = spent(*_WORK, _GIVES_WAY, "idle", "iowait")
    return spent(*work) / whole if whole > 0 else 0.0


class OtherWork:
    """How many of the cores other processes kept busy since this was made."""

    def __init__(self) -> None:
        self._cores, self._own, self._start = core_times(), process_time(), perf_counter()

    def cores(self) -> float:
        """Of all their cores together, as 1.5."""
        own = (process_time() - self._own) / max(perf_counter() - self._start, 1e-9)
        return max(sum(busy_shares(self._cores, core_times(), low_priority=True)) - own, 0.0)
