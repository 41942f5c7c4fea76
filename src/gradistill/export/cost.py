"""Costs of models: bytes, parameters, latency, throughput. All models are measured in one run, in turns.

Each batch is predicted by every model in turn, and the order rotates by one each time. A slow phase of the machine thus
slows all models. Times are per batch of rows of the data. ``times`` is the median over batches of the ratio of two
models' times for the same rows, which depends less on other load than seconds do. With more processes than cores it
still favours fast models, whose short predictions end between two interruptions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from gradistill.auditing.onnx_predictor import graph_files, onnx_session
from gradistill.core_times import OtherWork
from gradistill.printing import PROGRESS, SECONDS_BETWEEN_LINES

logger = logging.getLogger(__name__)

Columns = Mapping[str, np.ndarray]

SINGLE, BATCH = 1, 32
"""Rows a batch: for latency, and for throughput."""


@dataclass(frozen=True)
class TimedModel:
    """A model and its batches, by their number of rows. ``runner`` takes a number of threads, and returns a function
    that predicts a batch."""

    name: str
    runner: Callable[[int], Callable[[Columns], object]]
    batches: Mapping[int, Sequence[Columns]]


def torch_runner(model: PreTrainedModel) -> Callable[[int], Callable[[Columns], object]]:
    """The ``runner`` of a PyTorch classifier on the CPU; ``timed`` sets torch's number of threads."""

    def runner(_: int) -> Callable[[Columns], object]:
        return lambda columns: (
            model(**{name: torch.from_numpy(values) for name, values in columns.items()}).logits
        )

    return runner


def onnx_runner(file: Path) -> Callable[[int], Callable[[Columns], object]]:
    """The ``runner`` of an ONNX file, in a session with the given number of threads."""

    def runner(threads: int) -> Callable[[Columns], object]:
        session = onnx_session(file, threads)
        names = [given.name for given in session.get_inputs()]
        return lambda columns: session.run(None, {name: columns[name] for name in names})

    return runner


def core_counts() -> tuple[int, ...]:
    """One core, and the number of cores that this process may use."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (1, every) if every > 1 else (1,)


def timed(models: Sequence[TimedModel], threads: int) -> dict[str, dict[str, Any]]:
    """Latency and throughput of each model with ``threads`` threads, by name.

    Returns ``p50_ms`` and ``p95_ms`` of single rows, and ``rows_per_s`` in batches of 32 (of the median batch).
    ``times`` and ``times_batch`` are the speed relative to the first model, on single rows and in batches.
    ``busy_cores`` is the number of cores that other processes kept busy meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            runners = [model.runner(threads) for model in models]
            others = OtherWork()
            seconds = {size: _alternating(models, runners, size) for size in (SINGLE, BATCH)}
            busy = round(others.cores(), 2)
    finally:
        torch.set_num_threads(before)
    figures = {}
    for k, model in enumerate(models):
        single, batch = seconds[SINGLE][k], seconds[BATCH][k]
        rows = np.array([len(columns["input_ids"]) for columns in model.batches[BATCH]])
        figures[model.name] = {
            "p50_ms": float(np.quantile(single, 0.5)) * 1e3,
            "p95_ms": float(np.quantile(single, 0.95)) * 1e3,
            "rows_per_s": float(np.median(rows / batch)),
            "times": float(np.median(seconds[SINGLE][0] / single)),
            "times_batch": float(np.median(seconds[BATCH][0] / batch)),
            "busy_cores": busy,
        }
    return figures


def _alternating(models: Sequence[TimedModel], runners: Sequence[Callable], size: int) -> np.ndarray:
    """Seconds by model and batch. Every model first predicts one batch that is not timed."""
    count = len(models[0].batches[size])
    seconds, line = np.zeros((len(models), count)), perf_counter()
    for model, run in zip(models, runners, strict=True):
        run(model.batches[size][0])
    for batch in range(count):
        for turn in range(len(models)):
            k = (batch + turn) % len(models)
            start = perf_counter()
            runners[k](models[k].batches[size][batch])
            seconds[k, batch] = perf_counter() - start
        # No bar, which would be redrawn while models are timed.
        if perf_counter() - line >= SECONDS_BETWEEN_LINES:
            logger.info(f"timing: {batch + 1} of {count} batches of {size}", extra=PROGRESS)
            line = perf_counter()
    return seconds


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """The number of ``parameters`` of a model, and of those in ``embeddings`` (lookup tables)."""
    tables = {id(part.weight): part.weight for part in model.modules() if isinstance(part, nn.Embedding)}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "embeddings": sum(table.numel() for table in tables.values()),
    }


def file_bytes(model: Path) -> int:
    """Bytes of an ``.onnx`` file with its external weights, or of the safetensors files in a folder."""
    if model.suffix == ".onnx":
        return sum(path.stat().st_size for path in graph_files(model))
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))
