"""A small store and a teacher that needs no model, for the tests of stores."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from gradistill.attribution.targets import Target
from gradistill.batch import Batch
from gradistill.objectives.base import ModelFacts
from gradistill.signals import (
    AttributionScores,
    ClsGradient,
    ClsStates,
    InputGradient,
    Logits,
    Signal,
)
from gradistill.store import build_plan, writer
from gradistill.store.build_plan import BuildPlan
from gradistill.store.columns import Encoding, columns_for
from gradistill.store.reader import StoredTeacher

SMALL = 3000
"""Bytes of a shard in these tests: a few rows."""

FACTS = ModelFacts(layers=4, width=8, labels=3)
ALL = Target("log_odds", "all")
REQUESTS: tuple[Signal, ...] = (
    Logits(),
    ClsStates((2, 4)),
    InputGradient(Target("log_odds", "own")),
    ClsGradient(ALL, (2, 4)),
    AttributionScores(ALL, steps=2),
)
KINDS = [request.stored_as() for request in REQUESTS]


def rows(count: int = 40) -> Dataset:
    """Encoded rows of 3 to 9 tokens, numbered from 100 down."""
    generator = torch.Generator().manual_seed(count)
    lengths = [3 + k * 5 % 7 for k in range(count)]
    return Dataset.from_dict(
        {
            "input_ids": [torch.randint(5, 50, (n,), generator=generator).tolist() for n in lengths],
            "attention_mask": [[1] * n for n in lengths],
            "labels": [k % 3 for k in range(count)],
            "index": [100 - k for k in range(count)],
            "length": lengths,
        }
    )


def collate(features: Any) -> dict[str, Tensor]:
    width = max(len(feature["input_ids"]) for feature in features)
    padded = {
        key: torch.tensor([[*f[key], *[0] * (width - len(f[key]))] for f in features])
        for key in ("input_ids", "attention_mask")
    }
    return {**padded, **{key: torch.tensor([f[key] for f in features]) for key in ("labels", "index")}}


class Oracle:
    """Answers for a row what follows from its number alone; ``pause`` seconds a batch."""

    def __init__(self, pause: float = 0.0, on_asked: Callable[[int], object] = lambda rows: None) -> None:
        self.pause, self.asked, self.on_asked = pause, 0, on_asked
        self.signals = set[Signal]()

    def __call__(self, batch: Batch, requests: Iterable[Signal]) -> dict[Signal, Tensor]:
        time.sleep(self.pause)
        self.asked += len(batch)
        self.on_asked(self.asked)
        requests = list(requests)
        self.signals.update(request.stored_as() for request in requests)
        return {request: self._said(batch, KINDS.index(request.stored_as())) for request in requests}

    def _said(self, batch: Batch, kind: int) -> Tensor:
        assert batch.index is not None
        tokens = batch.mask.shape[1]
        shape = [(3,), (2, 8), (1, tokens, 8), (3, 2, 8), (3, tokens)][kind]
        ramp = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
        if kind in (2, 4):  # what stands at a token must not depend on how far the batch is padded
            place = torch.arange(tokens, dtype=torch.float32)
            ramp = (
                (place[:, None] + torch.arange(8) / 8)[None]
                if kind == 2
                else place + torch.arange(3)[:, None]
            )
        scale = (batch.index.float() + 1 + kind).reshape(-1, *[1] * len(shape))
        signals = torch.sin(ramp[None] * scale) * scale
        if kind in (2, 4):
            mask = batch.mask[:, None, :, None] if kind == 2 else batch.mask[:, None]
            signals = signals * mask
        return signals


def plan(
    folder: Path,
    *,
    count: int = 40,
    encoding: Encoding = "float32",
    signals: Sequence[Signal] = REQUESTS,
    **purpose: Any,
) -> BuildPlan:
    columns = columns_for(signals, FACTS, encoding)
    made_for = {"format": 1, "teacher": "aa", "signals": [c.as_dict() for c in columns], **purpose}
    about = {"teacher": "an oracle", "encoding": encoding}
    return BuildPlan(folder, rows(count), columns, made_for, about, tokens_at_once=24)


def built(folder: Path, **options: Any) -> BuildPlan:
    made = plan(folder, **options)
    writer.build(made, Oracle(), collate)
    return made


def opened(made: BuildPlan, **options: Any) -> StoredTeacher:
    return StoredTeacher.open(made.folder, made.made_for, made.columns, made.rows["index"], **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def killed_build(folder: Path, forked: Any, chance: random.Random, shard_bytes: int = SMALL) -> None:
    """A build in a process of its own (``build_slowly``), killed at a random moment.

    It is counted in rows that the build asked for: a clock alone would kill a slow machine's too soon.
    """
    reached = forked.Event()
    worker = forked.Process(
        target=build_slowly, args=(str(folder), reached, shard_bytes, chance.randint(0, 40))
    )
    worker.start()
    assert reached.wait(120)
    time.sleep(chance.uniform(0, 0.03))
    assert worker.pid is not None
    with suppress(ProcessLookupError):  # it has ended
        os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert worker.exitcode is not None


def build_slowly(folder: str, reached: Any, shard_bytes: int = SMALL, rows: int = 0) -> None:
    """For a process of its own: a build that takes about a tenth of a second, in small shards. ``reached`` is set once
    it has asked for so many rows."""
    build_plan.SHARD_BYTES = shard_bytes
    if rows == 0:
        reached.set()
    writer.build(
        plan(Path(folder)), Oracle(pause=0.01, on_asked=lambda n: n >= rows and reached.set()), collate
    )
