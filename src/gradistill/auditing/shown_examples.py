"""Which of many examples a page shows: half of them those on which models disagree most, half drawn at random."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any


def chosen_examples(file: Path, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """At most ``count`` of the examples of a JSONL file, in its order. No more than these are held at a time."""
    with file.open(encoding="utf-8") as stream:
        apart = [_disagreement(json.loads(line)) for line in stream]
    by_disagreement = sorted(range(len(apart)), key=lambda place: -apart[place])
    wanted, rest = by_disagreement[: (count + 1) // 2], by_disagreement[(count + 1) // 2 :]
    wanted += Random(seed).sample(rest, min(len(rest), count - len(wanted)))
    chosen = set(wanted)
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for place, line in enumerate(stream) if place in chosen]


def _disagreement(example: dict[str, Any]) -> float:
    """That of the student that disagrees most."""
    return max(student["disagreement"] for student in example["students"])
