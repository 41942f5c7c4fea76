"""``--quiet`` and ``--verbose``, and what is printed in Python without any set-up."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import gradistill
from gradistill import printing
from gradistill.commands.data_warnings import NewWarnings
from gradistill.printing import LOGGER, NO_PREFIX, log_filter
from small import logged
from typed_command import exit_code

Type = Callable[..., tuple[int, str, str]]
PROGRESS = ("text: text", "teacher signals: from", "training on 12 of 20 rows")
"""Lines that a distillation reports on its way."""
WARNING = "WARNING: the student has 4 layers, more than its teacher, which has 3"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Type:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code(monkeypatch, arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def distilling(small: Any, output: Path, *more: object) -> tuple[object, ...]:
    """A distillation that has a warning: the student is deeper than its teacher."""
    return (
        "distill", "--teacher", small.teachers["two"], "--data", small.tables["two"], "--method", "kd",
        "--epochs", 1, "--max-train-rows", 12, "--student-layers", 4, "--output", output, *more,
    )  # fmt: skip


def test_a_command_prints_progress_warnings_and_results(small: Any, tmp_path: Path, typed: Type) -> None:
    code, out, _ = typed(*distilling(small, tmp_path / "run"))
    assert code == 0
    for line in PROGRESS:
        assert out.count(line) == 1
    assert out.count(f"\n{WARNING}\n") == 2  # when it is found, and below the results
    assert "WARNING: WARNING" not in out
    assert f"written to {tmp_path / 'run'}" in out.replace("\n", "")
    assert "sha256" not in out


def test_quiet_leaves_warnings_and_results(small: Any, tmp_path: Path, typed: Type) -> None:
    code, out, err = typed(*distilling(small, tmp_path / "run", "--quiet", "--json"))
    assert code == 0
    written = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(out.splitlines()[-1]) == written
    assert out.startswith("overlap: 10 of 10 validation rows are training rows too")
    assert out.count(f"\n{WARNING}\n") == 2  # when it is found, and below the results
    assert not any(line in out for line in PROGRESS)
    assert "saliency" in out
    assert f"written to {tmp_path / 'run'}" in out.replace("\n", "")
    assert "it/s" not in out + err
    assert "train_runtime" not in out + err
    code, out, err = typed(*distilling(small, tmp_path / "run", "--quiet"))  # there is a run already
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_verbose_adds_what_a_run_reads(small: Any, tmp_path: Path, typed: Type) -> None:
    code, out, _ = typed(*distilling(small, tmp_path / "run", "--verbose"))
    assert code == 0
    for line in (*PROGRESS, "sha256 of teacher: ", "device cpu", "trained to step 1 in"):
        assert out.count(line) == 1


def test_quiet_and_verbose_together_are_refused(small: Any, tmp_path: Path, typed: Type) -> None:
    code, _, err = typed(*distilling(small, tmp_path / "run", "--quiet", "--verbose"))
    assert code == 2
    assert "--quiet and --verbose were both given" in err
    assert not (tmp_path / "run").exists()


def test_only_the_first_process_of_torchrun_prints(
    tmp_path: Path, typed: Type, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for rank, expected in (("1", ""), ("0", "WARNING: from one process\n")):
        monkeypatch.setenv("RANK", rank)
        typed("signals", "list", tmp_path)  # sets up the log; a distillation would wait for the others
        LOGGER.getChild("jobs").warning("from one process")
        assert capfd.readouterr().out == expected


def test_a_warning_has_its_prefix_once_and_an_error_none(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("gradistill.commands.any")
    logger.warning("100 % sure\x1b")
    logger.warning("overlap: 3 rows", extra=NO_PREFIX)
    logger.error("FAILED kd")
    logger.debug("hidden")
    shown = capsys.readouterr()
    assert shown.out == "WARNING: 100 % sure\\x1b\noverlap: 3 rows\nFAILED kd\n"
    assert shown.err == ""


def test_bars_follow_the_level_of_the_logger_and_need_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printing.progress_bars().disable
    monkeypatch.setattr(printing, "_console", lambda error: Console(force_terminal=True))
    assert not printing.progress_bars().disable
    LOGGER.setLevel(logging.WARNING)
    assert printing.progress_bars().disable


@pytest.mark.parametrize("tracked", [True, False])
def test_without_a_terminal_lines_show_how_far_work_is(
    tracked: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(**options: Any) -> str:
        with printing.progress_bars(**options) as progress:
            if tracked:
                assert [*progress.track(range(2), description="rows")] == [0, 1]
            else:
                bar = progress.add_task("rows", total=2)
                progress.advance(bar)
                progress.advance(bar)
        return capsys.readouterr().out

    assert not work()
    monkeypatch.setattr(printing, "SECONDS_BETWEEN_LINES", 0.0)
    lines = "rows: 1 of 2, 0:00:00 left\nrows: 2 of 2, 0:00:00 left\n"
    assert work() == lines
    assert not work(lines=False)
    assert not work(disable=True)
    with log_filter(NewWarnings()):
        assert work() == lines
    LOGGER.setLevel(logging.WARNING)
    assert not work()


def test_a_filter_holds_inside_its_block_for_every_handler(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with logged(lines):
        with log_filter(lambda record: record.levelno >= logging.WARNING):
            LOGGER.info("inside")
        LOGGER.info("behind")
    assert lines == ["behind"]
    assert capsys.readouterr().out == "behind\n"


@pytest.mark.parametrize(
    ("before", "expected"),
    {
        "nothing": ("", "a line\n"),
        "a program that logs itself": ("logging.basicConfig(stream=sys.stdout, level='INFO')", "a line\n"),
        "warnings only": ("logging.getLogger('gradistill').setLevel('WARNING')", ""),
        "its own handler": (
            "logging.getLogger('gradistill').addHandler(logging.FileHandler(sys.argv[1]))", ""
        ),
    }.values(),
)  # fmt: skip
def test_in_python_lines_are_shown_unless_the_program_decides_otherwise(
    before: str, expected: str, tmp_path: Path
) -> None:
    program = (
        f"import logging, sys\n{before}\nimport gradistill\n"
        "logging.getLogger('gradistill.commands.distill').info('a line')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(Path(gradistill.__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout == expected
