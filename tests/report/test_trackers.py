"""Figures and page of an audit, sent to trackers that only note what they are given."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gradistill.commands.run_result import AuditResult
from gradistill.errors import RecipeError
from gradistill.report.trackers import SENDERS, check_trackers, known_trackers

AUDIT = {
    "students": [
        {
            "name": "kd (3 layers)",
            "figures": {
                "loyalty": {"response": {"value": 0.6, "floor": 0.2}, "kappa": {"value": None, "floor": 0.1}},
                "quality": {"student_accuracy": {"value": 0.75}},
                "challenge": {"student_accuracy": {"value": 0.25}},
            },
        }
    ]
}
NUMBERS = {
    "audit/kd (3 layers)/response": 0.6,
    "audit/kd (3 layers)/response_floor": 0.2,
    "audit/kd (3 layers)/kappa_floor": 0.1,
    "audit/kd (3 layers)/student_accuracy": 0.75,
    "audit/kd (3 layers)/challenge/student_accuracy": 0.25,
}


class Tracker(ModuleType):
    """A package, and its run, that notes every call: its name, and what it was called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def noted(*values: Any, **options: Any) -> Tracker:
            self.calls.append((name, values, options))
            return self

        return noted

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("exit", (), {}))

    def called(self, name: str) -> tuple[Any, dict[str, Any]]:
        ((values, options),) = [(values, options) for call, values, options in self.calls if call == name]
        return values, options


@pytest.fixture
def audit(tmp_path: Path) -> AuditResult:
    folder = tmp_path / "my audit"
    folder.mkdir()
    (folder / "audit.html").write_text("<p>page</p>")
    (folder / "audit.md").write_text("| table |")
    return AuditResult(AUDIT, folder, "audit.html")


@pytest.fixture
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    found = Tracker(request.param)
    monkeypatch.setitem(sys.modules, request.param, found)
    return found


@pytest.mark.parametrize("tracker", ["trackio", "wandb"], indirect=True)
def test_figures_and_page_reach_a_run_of_the_trackers_project(tracker, audit, monkeypatch):
    monkeypatch.setenv(f"{tracker.__name__.upper()}_PROJECT", "reviews")
    audit.send_to(tracker.__name__)
    assert tracker.called("init") == ((), {"project": "reviews", "name": "my audit"})
    assert tracker.called("log") == ((NUMBERS,), {})
    assert tracker.called("log_artifact") == ((str(audit.page),), {"name": "my_audit", "type": "audit"})
    assert tracker.calls[-1][0] in ("finish", "exit"), "the run is ended"


@pytest.mark.parametrize("tracker", ["mlflow"], indirect=True)
def test_names_are_such_that_mlflow_takes_them(tracker, audit, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    audit.send_to("mlflow")
    ((numbers,), _) = tracker.called("log_metrics")
    assert numbers["audit/kd  3 layers /response"] == 0.6
    assert len(numbers) == len(NUMBERS)
    assert tracker.called("log_artifact")[0] == (str(audit.page),)


def test_tensorboard_gets_the_table_as_text(audit, monkeypatch):
    written: dict[str, Any] = {}

    class Writer:
        def __init__(self, folder: str) -> None:
            written["folder"] = folder

        def __enter__(self) -> Writer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add_scalar(self, name: str, number: float) -> None:
            written[name] = number

        def add_text(self, name: str, text: str) -> None:
            written[name] = text

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setitem(sys.modules, "tensorboard", Tracker("tensorboard"))
    audit.send_to("tensorboard")
    assert written == {**NUMBERS, "audit": "| table |", "folder": str(audit.path / "tensorboard")}


def test_unknown_and_missing_trackers_are_refused(monkeypatch):
    with pytest.raises(RecipeError, match="'wandbb' is no experiment tracker") as refused:
        check_trackers(["wandbb"])
    assert "wandb" in str(refused.value)
    monkeypatch.setattr("gradistill.report.trackers.find_spec", lambda name: None)
    for name in SENDERS:
        with pytest.raises(RecipeError, match=f"pip install {name}"):
            check_trackers([name])


def test_of_what_a_trainer_reports_to_an_audit_knows_four():
    assert known_trackers(["wandb", "comet_ml", "mlflow"]) == ["wandb", "mlflow"]
    assert known_trackers("none") == known_trackers(None) == []
