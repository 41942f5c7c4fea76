"""Options that no rows could make right are refused before any row is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradistill.commands.audit import AuditChoice, audit
from gradistill.commands.distill import distill
from gradistill.commands.finetune import finetune
from gradistill.commands.prepared_raw_text_run import prepared_raw_text_run
from gradistill.commands.prepared_run import prepared_run
from gradistill.commands.signal_stores import StoreChoice
from gradistill.data import split_loading
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.errors import GradistillError
from gradistill.recipe import load_recipe


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        pytest.fail("the rows were read")

    monkeypatch.setattr(split_loading, "read_source", read)


def answer(texts: list[str]) -> Any:
    return [[0.5, 0.5]] * len(texts)


@pytest.mark.usefixtures("unread")
def test_settings_of_a_teacher_with_the_students_tokens(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    for method, changes, message in (
        ("kd", ["student.size=1kB"], "no student fits"),
        ("kd", ["training.window_overlap=4"], "window_overlap is 4, and long texts are cut"),
        ("kd", ["training.windows=off", "training.window_overlap=4"], "long texts are cut"),
        ("kd", ["training.windows=mean", "training.window_overlap=400"], "a window has room for 62"),
        ("kd", ["training.max_length=9999"], "the teacher .* has 64 positions"),
        ("kd", ["student.layer_map=[1, 99]"], "The layer map"),
        ("kd", [f"student.checkpoint={small.base}", "student.width=8"], "and a width too"),
        ("kd", [f"student.checkpoint={small.base}", "student.layers=9"], "is to have 9 layers"),
        ("kd", ["student.embedding_rank=4000"], "the rank of the embeddings is 4000"),
        ("pkd", ["student.layers=1"], "no intermediate state"),
    ):
        with pytest.raises(GradistillError, match=message):
            distill(teacher, data, tmp_path / "run", load_recipe(method, changes=changes))
    recipe = load_recipe("kd")
    from_file = replace(data, unlabelled="./nothing.csv")
    with pytest.raises(GradistillError, match="no file or folder"):
        distill(teacher, from_file, tmp_path / "run", recipe)
    with pytest.raises(GradistillError, match="holds no manifest"):
        distill(teacher, data, tmp_path / "run", recipe, signals=StoreChoice(str(tmp_path / "none")))
    for model, changes in (("./nothing", []), (str(small.base), ["training.window_overlap=4"])):
        with pytest.raises(GradistillError, match="no model folder|long texts are cut"):
            finetune(model, data, tmp_path / "run", load_recipe("finetune", changes=changes))


@pytest.mark.usefixtures("unread")
def test_settings_of_a_teacher_that_reads_the_texts_by_itself(small: Any, tmp_path: Path) -> None:
    teacher, data, student = (
        str(small.teachers["two"]),
        small.choice("two"),
        f"student.checkpoint={small.base}",
    )
    prompt = PromptedTeacher(teacher, "Review: {text}")
    given: Any
    for given, method, changes, message in (
        (PromptedTeacher(teacher, "{sentence}"), "kd", [], r"it holds \{sentence\}"),
        (prompt, "kd", ["student.size=1kB"], "no student fits"),
        (prompt, "kd", ["training.windows=mean"], "has other windows"),
        (prompt, "kd", ["student.layers=9"], "is to have 9 layers"),
        (prompt, "kd", ["student.embeddings=copied"], "student.embeddings is copied"),
        (prompt, "gkd", ["student.embeddings=own"], "input gradients cannot be compared"),
        (answer, "adkd", [], "teacher's outputs are known"),
        (answer, "kd", ["training.augment=2"], "the teacher is a function"),
        ([teacher, answer], "kd", ["training.augment=2"], "the mean of several teachers"),
        ([teacher, answer], "kd", [], "a function without labels"),
        ([teacher, str(small.teachers["three"])], "kd", [], "differ"),
    ):  # fmt: skip
        with pytest.raises(GradistillError, match=message):
            distill(given, data, tmp_path / "run", load_recipe(method, changes=[student, *changes]))


@pytest.mark.usefixtures("unread")
def test_settings_of_an_audit(small: Any, tmp_path: Path) -> None:
    teacher, data = str(small.teachers["two"]), small.choice("two")
    three, given = str(small.teachers["three"]), AuditChoice(max_length=9999)
    for judge, student, choice, message in (
        (PromptedTeacher(teacher, "{sentence}"), teacher, AuditChoice(), r"it holds \{sentence\}"),
        (teacher, three, AuditChoice(), r"(?s)labels of the teacher and of three differ"),
        (teacher, teacher, given, "has 64 positions"),
    ):
        with pytest.raises(GradistillError, match=message):
            audit(judge, [student], data, tmp_path / "audit", choice)


@pytest.mark.parametrize(
    ("view", "message"), [("all", "gradients of all 3 labels"), ("sampled", "one of 3"), ("teacher", None)]
)
def test_a_look_at_many_labels_is_warned_of(
    view: str, message: str | None, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, data = str(small.teachers["three"]), small.choice("three")
    recipe = load_recipe("adkd", changes=[f"objectives.attribution_map.view={view}"])
    assert not [line for line in prepared_run(teacher, data, recipe).splits.warnings if "view=" in line]
    monkeypatch.setattr("gradistill.commands.prepared_run.MANY_LABELS", 2)
    found = [line for line in prepared_run(teacher, data, recipe).splits.warnings if "view=" in line]
    assert (
        (message in found[0] and found[0].endswith("attribution_map.view=teacher")) if message else not found
    )
    apart = load_recipe(
        "adkd",
        changes=[
            f"objectives.attribution_map.view={view}",
            f"student.checkpoint={small.base}",
            "student.layers=1",
        ],
    )
    warnings = prepared_raw_text_run(teacher, data, apart).splits.warnings
    assert [line for line in warnings if "view=" in line] == found
