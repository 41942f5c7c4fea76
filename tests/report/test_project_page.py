"""The page of a project, from the files of its stages."""

from __future__ import annotations

from html import escape
from typing import Any

from gradistill.report.project_page import project_page
from report.audits import assessed, estimate


def test_figures_of_the_training_run_have_its_floor() -> None:
    floored = estimate(0.8) | {"floor": 0.1, "gain": 0.778}
    found = {"audit": None, "teacher": {}, "student": {"loyalty": {"label": floored}}, "stages": {}}
    page = project_page(found, "tickets", [], {})
    assert "Figures of the training run, on validation rows. Floor: the student before its first step" in page
    assert "random head" not in page
    assert "Floor: the student with a random head" in project_page(
        found | {"audit": assessed()}, "tickets", [], {}
    )


def test_the_commands_on_a_projects_page_suit_its_rows() -> None:
    def page(**of_student: Any) -> str:
        found = {"audit": None, "teacher": {}, "student": {"loyalty": {}, **of_student}, "stages": {}}
        return project_page(found, "tickets", [], {})

    assert '"a text of yours"</pre>' in page(data={"text_columns": ["text"]})
    assert '"a text of yours" "its second text"</pre>' in page(data={"text_columns": ["a", "b"]})
    tags = page(eval={"span_f1": 0.5})
    assert "predicted.jsonl" in tags
    assert "gradistill explain" not in tags


def test_a_project_names_the_checks_that_do_not_pass() -> None:
    audit = assessed()
    checks = [check for part in (audit, *audit["students"]) for check in part["assessment"]["checks"]]
    missed = [escape(check["reason"]) for check in checks if check["outcome"] != "pass"]
    assert missed
    found = {"audit": audit, "teacher": {}, "student": {"loyalty": {}}, "stages": {}}
    page = project_page(found, "tickets", [], {})
    head = page[: page.index("<main>")].replace("&#39;", "&#x27;")
    assert all(head.count(reason) == 1 for reason in missed)


def test_speeds_come_with_what_to_trust() -> None:
    part = {"p50_ms": 3.0, "p95_ms": 4.0, "times": 2.0, "rows_per_s": 90.0, "times_batch": 1.9}
    exported = {"loyalty": {}, "costs": {"onnx": {"bytes": 1_000_000, "cores": {"1": part}}}}
    found = {"audit": None, "teacher": {}, "student": {}, "stages": {}, "export": exported}
    page = project_page(found, "tickets", [], {})
    assert page.count("trust ratios, not milliseconds") == 1
    assert page.index("<h3>Speed</h3>") < page.index("trust ratios")
