"""Measure the largest resident set of a process that loads one model and predicts one batch. It runs as a program:

    python -m gradistill.export.peak_memory MODEL BATCH.npz THREADS

``MODEL`` is a folder with PyTorch weights or an ``.onnx`` file. For an ONNX model neither torch nor transformers is
imported. The last line of the output is the figure in MB.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gradistill.printing import write


def peak_memory_mb(model: Path, columns: Mapping[str, np.ndarray], threads: int = 1) -> float | None:
    """Peak memory in MB of a fresh process that loads ``model`` and predicts one batch; None if it fails.

    Example: ``peak_memory_mb(Path("export/onnx/model.onnx"), {"input_ids": ids, "attention_mask": mask})``
    """
    with TemporaryDirectory(prefix="gradistill-") as folder:
        batch = Path(folder) / "batch.npz"
        np.savez(batch, **columns)  # pyright: ignore[reportArgumentType]
        command = [sys.executable, "-m", __name__, str(model), str(batch), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stdout.splitlines() or [""])[-1]
    return float(last) if done.returncode == 0 and re.fullmatch(r"\d+(\.\d+)?", last) else None


def _predict_with_onnx(file: str, columns: dict[str, np.ndarray], threads: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, {given.name: columns[given.name] for given in session.get_inputs()})


def _predict_with_torch(folder: str, columns: dict[str, np.ndarray], threads: int) -> None:
    import torch

    from gradistill.models.loading import load_classifier

    torch.set_num_threads(threads)
    model = load_classifier(folder)[0].eval()
    with torch.no_grad():
        model(**{name: torch.from_numpy(values) for name, values in columns.items()})


def _peak_mb() -> float:
    """Peak memory of this process in MB. Linux has it as ``VmHWM``; ``ru_maxrss`` also counts the parent process."""
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found[1]) * 1024 / 1e6
    import psutil

    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 1e6  # the peak on Windows, the current memory on macOS


def main() -> None:
    """Load the model, predict the batch, print the peak."""
    model, batch, threads = sys.argv[1:]
    with np.load(batch) as stored:
        columns = {name: stored[name] for name in stored.files}
    predict = _predict_with_onnx if model.endswith(".onnx") else _predict_with_torch
    predict(model, columns, int(threads))
    write(f"{_peak_mb():.1f}")


if __name__ == "__main__":
    main()
