"""The commands of the README and the documentation, block by block."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
NEEDS = ("real data", "a GPU", "the hub", "the package index", "several processes", "several machines")
"""What may keep a test from running a block."""

FENCE = re.compile(r"(?ms)^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$")
PROGRAMS = (
    "gradistill",
    "make",
    "pip",
    "python",
    "torchrun",
    "sbatch",
    "accelerate",
    "benchmarks/",
    "NODES=",
)


@dataclass(frozen=True)
class Block:
    """Commands of one fence, and the comment on the line above it."""

    page: Path
    mark: str
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each ``gradistill`` command, the program itself left out."""
        words = [shlex.split(line, comments=True) for line in self.lines if line.startswith("gradistill")]
        return [found[1:] for found in words]


def blocks(page: Path) -> Iterator[Block]:
    """The fences of a page that hold commands."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        lines = found["text"].replace("\\\n", " ").splitlines()
        named = tuple(line.strip() for line in lines if line.startswith(PROGRAMS))
        if found["kind"] in ("", "console", "sh") and named:
            yield Block(page, found["mark"] or "", named)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The words of commands in running text, in backticks."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`(gradistill [^`]+)`", prose):
        yield code.split()[1:]
