"""Tasks, rows and batches: reading, checks, tokenization and padding.

The names load on first use, so code that only reads rows does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradistill.data.collator import Collator
    from gradistill.data.cut import Cut
    from gradistill.data.data_choice import DataChoice
    from gradistill.data.label_alignment import align_labels
    from gradistill.data.split_loading import load_splits, read_splits
    from gradistill.data.splits import Splits
    from gradistill.data.tasks import TASKS, Task, compute_metrics, get_task
    from gradistill.data.tokenization import Encoded, encode
    from gradistill.data.unlabelled_texts import load_texts, load_unlabelled

_HOMES = {
    "collator": ("Collator",),
    "cut": ("Cut",),
    "data_choice": ("DataChoice",),
    "label_alignment": ("align_labels",),
    "split_loading": ("load_splits", "read_splits"),
    "splits": ("Splits",),
    "tasks": ("TASKS", "Task", "compute_metrics", "get_task"),
    "tokenization": ("Encoded", "encode"),
    "unlabelled_texts": ("load_texts", "load_unlabelled"),
}

__all__ = [
    "TASKS",
    "Collator",
    "Cut",
    "DataChoice",
    "Encoded",
    "Splits",
    "Task",
    "align_labels",
    "compute_metrics",
    "encode",
    "get_task",
    "load_splits",
    "load_texts",
    "load_unlabelled",
    "read_splits",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
