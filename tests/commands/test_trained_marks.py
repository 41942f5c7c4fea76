"""Marks of what a student was trained on: in its run, its export, and an audit of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradistill.auditing.trained_figures import COPIES, NOTE, WORD_FIGURES
from gradistill.commands.audit import audit
from gradistill.commands.augment import augment
from gradistill.commands.distill import distill
from gradistill.commands.export import export_model
from gradistill.commands.export_choice import ExportChoice
from gradistill.commands.finetune import finetune
from gradistill.commands.tune import Tuning, tune
from gradistill.recipe import load_recipe
from gradistill.report.run_summary import run_table
from small import audit_parts


@pytest.mark.slow
def test_a_student_keeps_the_marks_of_the_student_that_it_started_from(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    first, second, third, onnx = (tmp_path / name for name in ("first", "second", "third", "onnx"))
    small.distilled("coalition", "two", first, "student.layers=1")
    found = small.distilled("kd", "two", second, f"student.checkpoint={first}", "student.layers=null")
    assert found["loyalty"]["response"]["trained_on"] == ["coalition_matching"]
    finetune(str(second), data, third, load_recipe("finetune", changes=["training.epochs=1"]))
    exported = export_model(str(third), onnx, ExportChoice(timing=False), data=data, teacher=teacher)
    assert exported["loyalty"]["teacher"]["onnx"]["response"]["trained_on"] == ["coalition_matching"]
    assert "trained_on" not in exported["loyalty"]["student"]["onnx"]["response"]
    choice = audit_parts(response_rows=4)
    found = audit(teacher, [str(second), str(third), str(onnx)], data, tmp_path / "audit", choice)
    for student, runs in zip(found["students"], (1, 2, 2), strict=True):
        assert student["figures"]["loyalty"]["response"]["trained_on"] == ["coalition_matching"]
        assert len(student["earlier_recipes"]) == runs
    assert str(tmp_path) not in (tmp_path / "audit" / "audit.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_copies_that_come_as_a_file_leave_the_mark_of_those_that_a_run_makes(
    small: Any, tmp_path: Path
) -> None:
    """Also beside other rows in one file, in the student that starts from that one, and in its export."""
    teacher, plain = str(small.teachers["two"]), small.choice("two")
    augment(plain, tmp_path / "copies", teacher=teacher, times=2)
    lines = (tmp_path / "copies" / "unlabelled.jsonl").read_text(encoding="utf-8")
    (tmp_path / "more.jsonl").write_text('{"text": "the film was long ."}\n' + lines, encoding="utf-8")
    (tmp_path / "own.jsonl").write_text(
        '{"text": "the film was long .", "change": "words"}\n', encoding="utf-8"
    )
    recipe = load_recipe("kd", changes=["training.epochs=1", "student.layers=1"])
    copied, own = (
        distill(teacher, replace(plain, unlabelled=str(tmp_path / f"{name}.jsonl")), tmp_path / name, recipe)
        for name in ("more", "own")
    )
    assert copied["loyalty"]["response"]["trained_on"] == [COPIES]
    assert "trained_on" not in own["loyalty"]["response"]
    small.distilled(
        "kd", "two", tmp_path / "next", f"student.checkpoint={tmp_path / 'more'}", "student.layers=null"
    )
    export_model(str(tmp_path / "next"), tmp_path / "onnx", ExportChoice(timing=False), data=plain)
    students = [str(tmp_path / name) for name in ("more", "next", "onnx", "own")]
    found = audit(teacher, students, plain, tmp_path / "audit", audit_parts(response_rows=4))
    marks = ["trained_on" in student["figures"]["loyalty"]["response"] for student in found["students"]]
    assert marks == [True, True, True, False]
    copies = replace(plain, unlabelled=str(tmp_path / "more.jsonl"))
    tuning = Tuning(lambda changes: recipe, trials=1)
    assert tune(teacher, copies, tmp_path / "tune", tuning)["trained_on"] == {"response_loyalty": [COPIES]}


def page_of(folder: Path) -> str:
    return (folder / "audit.html").read_text(encoding="utf-8")


def test_an_audit_and_a_run_mark_what_the_student_was_trained_on(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    runs = [tmp_path / name for name in ("coalition", "kd")]
    own, plain = (small.distilled(run.name, "two", run, "student.layers=1") for run in runs)
    assert own["loyalty"]["response"]["trained_on"] == ["coalition_matching"]
    assert "trained_on" not in own["loyalty"]["label"]
    assert "trained_on" not in plain["loyalty"]["response"]
    assert "| response † |" in (runs[0] / "README.md").read_text(encoding="utf-8")
    assert NOTE in (runs[0] / "README.md").read_text(encoding="utf-8")
    assert "†" not in (runs[1] / "README.md").read_text(encoding="utf-8")
    with (console := Console(width=80)).capture() as shown:
        console.print(run_table(own))
    assert "response †" in shown.get()

    students = [*map(str, runs), [*map(str, runs)]]
    choice = audit_parts(response_rows=6)
    found = audit(teacher, students, data, tmp_path / "audit", choice)
    marks = [
        {n for part in student["figures"].values() for n, figure in part.items() if "trained_on" in figure}
        for student in found["students"]
    ]
    assert marks[0] == marks[2] >= {"response", "response_masked"}
    assert marks[0] <= {*WORD_FIGURES}
    assert marks[1] == set()
    assert "on which it was trained" in found["students"][0]["verdict"]
    assert "on which it was trained" not in found["students"][1]["verdict"]
    notes = ["\n".join(student["assessment"]["notes"]) for student in found["students"]]
    assert "coalition_matching" in notes[0]
    assert "coalition_matching" not in notes[1]
    value = f"{found['students'][0]['figures']['loyalty']['response']['value']:z.3f}†"
    for page in (page_of(tmp_path / "audit"), (tmp_path / "audit" / "audit.md").read_text(encoding="utf-8")):
        assert value in page
        assert NOTE in page
    for entry in found["comparisons"]:
        both_plain = {entry["a"], entry["b"]} <= {"kd"}
        assert ("trained_on" in entry["difference"]) is (entry["figure"] in marks[0] and not both_plain)
    compared = page_of(tmp_path / "audit").split('id="comparisons"')[1].split("</section>")[0]
    marked_lines = [row for row in compared.split("<tr>") if "†" in row]
    assert marked_lines
    assert all("Response" in row or "Kept" in row or "Flip" in row for row in marked_lines)
