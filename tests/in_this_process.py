"""Cells of a bench without a process each: each would take seconds to begin."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from gradistill.bench.process_pool import CommandResult
from gradistill.cli import main
from gradistill.printing import LOGGER, LineHandler


def run_all(commands: Any, width: Any, environment: Any, needed: Any, on_end: Any) -> None:
    """What ``process_pool.run_all`` does, one after the other."""
    for place, command in enumerate(commands):
        argv = command.argv()
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with (
            command.log.open("w") as log,
            redirect_stdout(log),
            redirect_stderr(log),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", ["gradistill", *argv])
            own = [handler for handler in LOGGER.handlers if isinstance(handler, LineHandler)]
            patch.setattr(LOGGER, "handlers", own)  # those of a process of its own
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        on_end(CommandResult(command, code, 1.0), float(len(commands) - place - 1))
