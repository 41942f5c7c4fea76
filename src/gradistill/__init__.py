"""gradistill: distil a fine-tuned transformer into a small one that decides for the same reasons.

Public names load on first use, so that importing the package stays light.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gradistill.printing import show_log_lines

if TYPE_CHECKING:
    from gradistill.audit import ask, loyalty
    from gradistill.audit.attributions import attribute
    from gradistill.data import TASKS, align_labels, encode, load_splits
    from gradistill.errors import GradistillError
    from gradistill.jobs.audit import AuditChoice, audit
    from gradistill.jobs.explain import explain
    from gradistill.jobs.pretraining import pretrain
    from gradistill.jobs.runs import DataChoice, distill, finetune
    from gradistill.objectives import Term
    from gradistill.recipe import load_recipe
    from gradistill.training.trainer import DistillationTrainer

_HOME = {  # nowhere: the room of that name, which can be called
    "TASKS": "data",
    "AuditChoice": "jobs.audit",
    "DataChoice": "jobs.runs",
    "DistillationTrainer": "training.trainer",
    "GradistillError": "errors",
    "Term": "objectives",
    "align_labels": "data",
    "ask": "audit",
    "attribute": "audit.attributions",
    "audit": "",
    "distill": "jobs.runs",
    "encode": "data",
    "explain": "jobs.explain",
    "finetune": "jobs.runs",
    "load_recipe": "recipe",
    "load_splits": "data",
    "loyalty": "audit",
    "pretrain": "jobs.pretraining",
}

__all__ = [
    "TASKS",
    "AuditChoice",
    "DataChoice",
    "DistillationTrainer",
    "GradistillError",
    "Term",
    "align_labels",
    "ask",
    "attribute",
    "audit",
    "distill",
    "encode",
    "explain",
    "finetune",
    "load_recipe",
    "load_splits",
    "loyalty",
    "pretrain",
]
__version__ = version("gradistill")
show_log_lines()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradistill' has no attribute {name!r}")
    home = _HOME[name]
    value = (
        getattr(import_module(f"gradistill.{home}"), name) if home else import_module(f"gradistill.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
