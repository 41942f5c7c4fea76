"""The entries of ``metrics.json`` about a run itself: models, time and memory, versions."""

from __future__ import annotations

import platform
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from transformers import PreTrainedModel

from gradistill.models.probe import Probe
from gradistill.package_versions import package_versions


def shown_name(name: str) -> str:
    """A model's name in records: of a path its last part, of a hub id the whole."""
    return (
        name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists() else Path(name).name
    )


def described(model: PreTrainedModel, name: str, probe: Probe) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"name": shown_name(name), "layers": probe.layers, "hidden": probe.width, "parameters": parameters}


def timing(signal_seconds: float, train_seconds: float, examples: float) -> dict[str, float]:
    return {
        "signals_s": round(signal_seconds, 3),
        "train_s": round(train_seconds, 3),
        "examples_per_s": round(examples / train_seconds, 2),
        "peak_rss_mb": round(_peak_rss_mb(), 1),
    }


def utc_now() -> str:
    """The current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a run uses."""
    return {
        "python": platform.python_version(),
        **package_versions("gradistill", "torch", "transformers", "datasets"),
    }


def _peak_rss_mb() -> float:
    """The process's largest resident set so far, in MB.

    psutil has it on Windows only. Elsewhere ``resource`` has it, in KiB on Linux and in bytes on macOS.
    """
    memory = psutil.Process().memory_info()
    with suppress(ImportError):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return getattr(memory, "peak_wset", memory.rss) / 1e6
