"""Sizes and times."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from torch import nn

from gradistill import core_times
from gradistill.auditing.onnx_predictor import model_folder_of, onnx_file
from gradistill.core_times import OtherWork, busy_shares
from gradistill.export import cost
from gradistill.export.cost import BATCH, SINGLE, TimedModel, file_bytes, parameter_counts, timed
from gradistill.report.export_tables import speed_note


def test_times_are_those_of_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each model moves on by its own step, and a machine that slows down for all of them."""
    now = [0.0]
    monkeypatch.setattr(cost, "perf_counter", lambda: now[0])
    ids = {
        SINGLE: [{"input_ids": np.zeros((1, k))} for k in range(1, 5)],
        BATCH: [{"input_ids": np.zeros((4, 9))}],
    }

    def model(name: str, step: float) -> TimedModel:
        def run(columns: object) -> None:
            now[0] += step * columns["input_ids"].size  # type: ignore[index]

        return TimedModel(name, lambda threads: run, ids)

    found = timed([model("slow", 4.0), model("fast", 1.0)], 1)
    assert (found["slow"]["times"], found["fast"]["times"], found["fast"]["times_batch"]) == (1, 4, 4)
    assert found["fast"]["p50_ms"] == pytest.approx(2500)
    assert found["fast"]["rows_per_s"] == pytest.approx(4 / 36)


def test_what_other_processes_do_meanwhile_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores worked three quarters of a second each, a sixth of it at low priority; one second was our own."""
    clocks = {"user": (5.0, 5.5), "system": (1.0, 1.125), "nice": (0.0, 0.125), "idle": (9.0, 9.25)}
    readings = [SimpleNamespace(**{name: both[k] for name, both in clocks.items()}) for k in range(2)]
    turns = iter(readings)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [next(turns)] * 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(core_times, clock, count(3.0).__next__)
    assert OtherWork().cores() == pytest.approx(2 * 0.75 - 1.0)
    assert busy_shares(readings[:1], readings[1:]) == pytest.approx([0.625])


@pytest.mark.parametrize(
    ("busy", "crowded"),
    [({"1": 0.1, "2": 0.2}, None), ({"1": 1.1, "2": 0.9}, "0.9 of 2"), ({}, None),
     ({"1": 1.8, "2": 1.5}, "1.8 of 2")],
)  # fmt: skip
def test_figures_that_were_timed_beside_others_say_so(busy: dict[str, float], crowded: str | None) -> None:
    """A thread beside one other process has a core of its own on a machine with two."""
    costs = {"teacher": {"bytes": 1, "cores": {threads: {"busy_cores": b} for threads, b in busy.items()}}}
    note = speed_note({"costs": costs})
    assert (f"kept {crowded} cores busy" in note) if crowded else "Other processes" not in note


def test_shared_embeddings_count_once() -> None:
    first, second = nn.Embedding(10, 3), nn.Embedding(10, 3)
    second.weight = first.weight
    model = nn.ModuleList([first, second, nn.Linear(3, 2)])
    assert parameter_counts(model) == {"parameters": 38, "embeddings": 30}


def test_the_weights_beside_a_graph_count(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"123")
    (tmp_path / "a.onnx_data").write_bytes(b"12")
    assert file_bytes(tmp_path / "a.onnx") == 5


def test_which_graph_a_path_names(tmp_path: Path) -> None:
    graphs = tmp_path / "onnx"
    graphs.mkdir()
    assert onnx_file(tmp_path) is None
    for name in ("model.onnx", "model_quantized.onnx"):
        (graphs / name).write_bytes(b"")
        assert onnx_file(tmp_path) == graphs / name
        assert onnx_file(graphs / name) == graphs / name
    (tmp_path / "config.json").write_text("{}")
    assert model_folder_of(graphs / "model.onnx") == tmp_path
    (tmp_path / "model.onnx").write_bytes(b"")
    assert onnx_file(tmp_path) == tmp_path / "model.onnx", "the layout of earlier versions"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert onnx_file(tmp_path) is None
