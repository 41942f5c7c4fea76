"""A project: from one's own file to a folder with everything; what is finished stays, what changed is made again."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gradistill.commands import project_file
from gradistill.commands import run as module
from gradistill.commands.init import init
from gradistill.commands.project_file import read_project
from gradistill.commands.run import run
from gradistill.data import DataChoice, get_task
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.errors import RecipeError
from small import audit_parts, logged, texts, write_table
from typed_command import exit_code

PROJECT = """
output: out
data: {{source: rows.csv, text_columns: [text], label_column: label, validation_share: 0.3}}
teacher: {{model: {model}, epochs: 2, learning_rate: 0.02}}
student: {{method: kd, layers: 1, epochs: 1, learning_rate: 0.01}}
audit: {{max_rows: 4}}
export: no
"""


@pytest.fixture
def project(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_table(tmp_path / "rows.csv", texts("two", 24))
    file = tmp_path / "gradistill.yaml"
    file.write_text(PROJECT.format(model=small.base))
    return file


class StandIns:
    """In the place of the commands: each writes what its stage ends with. ``weights`` are those of the next model."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.weights = "first"
        self.recipes: dict[str, Any] = {}

    def trained(self, _: Any, __: Any, folder: Path, recipe: Any, *, overwrite: bool) -> None:
        assert overwrite  # what is unfinished goes on, what is finished is replaced
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_text(f"{self.weights} {folder.name}")
        (folder / "metrics.json").write_text("{}")
        self.made.append(folder.name)
        self.recipes[folder.name] = recipe

    def made_by(self, project: Path) -> list[str]:
        """The stages that a run of the project makes."""
        self.made.clear()
        run(project)
        return list(self.made)

    def audited(self, _: Any, __: Any, ___: Any, folder: Path, choice: Any, *, overwrite: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.json").write_text("{}")
        self.reference = choice.reference
        self.made.append("audit")

    def judged(self, _: Path, choice: Any) -> None:
        self.made.append(f"judged by {dict(choice.limits)}")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    own = StandIns()
    for name in ("finetune", "distill"):
        monkeypatch.setattr(module, name, own.trained)
    monkeypatch.setattr(module, "audit", own.audited)
    monkeypatch.setattr(module, "judged_again", own.judged)
    monkeypatch.setattr(module, "project_page", lambda *_: "page")
    return own


def changed(project: Path, before: str, now: str) -> Path:
    assert before in project.read_text()
    project.write_text(project.read_text().replace(before, now))
    return project


def test_what_is_finished_stays_and_what_depends_on_a_change_is_made_again(
    project: Path, stages: StandIns
) -> None:
    def made(*change: str) -> list[str]:
        return stages.made_by(changed(project, *change) if change else project)

    lines: list[str] = []
    with logged(lines):
        assert made() == ["teacher", "student", "audit"]
        assert made() == []
        assert made("max_rows: 4", "max_rows: 4, fail_under: {label: 0.9}") == ["judged by {'label': 0.9}"]
        assert made() == []
        assert made("fail_under: {label: 0.9}", "fail_under: {label: 0.8}") == ["judged by {'label': 0.8}"]
        assert made(", fail_under: {label: 0.8}", "") == ["judged by {}"]
        assert made("max_rows: 4", "max_rows: 5") == ["audit"]
        assert "audit: made again: audit.max_rows was 4, is 5" in lines
        stages.weights = "second"
        assert made("layers: 1, epochs: 1", "layers: 1, epochs: 2") == ["student", "audit"]
        assert "student: made again: recipe.training.epochs was 1.0, is 2.0" in lines
        assert "audit: made again: student changed" in lines
        assert made("layers: 1, epochs: 2", "layers: 1, epochs: 3") == ["student"]  # of the same weights
        (project.parent / "out" / "audit" / "audit.json").unlink()
        assert made() == ["audit"]
        assert made("label_column: label", "label_column: label, positive: negative") == [
            "teacher", "student", "audit"
        ]  # fmt: skip


def test_a_teacher_whose_labels_were_corrected_has_another_student_and_old_ledgers_stay_valid(
    project: Path, stages: StandIns
) -> None:
    made = partial(stages.made_by, project)
    teacher = project.parent / "given"
    stages.trained(0, 0, teacher, 0, overwrite=True)
    (teacher / "config.json").write_text('{"id2label": {"0": "no", "1": "yes"}}')
    changed(
        project,
        "{model: " + read_project(project).model + ", epochs: 2, learning_rate: 0.02}",
        "{fine_tuned: given}",
    )
    assert made() == ["student", "audit"]
    ledger = project.parent / "out" / "stages.json"
    kept = json.loads(ledger.read_text())
    assert any("labels, sizes or" in name for name in kept["audit"]["needs"])
    of_before = {
        stage: {**entry, "needs": {k: v for k, v in entry["needs"].items() if "labels, sizes or" not in k}}
        for stage, entry in kept.items()
    }
    ledger.write_text(json.dumps(of_before))
    assert made() == []
    assert json.loads(ledger.read_text()) == kept
    (teacher / "config.json").write_text('{"id2label": {"0": "yes", "1": "no"}}')
    with logged(lines := []):
        assert made() == ["student", "audit"]
    assert "student: made again: labels, sizes or tokenizer of the teacher changed" in lines


def test_a_second_teacher_is_trained_with_another_seed_and_the_audit_compares_with_it(
    project: Path, stages: StandIns
) -> None:
    made = partial(stages.made_by, project)
    assert made() == ["teacher", "student", "audit"]
    assert stages.reference is None
    changed(project, "max_rows: 4", "max_rows: 4, reference: yes")
    with logged(lines := []):
        assert made() == ["reference", "audit"]
    assert (
        "stages: teacher, student, reference (a second teacher, which takes as long as the first), audit"
        in lines
    )
    assert stages.reference == str(project.parent / "out" / "reference")
    first, second = (stages.recipes[name].as_written() for name in ("teacher", "reference"))
    assert [recipe["training"].pop("seed") for recipe in (first, second)] == [0, 1]
    assert first == second
    assert made() == []
    stages.weights = "second"
    changed(
        project, "epochs: 2, learning_rate: 0.02", "epochs: 2, learning_rate: 0.02, set: [training.seed=7]"
    )
    assert made() == ["teacher", "student", "reference", "audit"]
    assert stages.recipes["reference"].training.seed == 8
    changed(project, "reference: yes", "reference: no")
    assert made() == ["audit"]
    other = project.parent / "other"
    stages.trained(0, 0, other, 0, overwrite=True)
    (other / "config.json").write_text("{}")
    changed(project, "reference: no", "reference: other")
    assert made() == ["audit"]
    assert stages.reference == str(other)


def test_a_killed_run_goes_on_with_the_stage_that_it_was_in(
    project: Path, stages: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "distill", killed)
        with pytest.raises(KeyboardInterrupt):
            run(project)
    found = run(project)
    assert stages.made == ["teacher", "student", "audit"]
    assert {name: entry["outcome"] for name, entry in found["stages"].items()} == {
        "teacher": "kept", "student": "made", "audit": "made"
    }  # fmt: skip


def test_a_whole_project_with_an_export_that_has_no_packages(
    project: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(audit_parts, response_rows=3)
    monkeypatch.setattr(project_file, "AuditChoice", quick)
    monkeypatch.setattr(module, "_missing_packages", lambda: "an export needs <onnx>")
    changed(project, "export: no", "export: {quantize: null}")
    changed(project, "max_rows: 4", f"max_rows: 4, reference: {small.teachers['two']}")
    changed(
        project,
        f"model: {small.base}, epochs: 2, learning_rate: 0.02",
        f"fine_tuned: {small.teachers['two']}",
    )
    lines: list[str] = []
    with logged(lines):
        found = run(project)
    assert "stages: student, audit, export (will be left out: an export needs <onnx>)" in lines
    # All stages read the same rows.
    about = [line.partition(":")[0] for line in lines]
    assert {name: about.count(name) for name in ("task", "label", "train", "overlap")} == {
        "task": 1, "label": 1, "train": 1, "overlap": 0
    }  # fmt: skip
    assert {name: entry["outcome"] for name, entry in found["stages"].items()} == {
        "student": "made", "audit": "made", "export": "left out"
    }  # fmt: skip
    page = Path(found["page"]).read_text()
    assert "Export was left out: an export needs &lt;onnx&gt;" in page
    assert 'href="audit/audit.html"' in page
    assert 'href="student/README.md"' in page
    assert "Response loyalty" in page
    assert "Reference: a second teacher" in page
    assert str(project.parent) not in page
    assert 'href="export' not in page
    assert 'href="teacher' not in page


def test_one_column_and_a_number_need_no_brackets_and_no_quotes(project: Path) -> None:
    changed(
        project,
        "text_columns: [text], label_column: label",
        "text_columns: text, positive: 1, unlabelled: rows.csv",
    )
    choice = read_project(project).data
    assert (choice.columns, choice.positive) == (("text",), "1")
    assert choice.paths == (str(project.parent / "rows.csv"),) * 2


def test_changed_rows_and_a_stranger_in_the_folder(project: Path, tmp_path: Path) -> None:
    before = read_project(project)
    assert module._data_needs(before.data) == json.loads(json.dumps(module._data_needs(before.data)))
    first = module._data_needs(before.data)
    assert "skip_incomplete" not in first  # projects of earlier versions have finished stages without it
    write_table(tmp_path / "rows.csv", texts("two", 26))
    assert module._data_needs(before.data)["files"] != first["files"]
    more = replace(before.data, unlabelled=str(tmp_path / "more" / "rows.csv"))
    (tmp_path / "more").mkdir()
    write_table(tmp_path / "more" / "rows.csv", texts("two", 3))
    both = module._data_needs(more)
    assert (both["files"], len(both["unlabelled"])) == (module._data_needs(before.data)["files"], 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"no project of ours: thesis\.txt"):
        run(project)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("max_rows: 4", "maxrows: 4", r"line 6: the project has an unknown key 'audit\.maxrows'"),
        ("epochs: 2", "epochs: lots", r"line 4: .*teacher\.epochs"),
        ("epochs: 2", "epochs: yes", r"line 4: .*teacher\.epochs is a truth value"),
        ("max_rows: 4", "fail_under: {label: true}", r"line 6: .*audit\.fail_under\.label is a truth value"),
        ("epochs: 2", "epochs: -2", r"line 4 .*training\.epochs"),
        ("method: kd", "method: kdd", r"line 5 .*there is no method 'kdd'"),
        ("method: kd", "set: [training.epoch=3]", r"(?s)line 5.*training\.epoch"),
        ("source: rows.csv", "source: rows.csv, validation_share: 0.2", r"is used twice, in line 3"),
        ("model: ", "model: python:os:system, set: [], x: ", r"line 4: teacher\.model names code to run"),
        ("method: kd", "method: kd, set: [training.arguments.hub_token=hf_abcdefghijkl]", r"line 5.*secret"),
        ("model: ", "fine_tuned: ./t, model: ", r"line 4.*teacher\.model is given, and teacher\.fine_tuned too"),
        ("method: kd", "method: kd, checkpoint: ./gone", r"line 5 \(student\.checkpoint\): there is no model"),
        ("source: rows.csv", "source: rows.csv, unlabelled: no.csv", r"line 3 \(data\.unlabelled\): There is no"),
        ("max_rows: 4", "reference: ./gone", r"line 6 \(audit\.reference\): there is no model folder"),
        ("max_rows: 4", "reference: ''", r"line 6: .*audit\.reference"),
        ("max_rows: 4", "reference: 2", r"line 6: .*audit\.reference"),
        ("epochs: 2", "template: 'R: {text}'", r"line 4.*teacher\.template is given without teacher\.fine_tuned"),
        ("{model: ", "{template: 'Good?', fine_tuned: x}  #", r"line 4.*'Good\?' cannot be used: it holds no field"),
    ],
)  # fmt: skip
def test_messages_of_the_file_name_line_and_key(project: Path, before: str, now: str, message: str) -> None:
    project.write_text(project.read_text().replace(before, now, 1))
    with pytest.raises(RecipeError, match=message) as refused:
        run(project)
    assert "hf_abc" not in str(refused.value)
    assert not (project.parent / "out").exists()


def test_a_label_may_be_called_like_a_secret(project: Path) -> None:
    changed(
        project,
        "validation_share: 0.3",
        "validation_share: 0.3, label_map: {password: LABEL_0, 1: LABEL_1}",
    )
    assert dict(read_project(project).data.label_map or {}) == {"password": "LABEL_0", "1": "LABEL_1"}


def test_a_project_in_the_folder_of_its_data_reads_no_output_and_knows_its_splits(
    project: Path, stages: StandIns
) -> None:
    base = project.parent
    (base / "rows.csv").rename(base / "train.csv")
    write_table(base / "validation.csv", texts("two", 8))
    changed(project, "source: rows.csv", "source: .")
    changed(project, ", validation_share: 0.3", "")
    assert stages.made_by(project) == ["teacher", "student", "audit"]
    (base / "out" / "teacher" / "figures.jsonl").write_text("{}")
    write_table(base / "notes.csv", texts("two", 8))
    assert stages.made_by(project) == []
    write_table(base / "challenge.csv", texts("two", 8))
    changed(project, "max_rows: 4", "max_rows: 4, split: challenge")
    assert stages.made_by(project) == ["audit"]
    write_table(base / "challenge.csv", texts("two", 9))
    assert stages.made_by(project) == ["audit"]
    changed(project, "split: challenge", "split: gone")
    with pytest.raises(RecipeError, match=r"line 6 \(audit\.split\): .* has no split 'gone'"):
        run(project)


def test_an_audit_stays_where_a_tracker_fails(
    project: Path, stages: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def audited(*given: Any, **more: Any) -> Any:
        stages.audited(*given, **more)
        return SimpleNamespace(send_to=offline)

    def offline(_: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(module, "audit", audited)
    changed(project, "learning_rate: 0.01", "set: [training.arguments.report_to=wandb]")
    with logged(lines := []):
        assert stages.made_by(project) == ["teacher", "student", "audit"]
        assert stages.made_by(project) == []
    assert "WARNING: audit: not sent to wandb: no route to host" in lines


def test_how_a_finished_teacher_was_trained_is_not_known(project: Path) -> None:
    lines = project.read_text().splitlines()
    lines[3], lines[5] = "teacher: {fine_tuned: x}", "audit: {reference: yes}"
    project.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=r"line 6: audit\.reference is yes, and how the teacher") as refused:
        run(project)
    assert "audit.reference: FOLDER" in str(refused.value)


def test_several_teachers_that_read_a_prompt(project: Path, stages: StandIns) -> None:
    asked: dict[str, Any] = {}

    def kept(stage: Any, make: Any) -> Any:
        return lambda teacher, *rest, **options: (
            asked.update({stage: teacher}),
            make(teacher, *rest, **options),
        )

    module.distill, module.audit = kept("student", stages.trained), kept("audit", stages.audited)  # pyright: ignore
    for name in ("one", "two"):
        stages.trained(0, 0, project.parent / name, 0, overwrite=True)
    lines = project.read_text().splitlines()
    lines[3] = 'teacher: {fine_tuned: [one, two], template: "Review: {text}\\nGood?"}'
    project.write_text("\n".join(lines))
    template = "Review: {text}\nGood?"
    stages.made.clear()
    run(project)
    paths = [str(project.parent / name) for name in ("one", "two")]
    assert asked == {"student": paths, "audit": [PromptedTeacher(path, template) for path in paths]}
    assert read_project(project).distillation.teacher.template == template
    run(project)
    assert stages.made == ["student", "audit"]
    changed(project, "Good?", "Is it?")
    run(project)
    assert stages.made == ["student", "audit"] * 2  # the audit too, though the student's weights are the same
    stages.weights = "second"
    stages.trained(0, 0, project.parent / "two", 0, overwrite=True)
    run(project)
    assert stages.made == ["student", "audit", "student", "audit", "two", "student", "audit"]


def test_what_init_writes_is_what_run_reads(tmp_path: Path) -> None:
    rows = [
        {"ticket": f"please {'refund' if k % 2 else 'log in'} number {k}", "category": "a b"[k % 2 * 2]}
        for k in range(40)
    ]
    write_table(tmp_path / "tickets.csv", rows)
    file = init(str(tmp_path / "tickets.csv"), tmp_path / "deep" / "gradistill.yaml", model="owner/name")
    text = file.read_text()
    assert "# not certain: labels often have this name, and it has 2 values in 40 rows" in text
    project = read_project(file)
    assert project.data.label_column == "category"
    assert project.data.columns == ("ticket",)
    assert project.model == "owner/name"
    assert project.distillation.method == "coalition_minilm"
    with pytest.raises(RecipeError, match="is there already"):
        init(str(tmp_path / "tickets.csv"), file)
    init(str(tmp_path / "tickets.csv"), file, force=True)


def test_init_keeps_all_that_is_named_as_its_own_folder_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    write_table(
        tmp_path / "tickets.csv",
        [{"text": f"refund {'please' if k % 2 else 'never'} {k}", "label": "ab"[k % 2]} for k in range(40)],
    )
    (tmp_path / "more.txt").write_text("please\nnever\n")
    choice = DataChoice("tickets.csv", unlabelled="more.txt", label_map={"a": "LABEL_1", "b": "LABEL_0"})
    file = init(choice, "deep/gradistill.yaml", model="models/base")
    project = read_project(file)
    assert Path(project.model).resolve() == tmp_path / "models" / "base"
    assert Path(str(project.data.unlabelled)).resolve() == tmp_path / "more.txt"
    assert "  # label_map: {a: LABEL_1, b: LABEL_0}  # with teacher.fine_tuned" in file.read_text()
    with pytest.raises(RecipeError, match="which no file can name"):
        init(DataChoice("tickets.csv", unlabelled=[{"text": "a"}]), "other.yaml")
    with pytest.raises(RecipeError, match="The task sst2 is an object, which no file can name"):
        init(DataChoice("tickets.csv", task=get_task("sst2")), "other.yaml")


def test_an_export_may_be_smaller_still(project: Path) -> None:
    smaller = "{quantize: int8-static, embedding_bits: 4, trim_vocabulary: yes, vocabulary_size: 500}"
    choice = read_project(changed(project, "export: no", f"export: {smaller}")).export
    assert choice is not None
    assert (choice.quantize, choice.embedding_bits, choice.vocabulary_size) == ("int8-static", 4, 500)
    assert str(choice.trim_vocabulary).endswith("rows.csv")


def test_words_with_tags_are_proposed_with_a_method_that_reads_them(tmp_path: Path) -> None:
    rows = [{"tokens": ["saw", f"Rome {k}"], "tags": ["O", "B-place"]} for k in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    project = read_project(init(str(tmp_path / "rows.jsonl"), tmp_path / "gradistill.yaml"))
    assert (project.data.kind, project.data.columns, project.data.label) == ("tokens", ("tokens",), "tags")
    assert (project.distillation.method, project.export) == ("kd", None)


def test_words_with_tags_are_seen_before_any_work_where_nothing_names_them(tmp_path: Path) -> None:
    rows = [{"tokens": ["saw", f"Rome {k}"], "tags": ["O", "B-place"]} for k in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = tmp_path / "gradistill.yaml"

    def read(method: str) -> Any:
        file.write_text(
            f"output: out\ndata: {{source: rows.jsonl, validation_share: 0.5}}\nstudent: {method}\n"
        )
        return read_project(file)

    assert read("{layers: 1}").distillation.method == "kd"
    assert read("{method: adkd, set: [objectives.attribution_map.words=1]}").distillation.method == "adkd"
    with pytest.raises(RecipeError, match=r"line 3.*coalition_matching needs logits of changed copies"):
        read("{method: coalition}")
    (tmp_path / "rows.jsonl").write_text("no JSON\n")  # what is wrong with it is for the stage that needs it
    assert read("{method: coalition}").distillation.method == "coalition"


def test_the_commands_of_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "rows.csv", texts("two", 20))
    assert exit_code(monkeypatch, ("run",)) == 2
    assert "To do: gradistill init my_rows.csv" in capsys.readouterr().err
    assert exit_code(monkeypatch, ("init", "rows.csv", "--model", "owner/name")) == 0
    assert capsys.readouterr().out.endswith("yaml. Read it, change what does not fit, then: gradistill run\n")
    table = [{"comment": row["text"], "queue": row["label"]} for row in texts("two", 40)]
    write_table(tmp_path / "more.csv", table)
    assert exit_code(monkeypatch, ("init", "more.csv", "--force", "--model", "owner/name")) == 0
    assert "written to gradistill.yaml. Not certain: label_column. Read it" in capsys.readouterr().out
    assert exit_code(monkeypatch, ("init", "rows.csv", "--force", "--model", "owner/name")) == 0
    capsys.readouterr()
    assert "source: rows.csv" in (tmp_path / "gradistill.yaml").read_text()
    assert exit_code(monkeypatch, ("init", "rows.csv")) == 2
    assert "give --force" in capsys.readouterr().err
    assert exit_code(monkeypatch, ("init", "rows.csv", "--force", "--text-columns", "texts")) == 2
    assert "texts" in capsys.readouterr().err
    assert exit_code(monkeypatch, ("distill", "--data", "rows.csv")) == 2
    assert "gradistill init FILE proposes teacher" in capsys.readouterr().err
