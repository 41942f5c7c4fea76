"""Which figures favour a student, because its objectives train on what they measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradistill.auditing.trained_figures import (
    MAP_FIGURES,
    NOTE,
    WORD_FIGURES,
    marked,
    marked_name,
    trained_by_recipe,
    trained_figures,
)
from gradistill.commands.audit import AuditChoice, audit
from gradistill.commands.export import export_model
from gradistill.commands.finetune import finetune
from gradistill.objectives import Term, all_objectives
from gradistill.recipe import load_recipe
from gradistill.recipe.recipe_files import shipped_methods
from gradistill.report.run_summary import run_table
from gradistill.signals.base import CHANGED_WORDS, GRADIENTS

GRADIENT, PATH = "gradient_x_input", "integrated_gradients"
WITH_COPIES = {"coalition", "coalition_minilm", "coalition_rationale"}
WITH_GRADIENTS = {
    "adkd", "coalition_rationale", "e2kd", "gkd", "gkd_cls", "jacobian", "rationale", "rationale_states",
}  # fmt: skip
OF_OBJECTIVES = {
    CHANGED_WORDS: {"coalition_matching", "counterfactual_effects"},
    GRADIENTS: {
        "attribution_map", "explanation_similarity", "gradient_alignment", "jacobian_matching", "noise_matching",
        "rationale",
    },
}  # fmt: skip


def trained(method: str, *changes: str, maps_by: str = GRADIENT) -> dict[str, list[str]]:
    recipe = load_recipe(method, changes=changes)
    found = trained_figures(recipe.objectives, maps_by, augmented=bool(recipe.training.augment))
    assert trained_by_recipe(recipe.as_yaml(), maps_by) == found
    return found


@pytest.mark.parametrize("method", shipped_methods())
def test_methods_with_copies_train_on_changed_words_and_those_with_gradients_on_maps(method: str) -> None:
    expected = {*WORD_FIGURES} if method in WITH_COPIES else set()
    expected |= {*MAP_FIGURES} if method in WITH_GRADIENTS else set()
    assert {*trained(method)} == expected


@pytest.mark.parametrize("name", all_objectives())
def test_every_objective_is_judged(name: str) -> None:
    """An objective that comes anew has to be put in its place here."""
    found = {*trained_figures({name: Term(all_objectives()[name]())})}
    assert (found >= {*WORD_FIGURES}) is (name in OF_OBJECTIVES[CHANGED_WORDS])
    assert (found >= {*MAP_FIGURES}) is (name in OF_OBJECTIVES[GRADIENTS])


@pytest.mark.parametrize(
    ("method", "changes", "maps_by", "maps"),
    [
        ("adkd", (), PATH, False),
        ("adkd", ("objectives.attribution_map.steps=4",), PATH, True),
        ("adkd", ("objectives.attribution_map.steps=4",), GRADIENT, True),
        ("rationale", (), PATH, False),
        ("rationale", (), "occlusion", False),
        ("coalition", (), "occlusion", True),
        ("coalition", (), "shapley", True),
        ("coalition", (), PATH, False),
        ("kd", ("training.augment=2",), "occlusion", True),
        ("kd", ("training.augment=2",), GRADIENT, False),
        ("rationale", (), "smoothgrad", True),
        ("rationale", (), "a method of a user", False),
    ],
)
def test_maps_count_where_the_method_of_the_audit_is_what_was_trained_on(
    method: str, changes: tuple[str, ...], maps_by: str, maps: bool
) -> None:
    assert ({*MAP_FIGURES} <= {*trained(method, *changes, maps_by=maps_by)}) is maps


def test_a_figure_names_all_that_train_on_it() -> None:
    assert trained("coalition_rationale")["response"] == ["coalition_matching"]
    assert trained("coalition_rationale")["saliency"] == ["rationale"]
    assert trained("coalition", "training.augment=2")["response"] == [
        "training.augment",
        "coalition_matching",
    ]
    assert trained("kd", "training.augment=2").keys() == {*WORD_FIGURES}


def test_an_objective_without_weight_does_not_count() -> None:
    assert trained("coalition", "objectives.coalition_matching.weight=0") == {}


def test_fields_of_another_version_leave_the_mark() -> None:
    text = "objectives: {coalition_matching: {newer: 3}, a_users_own: {weight: 1}}"
    assert trained_by_recipe(text)["response"] == ["coalition_matching"]


@pytest.mark.parametrize(
    "text",
    [None, "", "objectives", "objectives: []", "objectives: {}", "objectives: {a: {weight: 1}}", "training: 3",
     "{", "objectives: {coalition_matching: null}", "{1: 2, null: [3]}"],
)  # fmt: skip
def test_a_recipe_that_is_none_marks_nothing(text: str | None) -> None:
    assert trained_by_recipe(text) == {}


def test_what_is_no_figure_stays_as_it_is() -> None:
    figures = {"response": None, "saliency": {"value": 0.5}, "note": "a text"}
    assert marked(figures, {"response": ["x"], "note": ["x"]}) == figures
    assert marked_name("saliency", {"value": 0.5}) == "saliency"


def test_a_student_keeps_the_marks_of_the_student_that_it_started_from(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    first, second, third, onnx = (tmp_path / name for name in ("first", "second", "third", "onnx"))
    small.distilled("coalition", "two", first, "student.layers=1")
    found = small.distilled("kd", "two", second, f"student.checkpoint={first}", "student.layers=null")
    assert found["loyalty"]["response"]["trained_on"] == ["coalition_matching"]
    finetune(str(second), data, third, load_recipe("finetune", changes=["training.epochs=1"]))
    export_model(str(third), onnx)
    choice = AuditChoice(faithfulness_rows=0, perturbed_rows=0, response_rows=4, shapley_rows=0, floor_rows=0)
    found = audit(teacher, [str(second), str(third), str(onnx)], data, tmp_path / "audit", choice)
    for student, runs in zip(found["students"], (1, 2, 2), strict=True):
        assert student["figures"]["loyalty"]["response"]["trained_on"] == ["coalition_matching"]
        assert len(student["earlier_recipes"]) == runs
    assert str(tmp_path) not in (tmp_path / "audit" / "audit.json").read_text(encoding="utf-8")


def page_of(folder: Path) -> str:
    return (folder / "audit.html").read_text(encoding="utf-8")


def test_an_audit_a_run_and_an_export_mark_what_the_student_was_trained_on(
    small: Any, tmp_path: Path
) -> None:
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

    exported = export_model(str(runs[0]), tmp_path / "onnx", data=data, teacher=teacher)
    assert exported["loyalty"]["teacher"]["onnx"]["response"]["trained_on"] == ["coalition_matching"]
    assert "trained_on" not in exported["loyalty"]["student"]["onnx"]["response"]

    students = [*map(str, runs), str(tmp_path / "onnx"), [*map(str, runs)]]
    choice = AuditChoice(faithfulness_rows=0, perturbed_rows=0, response_rows=6, shapley_rows=0, floor_rows=0)
    found = audit(teacher, students, data, tmp_path / "audit", choice)
    marks = [
        {n for part in student["figures"].values() for n, figure in part.items() if "trained_on" in figure}
        for student in found["students"]
    ]
    assert marks[0] == marks[2] == marks[3] >= {"response", "response_masked"}
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
