"""Commands at once: what some of them need is built once, alone, and as late as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gradistill.bench import process_pool
from gradistill.bench.process_pool import Command, CommandResult, Concurrency, Prerequisite, run_all


class FakeProcess:
    """Ends at the second look."""

    def __init__(self) -> None:
        self.returncode, self._looks = 0, 0

    def poll(self) -> int | None:
        self._looks += 1
        return None if self._looks < 2 else 0


def test_a_prerequisite_is_built_once_while_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[str] = []
    running: set[str] = set()

    def started(command: Command, *_: Any) -> FakeProcess:
        events.append(f"{command.name}: {' '.join(command.argv())}")
        running.add(command.name)
        return FakeProcess()

    def ended(found: CommandResult, left: float) -> None:
        running.remove(found.command.name)
        events.append(f"end of {found.command.name}")

    def build() -> Sequence[str]:
        assert not running
        events.append("built")
        return ["--signals", "store"]

    monkeypatch.setattr(process_pool, "_started", started)
    monkeypatch.setattr(process_pool, "sleep", lambda _: None)
    monkeypatch.setattr(process_pool, "_free", lambda: 1e12)
    monkeypatch.setattr(process_pool, "_stopped", lambda running: None)
    store = Prerequisite(build)
    commands = [
        Command("a", ["one"], tmp_path / "a"),
        Command("b", ["two"], tmp_path / "b", store),
        Command("c", ["three"], tmp_path / "c", store),
        Command("d", ["four"], tmp_path / "d"),
    ]
    run_all(commands, Concurrency(2, 1), {}, lambda: 1.0, ended)
    assert events.count("built") == 1
    assert events.index("a: one") < events.index("end of a") < events.index("built")
    assert events.index("b: two --signals store") < events.index("c: three --signals store")
    assert events.index("c: three --signals store") < events.index("end of b"), "the rest goes on at once"
    assert "d: four" in events


def test_a_command_that_has_just_started_still_needs_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory is that of before it takes its own: all commands would start at once."""
    now, most, running = [0.0], [0], set[str]()

    def started(command: Command, *_: Any) -> FakeProcess:
        running.add(command.name)
        most[0] = max(most[0], len(running))
        return FakeProcess()

    monkeypatch.setattr(process_pool, "_started", started)
    monkeypatch.setattr(process_pool, "monotonic", lambda: now[0])
    monkeypatch.setattr(process_pool, "sleep", lambda _: now.__setitem__(0, now[0] + 1.0))
    monkeypatch.setattr(process_pool, "_free", lambda: 3e9)
    monkeypatch.setattr(process_pool, "_stopped", lambda _: None)
    commands = [Command(name, [name], tmp_path / name) for name in "abcd"]
    run_all(commands, Concurrency(4, 1), {}, lambda: 2e9, lambda ended, _: running.remove(ended.command.name))
    assert most == [1]
