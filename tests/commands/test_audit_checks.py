"""Faithfulness, checks of maps and the check by random weights in a whole audit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gradistill.auditing import map_checks
from gradistill.cli.app import app
from gradistill.commands.audit import AuditChoice, audit
from gradistill.commands.audit_models import _short_names
from gradistill.errors import RecipeError
from small import audit_parts, logged

PARTS_WITH_REFERENCE = ("floor_rows", "response_rows", "shapley_rows", "expected_gradients_rows")
CHOICE = audit_parts(faithfulness_rows=4, floor_rows=6)


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {name: e for group in found["students"][0]["figures"].values() for name, e in group.items()}


def test_checks_of_maps_are_in_the_audit(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = str(small.teachers["two"])
    monkeypatch.setattr(map_checks, "UNCHANGED", -1.0)
    with logged([]) as lines:
        found = audit(
            teacher, [teacher], small.choice("two"), tmp_path / "out", replace(CHOICE, map_checks=True)
        )
    every = figures(found)
    for name in ("comprehensiveness", "sufficiency", "infidelity", "max_sensitivity"):
        assert every[f"teacher_{name}"] == every[f"student_{name}"]
        assert every[f"teacher_{name}"]["n"] <= 4
    assert every["teacher_infidelity"]["value"] > 0
    random = found["attribution"]["randomised"]
    assert random.keys() == {"head", "blocks"}
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in random.values())
    (warning,) = [line for line in lines if "are random" in line]
    assert warning.removeprefix("WARNING: ") in found["warnings"]


def test_what_is_not_asked_for_is_left_out(small: Any, tmp_path: Path) -> None:
    teacher = str(small.teachers["two"])
    found = audit(teacher, [teacher], small.choice("two"), tmp_path / "a", CHOICE)
    assert "teacher_infidelity" not in figures(found)
    bare = replace(CHOICE, floor_rows=0, faithfulness_rows=0)
    found = audit(teacher, [teacher], small.choice("two"), tmp_path / "b", bare)
    assert found["attribution"]["randomised"] == {}
    assert "teacher_sufficiency" not in figures(found)


def test_the_command_takes_the_width_of_the_search(small: Any, tmp_path: Path) -> None:
    command = [
        "audit", "--teacher", str(small.teachers["two"]), "--student", str(small.teachers["two"]), "--data",
        str(small.tables["two"]), "--label-column", "label", "--text-columns", "text", "--response-rows", "0",
        "--shapley-rows", "0", "--expected-gradients-rows", "0",
        "--floor-rows", "0", "--perturbed-rows", "0", "--beam", "2", "--map-checks",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["settings"]["beam for faithfulness"] == 2
    assert "student_max_sensitivity" in figures(found)


@pytest.mark.parametrize(
    ("option", "rows"),
    [
        ("map_checks", {"faithfulness_rows": 0}),
        ("cascade", {"floor_rows": 0, "response_rows": 0}),
        ("reference", dict.fromkeys(PARTS_WITH_REFERENCE, 0)),
    ],
)
def test_an_option_without_rows_is_refused(
    option: str, rows: dict[str, int], small: Any, tmp_path: Path
) -> None:
    teacher = str(small.teachers["two"])
    with pytest.raises(RecipeError, match=f"{option} was set"):
        audit(
            teacher, [teacher], small.choice("two"), tmp_path / "out", AuditChoice(**rows, **{option: True})
        )
    assert not (tmp_path / "out").exists()


def test_no_student_has_the_name_of_another_role() -> None:
    """The metrics of a student in a folder called ``teacher`` were those of the teacher."""
    assert _short_names(["runs/v1/kd", "runs/v2/teacher"]) == ["kd", "runs/v2/teacher"]
    assert _short_names(["runs/v1/kd", "runs/v2/kd"]) == ["runs/v1/kd", "runs/v2/kd"]
    assert _short_names(["teacher", "reference", "kd"]) == ["teacher (1)", "reference (1)", "kd"]
    assert _short_names(["teacher", "teacher (1)"]) == ["teacher (2)", "teacher (1)"]
    assert _short_names(["kd", "kd"]) == ["kd (1)", "kd (2)"]
