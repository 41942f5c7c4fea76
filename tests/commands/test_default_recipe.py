"""The method of a student where none is named."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from families import FAMILIES, HIDDEN_ATTENTION, build
from gradistill.cli import tune_command
from gradistill.cli.options import DistillationRecipe
from gradistill.commands.default_recipe import MOST_TOKENS, default_recipe
from gradistill.commands.project_file import read_project
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.data.teacher_answers import TeacherAnswers
from gradistill.models.attention import COMPARABLE, has_comparable_attention
from gradistill.recipe import load_recipe
from small import logged
from typed_command import exit_code


def chosen(teacher: Any, *changes: str) -> tuple[str, list[str]]:
    """The method, and the lines that are printed."""
    lines: list[str] = []
    with logged(lines):
        recipe = default_recipe(teacher, lambda method: load_recipe(method, changes=changes))
    return recipe.method, lines


def test_of_most_teachers_attention_is_compared(small: Any) -> None:
    for teacher in (small.teachers["two"], str(small.teachers["two"])):
        assert chosen(teacher) == ("coalition_minilm", [])
    assert chosen(str(small.teachers["two"]), "student.layers=1", f"training.max_length={MOST_TOKENS}") == (
        "coalition_minilm", [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("student.checkpoint=minilm-l6", "the student is not cut from its teacher"),
        ("student.width=8", "a student of another width"),
        ("student.size=60MB", "a student of another width"),
        ("training.max_length=513", "attention over 513 tokens"),
        ("teacher.template='{text}'", "only the teacher's predictions"),
    ],
)
def test_a_student_whose_attention_cannot_be_compared_learns_from_outputs(
    small: Any, change: str, why: str
) -> None:
    method, lines = chosen(str(small.teachers["two"]), change)
    assert method == "coalition"
    assert len(lines) == 1
    assert why in lines[0]


def test_a_teacher_of_long_texts_has_attention_that_is_too_large(tmp_path: Path) -> None:
    """As its run recorded; shorter texts of the student's own are another thing."""
    build("bert", labels=2, seed=0).save_pretrained(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        load_recipe("finetune", changes=["training.max_length=1024"]).as_yaml()
    )
    assert chosen(str(tmp_path))[0] == "coalition"
    assert chosen(str(tmp_path), "training.max_length=64")[0] == "coalition_minilm"


def test_of_a_teacher_that_is_no_model_predictions_alone_are_learned(small: Any) -> None:
    path = str(small.teachers["two"])
    for teacher in (
        TeacherAnswers(Path("answers.csv")), [path, path], {"a": path, "b": path}, PromptedTeacher(path, "{text}"),
        lambda texts: texts, None,
    ):  # fmt: skip
        assert chosen(teacher)[0] == "coalition"


def test_types_of_comparable_attention_are_those_that_the_contract_compares() -> None:
    """By forward passes in tests/objectives/test_contract.py, which refuses attention of HIDDEN_ATTENTION."""
    types = {family: build(family, labels=2, seed=0).config.model_type for family in FAMILIES}
    assert {name for family, name in types.items() if family not in HIDDEN_ATTENTION} == COMPARABLE


@pytest.mark.parametrize("name", ["diffllama", "minimax", "deepseek_v2", "vit"])
def test_what_has_the_mark_of_transformers_alone_is_not_comparable(name: str) -> None:
    """Code of its own, no attention in some layers, keys and values of two widths."""
    assert not has_comparable_attention(AutoConfig.for_model(name))


def test_a_search_has_one_method(small: Any) -> None:
    """Which of the defaults holds is settled before it, also where a searched field decides it."""
    for search, method in (
        ("training.learning_rate=1e-4,1e-3", "coalition_minilm"),
        ("student.width=8,16", "coalition"),
    ):
        options = tune_command.SearchOptions(search=[search])
        found = options.tuning(str(small.teachers["two"]), DistillationRecipe(), None)
        assert {found.resolve(()).method, found.resolve(("training.max_length=1024",)).method} == {method}


def test_a_teacher_of_hidden_attention_is_distilled_by_default(
    tmp_path: Path, small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line, and from a project file without a method."""
    folder = tmp_path / "mpnet"
    build("mpnet", labels=2, seed=0).save_pretrained(folder)
    assert chosen(str(folder))[1] == [
        "method: coalition, as attention of mpnet is not known to be comparable"
    ]
    data = json.dumps(str(small.tables["two"]))
    for teacher, method in ((folder, "coalition"), (small.teachers["two"], "coalition_minilm")):
        file = tmp_path / "gradistill.yaml"
        file.write_text(
            f"data: {{source: {data}, label_column: label, text_columns: [text]}}\n"
            f"teacher: {{fine_tuned: {json.dumps(str(teacher))}}}\nstudent: {{layers: 1}}\noutput: out\n"
        )
        assert read_project(file).distillation.method == method
    teacher = f"{{model: {json.dumps(str(small.base))}, max_length: 1024}}"
    file.write_text(f"data: {{source: {data}}}\nteacher: {teacher}\noutput: out\n")
    assert read_project(file).distillation.method == "coalition"  # its student reads as much
    command = ("distill", "--teacher", str(small.teachers["two"]), "--data", str(small.tables["two"]))
    shorter = ("--label-column", "label", "--text-columns", "text", "--student-layers", "1", "--epochs", "1")
    assert exit_code(monkeypatch, (*command, *shorter, "--output", str(tmp_path / "out"))) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["method"] == "coalition_minilm"
    capsys.readouterr()


def test_a_teacher_that_tags_words_has_a_method_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertForTokenClassification"]}')
    methods = partial(default_recipe, load=load_recipe)
    assert methods(str(tmp_path)).method == "kd"
    for other in (str(tmp_path / "nothing"), str(tmp_path / "config.json")):
        assert methods(other).method == "coalition_minilm"  # it is refused where it is loaded
