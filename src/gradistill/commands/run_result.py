"""The results of commands in Python: the dictionary that they write as JSON, with its folder and its model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from gradistill.models.loading import load_classifier
from gradistill.report.notebook import audit_html, metrics_html
from gradistill.report.trackers import send_audit


class RunResult(dict[str, Any]):
    """The content of a run's ``metrics.json``, as a dictionary.

    ``path`` is the run folder, and ``metrics`` the plain dictionary. ``student`` is the trained model (after
    ``finetune`` the fine-tuned one), loaded at first use. A notebook shows the result as tables.

    Example: ``result = distill(…); result["eval"]; result.student.config.num_labels``
    """

    def __init__(self, metrics: Mapping[str, Any], path: Path) -> None:
        super().__init__(metrics)
        self.path = path

    @property
    def metrics(self) -> dict[str, Any]:
        """The same figures as a plain dictionary."""
        return dict(self)

    @cached_property
    def student(self) -> PreTrainedModel:
        """The trained model, in evaluation mode, on the CPU."""
        model, _ = load_classifier(str(self.path))
        return model.eval()

    def _repr_html_(self) -> str:
        return metrics_html(self)


class AuditResult(dict[str, Any]):
    """The content of ``audit.json``, as a dictionary. ``path`` is the folder of the audit, ``page`` its HTML page.

    A notebook shows the verdict, and the loyalties with their floors.
    """

    def __init__(self, found: Mapping[str, Any], path: Path, page: str) -> None:
        super().__init__(found)
        self.path = path
        self.page = path / page

    def send_to(self, *trackers: str) -> None:
        """Send figures and page to experiment trackers (``report.trackers``).

        Example: ``audit(…).send_to("trackio")``
        """
        send_audit(self, self.page, trackers)

    def _repr_html_(self) -> str:
        return audit_html(self)
