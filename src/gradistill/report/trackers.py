"""Send an audit to experiment trackers: its figures as numbers, its page as an artefact."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gradistill.auditing.per_example import CHALLENGE
from gradistill.errors import RecipeError, nearest

PROJECT = "huggingface"
"""The default project, the same as for the Trainer of transformers. An environment variable can name another one."""
ARTEFACT = "audit"
"""The type of the artefact. Its name is the name of the audit's folder."""
REFUSED_IN_ARTEFACTS = re.compile(r"[^\w\-.]")
"""Characters that names of artefacts must not have, such as spaces."""
REFUSED_BY_MLFLOW = re.compile(r"[^\w\-./: ]")
"""Characters that names of mlflow metrics must not have, such as brackets in the name of a student."""


@dataclass(frozen=True)
class Report:
    """The parts of an audit that are sent: ``numbers`` by name, and the files ``page`` (HTML) and ``table``
    (Markdown)."""

    name: str
    numbers: Mapping[str, float]
    page: Path
    table: Path

    @property
    def artefact(self) -> str:
        return REFUSED_IN_ARTEFACTS.sub("_", self.name)


def send_audit(audit: Mapping[str, Any], page: Path, report_to: Sequence[str]) -> None:
    """Send the figures and the page of an audit to each of these trackers.

    Every figure becomes ``audit/STUDENT/FIGURE`` and its floor ``audit/STUDENT/FIGURE_floor``. The page becomes an
    artefact of trackio, wandb and mlflow. TensorBoard has none, so it gets the Markdown table as text.

    Parameters:
        ``audit``: the content of ``audit.json``.
        ``page``: its ``audit.html``, with ``audit.md`` in the same folder. The run has the name of the folder.
        ``report_to``: any of ``tensorboard``, ``trackio``, ``wandb`` and ``mlflow``.

    Raises RecipeError for an unknown tracker, and for one whose package is missing (``check_trackers``).

    Example: ``send_audit(found, Path("runs/audit/audit.html"), ["trackio"])``
    """
    check_trackers(report_to)
    report = Report(page.resolve().parent.name, dict(_numbers(audit)), page, page.with_suffix(".md"))
    for name in report_to:
        SENDERS[name](report)


def check_trackers(names: Sequence[str]) -> None:
    """Raise RecipeError for an unknown tracker, and for one whose package is not installed."""
    for name in names:
        if name not in SENDERS:
            raise RecipeError(f"{name!r} is no experiment tracker.", remedy=nearest(name, SENDERS))
        if find_spec(name) is None:
            raise RecipeError(
                f"The audit is to be sent to {name}, which is not installed.",
                expected=f"the package {name}",
                remedy=f"pip install {name}",
            )


def known_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The trackers in ``TrainingArguments.report_to`` to which an audit can be sent.

    Example: ``known_trackers("tensorboard") == ["tensorboard"]``
    """
    names = [report_to] if isinstance(report_to, str) else report_to or ()
    return [name for name in names if name in SENDERS]


def _numbers(audit: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for student in audit.get("students") or ():
        for group, figures in (student.get("figures") or {}).items():
            place = f"audit/{student['name']}" + (f"/{group}" if group == CHALLENGE else "")
            for figure, found in figures.items():
                for key, ending in (("value", ""), ("floor", "_floor")):
                    if (number := (found or {}).get(key)) is not None:
                        yield f"{place}/{figure}{ending}", number


def _to_tensorboard(report: Report) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(report.page.parent / "tensorboard")) as writer:
        for name, number in report.numbers.items():
            writer.add_scalar(name, number)
        writer.add_text(ARTEFACT, report.table.read_text(encoding="utf-8"))


def _to_trackio(report: Report) -> None:
    trackio: Any = import_module("trackio")

    trackio.init(project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=report.name)
    try:
        trackio.log(dict(report.numbers))
        trackio.log_artifact(str(report.page), name=report.artefact, type=ARTEFACT)
    finally:
        trackio.finish()


def _to_wandb(report: Report) -> None:
    wandb: Any = import_module("wandb")

    with wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=report.name) as run:
        run.log(dict(report.numbers))
        run.log_artifact(str(report.page), name=report.artefact, type=ARTEFACT)


def _to_mlflow(report: Report) -> None:
    mlflow: Any = import_module("mlflow")

    if experiment := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=report.name):
        mlflow.log_metrics({REFUSED_BY_MLFLOW.sub(" ", name): n for name, n in report.numbers.items()})
        mlflow.log_artifact(str(report.page), artifact_path=ARTEFACT)


SENDERS: Mapping[str, Callable[[Report], None]] = {
    "tensorboard": _to_tensorboard,
    "trackio": _to_trackio,
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
}
"""The function that sends a report, by tracker, under the names of transformers' ``report_to``."""
