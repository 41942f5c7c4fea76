"""Tasks, rows and batches: what is read, how it is checked, and what a model gets of it."""

from gradistill.data.collator import Collator
from gradistill.data.data_choice import DataChoice
from gradistill.data.labels import align_labels
from gradistill.data.splits import Splits, load_splits, read_splits
from gradistill.data.tasks import TASKS, Task, compute_metrics, get_task
from gradistill.data.tokenization import Cut, Encoded, encode
from gradistill.data.unlabelled_texts import load_texts, load_unlabelled

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
