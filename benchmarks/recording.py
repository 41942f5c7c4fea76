"""What the terminal shows: finetune, distil and audit banking77 in a terminal of 80 columns and 24 lines.

    python benchmarks/recording.py DATA OUTPUT [--rows 3000] [--epochs 4]

Needs the package pyte, which reads what a program sends to a terminal as a terminal does: a bar that is drawn again and
again is one line in the end. DATA/banking77 holds train.csv and validation.csv. OUTPUT gets the runs. The texts go to
docs/terminal.md, with the number of lines of each command as it stands in the end.
"""

from __future__ import annotations

import argparse
import os
import pty
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyte
from measuring import PAGE, publish

COLUMNS, LINES = 80, 24
HISTORY = 5000
TERMINAL = PAGE.with_name("terminal.md")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    rows = (given.data / "banking77").resolve()
    given.output.mkdir(parents=True, exist_ok=True)
    os.chdir(given.output)  # what is shown has the paths that a reader would type
    if not Path("banking77").exists():
        Path("banking77").symlink_to(rows)
    size = f"--max-train-rows {given.rows} --epochs {given.epochs} --set training.learning_rate=2e-4"
    named = "--data banking77 --label-column category"
    commands = [
        f"gradistill finetune --model minilm-l6 {named} {size} --output runs/teacher",
        f"gradistill distill --teacher runs/teacher {named} --student-layers 3 {size} --output runs/student",
        f"gradistill audit --teacher runs/teacher --student runs/student {named} --max-rows 200 --output runs/audit",
    ]
    parts, figures = [], {}
    for command in commands:
        lines = recorded(shlex.split(command))
        name = command.split()[1]
        figures[name] = {"lines": len(lines), "longest": max(map(len, lines))}
        shown = "\n".join(lines)
        parts.append(f"## {name}\n\n```text\n$ {_folded(command)}\n{shown}\n```\n\n{len(lines)} lines.")
    publish(
        "recording", "\n\n".join(parts), figures, command="python benchmarks/recording.py DATA OUTPUT",
        page=TERMINAL,
    )  # fmt: skip


def recorded(command: Sequence[str]) -> list[str]:
    """What stands in the terminal when the command has ended, the lines that have scrolled away first."""
    screen: Any = pyte.HistoryScreen(COLUMNS, LINES, history=HISTORY, ratio=1)
    stream = pyte.ByteStream(screen)

    def read(descriptor: int) -> bytes:
        sent = os.read(descriptor, 1 << 16)
        stream.feed(sent)
        return sent

    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    os.environ |= {**size, "TERM": "xterm-256color", "GRADISTILL_CACHE": "cache"}
    status = os.waitstatus_to_exitcode(pty.spawn(list(command), read))
    if status:
        sys.exit(f"{shlex.join(command)} ended with {status}")
    before = ["".join(line[column].data for column in range(COLUMNS)) for line in screen.history.top]
    return _trimmed([line.rstrip() for line in [*before, *screen.display]])


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _folded(command: str) -> str:
    """The command on lines that a terminal of this width holds."""
    lines, line = [], ""
    for word in command.split(" --"):
        part = word if not line and not lines else f"--{word}"
        if len(line) + len(part) + 4 > COLUMNS:
            lines.append(line)
            line = f"    {part}"
        else:
            line = f"{line} {part}" if line else part
    return " \\\n".join([*lines, line])


if __name__ == "__main__":
    main()
