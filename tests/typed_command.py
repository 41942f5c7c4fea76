"""A command line, run in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gradistill.cli import main


def exit_code(monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...]) -> Any:
    """Run ``gradistill`` with these arguments; returns the code that it ends with."""
    monkeypatch.setattr(sys, "argv", ["gradistill", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0
    return 0
