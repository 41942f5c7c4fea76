"""What a teacher said about validation rows is asked once for all of its students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradistill.audit import ask
from gradistill.jobs import remembering
from gradistill.jobs.signals import StoreChoice


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The number of rows of each time that a teacher is asked; the cache is this test's own."""
    monkeypatch.setenv("GRADISTILL_CACHE", str(tmp_path / "cache"))
    times: list[int] = []

    def counted(model: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        times.append(len(rows))
        return ask(model, rows, *rest, **options)

    monkeypatch.setattr(remembering, "ask", counted)
    return times


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "answers").glob("*"))


def test_the_second_student_costs_no_second_asking(small: Any, tmp_path: Path, asked: list[int]) -> None:
    first, second = (small.distilled("kd", "two", tmp_path / name) for name in "ab")
    assert asked == [10]
    assert second["loyalty"] == first["loyalty"]
    assert second["teacher_eval"] == first["teacher_eval"]
    small.distilled("kd", "three", tmp_path / "c")
    assert asked == [10, 10]
    assert len(kept(tmp_path)) == 2
    small.distilled("kd", "two", tmp_path / "d", "training.max_length=5")
    assert len(kept(tmp_path)) == 3  # other rows


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, None])
def test_a_damaged_file_is_asked_for_again(
    damage: bytes | None, small: Any, tmp_path: Path, asked: list[int]
) -> None:
    whole = small.distilled("kd", "two", tmp_path / "a")
    (file,) = kept(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:-8] if damage is None else damage)
    assert small.distilled("kd", "two", tmp_path / "b")["loyalty"] == whole["loyalty"]
    assert asked == [10, 10]
    assert file.read_bytes() == content


def test_what_cannot_be_kept_is_said_and_does_not_stop_the_run(
    small: Any, tmp_path: Path, asked: list[int]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "answers").write_text("in the way", encoding="utf-8")
    said: list[str] = []
    metrics = small.distilled("kd", "two", tmp_path / "a", say=said.append)
    assert metrics["loyalty"]["label"]["n"] == 10
    assert any("not kept for the next student" in line for line in said)


def test_online_signals_leave_nothing_in_the_cache(small: Any, tmp_path: Path, asked: list[int]) -> None:
    small.distilled("kd", "two", tmp_path / "a", signals=StoreChoice("online"))
    assert asked == []
    assert not kept(tmp_path)
