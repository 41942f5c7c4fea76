"""What a teacher printed about validation rows is asked once for all of its students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradistill.auditing import predict_rows
from gradistill.commands import cached_predictions
from gradistill.commands.signal_stores import StoreChoice
from slow import slow
from small import logged


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The number of rows of each time that a teacher is asked; the cache is this test's own."""
    monkeypatch.setenv("GRADISTILL_CACHE", str(tmp_path / "cache"))
    times: list[int] = []

    def counted(model: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        times.append(len(rows))
        return predict_rows(model, rows, *rest, **options)

    monkeypatch.setattr(cached_predictions, "predict_rows", counted)
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


@pytest.mark.slow
def test_a_damaged_file_is_computed_again_with_a_line(small: Any, tmp_path: Path, asked: list[int]) -> None:
    whole = small.distilled("kd", "two", tmp_path / "a")
    (file,) = kept(tmp_path)
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[-1] ^= 0x80  # a sign: safetensors has no checksum of its own
    small.distilled("kd", "two", tmp_path / "c", "training.max_length=5")
    (other,) = set(kept(tmp_path)) - {file}
    damaged = {"empty": b"", "zeros": b"\0" * 40, "shorter": content[:-8], "flipped": bytes(flipped),
               "another file": other.read_bytes()}  # fmt: skip
    for damage, found in damaged.items():
        file.write_bytes(found)
        lines: list[str] = []
        asked.clear()
        with logged(lines):
            loyalty = small.distilled("kd", "two", tmp_path / damage)["loyalty"]
        assert loyalty == whole["loyalty"], damage
        assert asked == [10], damage
        assert file.read_bytes() == content, damage
        again = [line for line in lines if "cached predictions cannot be used and are computed again" in line]
        assert len(again) == 1, damage


@pytest.mark.parametrize("cache", ["a file", slow("a loop of links"), slow("a name that is too long")])
def test_without_a_cache_that_can_be_used_the_teacher_answers(
    cache: str, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("c" * 300 if "long" in cache else "cache")
    if cache == "a file":
        place.write_text("in the way")
    elif cache == "a loop of links":
        place.symlink_to(tmp_path / "other")
        (tmp_path / "other").symlink_to(place)
    monkeypatch.setenv("GRADISTILL_CACHE", str(place))
    lines: list[str] = []
    with logged(lines):
        metrics = small.distilled("kd", "two", tmp_path / "a")
    assert metrics["loyalty"]["label"]["n"] == 10
    assert any("The teacher computes its signals at every step instead" in line for line in lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"a", *(["cache"] if "long" not in cache else []), *(["other"] if "loop" in cache else [])}
    )


def test_what_cannot_be_kept_is_reported_and_does_not_stop_the_run(
    small: Any, tmp_path: Path, asked: list[int]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "answers").write_text("in the way", encoding="utf-8")
    printed: list[str] = []
    with logged(printed):
        metrics = small.distilled("kd", "two", tmp_path / "a")
    assert metrics["loyalty"]["label"]["n"] == 10
    assert any("not kept for the next student" in line for line in printed)


def test_online_signals_leave_nothing_in_the_cache(small: Any, tmp_path: Path, asked: list[int]) -> None:
    small.distilled("kd", "two", tmp_path / "a", signals=StoreChoice("online"))
    assert asked == []
    assert not kept(tmp_path)
