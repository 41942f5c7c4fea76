"""What the benchmarks share: timing side by side, and writing what was measured where people read it."""

from __future__ import annotations

import json
import os
import platform
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
FAULTS = PAGE.with_name("faults.md")
YARDSTICK = PAGE.parent / "results" / "yardstick.md"


def alternating(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, asked one after the other in every round; a first round is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for count in range(rounds + 1):
        for name, measure in contenders.items():
            taken = measure()
            if count:
                seconds[name].append(taken)
    return seconds


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum of the ratio round by round: what slows a round slows both of its sides."""
    ratios = np.asarray(seconds) / np.asarray(reference)
    return {
        "median": round(float(np.median(ratios)), 3),
        "low": round(float(ratios.min()), 3),
        "high": round(float(ratios.max()), 3),
    }


def shown(figure: Mapping[str, float], digits: int = 2) -> str:
    return f"{figure['median']:.{digits}f} ({figure['low']:.{digits}f}–{figure['high']:.{digits}f})"


def peak_rss_mb() -> float:
    """The largest resident set of this process so far. (``ru_maxrss`` also knows that of the process it came from.)"""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e6  # pyright: ignore[reportOptionalSubscript]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def publish(
    name: str, text: str, figures: Any, *, command: str, page: Path = PAGE, source: str | None = None
) -> None:
    """The figures as ``results/NAME.json``; the text as the section NAME of a page, if it has one.

    ``source`` is what made the figures, where they are of an earlier run; by default it is this machine.
    """
    RESULTS.mkdir(exist_ok=True)
    source = source or f"on {machine()}"
    whole = {"command": command, "machine": source.removeprefix("on "), "figures": figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    made = textwrap.fill(f"`{command}` {source}", 100, break_long_words=False, break_on_hyphens=False)
    section = f"<!-- {name} -->\n{text}\n\n{made}\n<!-- end of {name} -->"
    whole_page = page.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->.*<!-- end of {name} -->", whole_page, re.DOTALL)
    if found:
        page.write_text(whole_page.replace(found[0], section), encoding="utf-8")
    print(text)


def measured_before(name: str) -> Any:
    """The figures that ``publish`` wrote under this name on this machine: a long benchmark is run in parts."""
    file = RESULTS / f"{name}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found["figures"] if found.get("machine") == machine() else []


def json_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none where there is no file."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{device}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


def _processor() -> str:
    features = torch.backends.cpu.get_cpu_capability()
    return f"{len(os.sched_getaffinity(0))} cores of {platform.machine()} ({features})"
