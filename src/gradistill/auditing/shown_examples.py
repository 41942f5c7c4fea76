"""Selects the examples of a page: half are those on which models disagree most, half are random."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any


def chosen_examples(file: Path, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """At most ``count`` examples of a JSONL file, in the file's order. Only these are held in memory."""
    with file.open(encoding="utf-8") as stream:
        disagreements = [_disagreement(json.loads(line)) for line in stream]
    by_disagreement = sorted(range(len(disagreements)), key=lambda place: -disagreements[place])
    places, rest = by_disagreement[: (count + 1) // 2], by_disagreement[(count + 1) // 2 :]
    places += Random(seed).sample(rest, min(len(rest), count - len(places)))
    chosen = set(places)
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for place, line in enumerate(stream) if place in chosen]


def _disagreement(example: dict[str, Any]) -> float:
    """The largest disagreement of a student with the teacher."""
    return max(student["disagreement"] for student in example["students"])
