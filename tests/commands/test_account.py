"""What a run records of its process."""

from __future__ import annotations

import sys
from typing import Any

import psutil
import pytest

from gradistill.commands import run_record


def test_peak_memory_is_what_the_process_took() -> None:
    """At least what it holds now, and as much more as a block of memory that it touches."""
    before = run_record.timing(1.0, 2.0, 4.0)["peak_rss_mb"]
    held = psutil.Process().memory_info().rss / 1e6
    assert before >= 0.99 * held
    size = int((before - held + 64) * 1e6)
    block = bytearray(b"x") * size
    assert run_record.timing(1.0, 2.0, 4.0)["peak_rss_mb"] >= before + 32
    del block
    assert run_record.timing(1.0, 2.0, 4.0)["peak_rss_mb"] >= before + 32  # the peak, not what is held now


def test_peak_memory_is_known_without_the_resource_module(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        rss, peak_wset = 10_000_000, 50_000_000

    class Process:
        def memory_info(self) -> Any:
            return Memory()

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", Process)
    assert run_record.timing(1.0, 2.0, 4.0)["peak_rss_mb"] == 50.0
