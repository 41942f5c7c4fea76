"""The front door: what is typed, what is printed, and exit codes. Bad input gets one message and never a traceback."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradistill import __version__
from gradistill.cli.audit_command import AuditOptions
from gradistill.cli.options import FinetuningData, FinetuningRecipe, RecipeOptions, StudentRecipe
from gradistill.cli.tune_command import next_command, trial_row
from gradistill.commands import audit, distill
from gradistill.commands.defaults import DEFAULT_METHOD
from gradistill.data import TASKS
from gradistill.errors import GradistillError
from gradistill.recipe import load_recipe, shipped_methods
from stand_ins import raising
from typed_command import exit_code

COMMANDS = (
    "finetune", "distill", "augment", "pretrain", "predict", "signals", "audit", "explain", "bench", "tune", "demo",
    "methods", "tasks",
)  # fmt: skip


class Printed(NamedTuple):
    code: Any
    out: str
    err: str


Type = Callable[..., Printed]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Type]:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Printed:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = exit_code(monkeypatch, arguments)
        return Printed(code, out.getvalue(), err.getvalue())

    return run


def folder_of(small: Any, kind: str = "two") -> Path:
    return small.tables[kind]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, typed: Type) -> None:
    printed = typed(command, "--help")
    assert printed.code == 0
    assert f" {command} [OPTIONS]" in printed.out


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(("audit", "--split", "a", "--data", "d", "--split=b"), "--split"),
     (("predict", "--model", "m", "--data", "d", "--data", "e"), "--data")],
)  # fmt: skip
def test_an_option_of_one_value_is_not_given_twice(
    arguments: tuple[str, ...], option: str, typed: Type
) -> None:
    printed = typed(*arguments)
    assert printed.code == 2
    assert f"'{option}': it was given 2 times" in printed.err


def test_commands_of_one_process_refuse_several(
    tmp_path: Path, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would write the same files. Those that train share the work, and lists write nothing."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\na,0\nb,1\n", encoding="utf-8")
    for command in (
        ("augment", "--data", rows, "--output", tmp_path / "more.csv"),
        ("init", rows),
        ("run", tmp_path),
    ):
        printed = typed(*command)
        assert printed.code == 2
        assert (
            f"2 processes were started (WORLD_SIZE), and gradistill {command[0]} works in one" in printed.err
        )
    assert list(tmp_path.iterdir()) == [rows]
    assert typed("methods").code == 0
    assert "WORLD_SIZE" not in typed("distill", "--data", rows, "--output", tmp_path / "run").err


def test_a_field_of_the_recipe_is_not_set_twice() -> None:
    twice = (
        FinetuningRecipe(epochs=1.0, change=["training.epochs=2"]),
        FinetuningRecipe(change=["training.epochs=1", " training.epochs =1"]),
    )
    for options in twice:
        with pytest.raises(GradistillError, match=r"(?s)training.epochs is set 2 times.*or --epochs"):
            options.load("kd")


def test_names_of_digits_stay_names() -> None:
    assert StudentRecipe(student="12").load("kd").student.checkpoint == "12"
    with pytest.raises(GradistillError, match="student.size is '12'"):
        StudentRecipe(student_size="12").load("kd")
    assert FinetuningRecipe(windows="off").load("finetune").training.windows == "off"


def test_a_shell_completes_commands_and_options(typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_GRADISTILL_COMPLETE", "complete_bash")
    for words, expected in (("gradistill dis", "distill"), ("gradistill distill --layer-", "--layer-map")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert typed().out.split() == [expected]


def test_the_version_and_what_there_is(typed: Type) -> None:
    assert typed("--version").out == f"gradistill {__version__}\n"
    methods = typed("methods").out
    assert all(name in methods for name in shipped_methods())
    assert "steps of plain cross-entropy" in methods
    assert f"Default, by teacher: {DEFAULT_METHOD}" in methods
    one = typed("methods", "adkd").out
    assert "attribution_map" in one
    assert "arXiv 2305.10010" in one
    assert "did you mean 'adkd'" in typed("methods", "adk").err


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_break_no_names(width: int, typed: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    methods = typed("methods").out
    assert max(map(len, methods.splitlines()[:-1])) <= width
    assert all(f" {name} " in methods for name in shipped_methods())
    tasks = typed("tasks").out
    assert max(map(len, tasks.splitlines()[:-1])) <= width
    assert all(f" {word}" in tasks for task in TASKS.values() for word in (task.name, task.select))
    tasks = typed("tasks").out
    assert len(TASKS) == 10
    assert all(name in tasks for name in TASKS)


def test_a_command_leaves_the_other_processes_before_it_ends(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    monkeypatch.setattr("gradistill.training.distributed.leave_process_group", lambda: left.append(True))
    typed("tasks")
    typed("explain", "--model", "nowhere", "a text")
    assert left == [True, True]


def test_distil_and_explain(small: Any, tmp_path: Path, typed: Type) -> None:
    common = ("--teacher", small.teachers["two"], "--data", folder_of(small), "--epochs", 1, "--seed", 5)
    printed = typed("distill", *common, "--layer-map", "1,3", "--student-layers", 2, "--output", tmp_path / "student",
                 "--set", "objectives.coalition_matching.weight=3")  # fmt: skip
    assert printed.code == 0, printed.err
    for expected in ("text: text", "label: label", f"{DEFAULT_METHOD} on ", "seed 5", "saliency", "95 % CI"):
        assert expected in printed.out
    recipe = load_recipe(file=tmp_path / "student" / "recipe.yaml")
    assert (recipe.method, recipe.training.seed, recipe.student.layer_map) == (DEFAULT_METHOD, 5, (1, 3))
    assert recipe.objectives["coalition_matching"].weight == 3
    again = typed(
        "distill", *common[:4], "--recipe", tmp_path / "student" / "recipe.yaml", "--output", tmp_path / "b"
    )
    assert again.code == 0, again.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("student", "b")]
    assert weights[0] == weights[1]
    shown = typed("explain", "--model", tmp_path / "student", "the film was great .", "--json").out
    assert "Strongest words" in shown
    assert "Completeness" in shown
    explained = json.loads(shown.splitlines()[-1])
    assert [word["text"] for word in explained["words"]] == ["the", "film", "was", "great", "."]


def bad_csv(at: Path) -> Path:
    at.mkdir()
    (at / "train.csv").write_text("text,label\nfine,positive\npoor,\npoor,negative\n", encoding="utf-8")
    (at / "validation.csv").write_text("text,label\nfine,positive\npoor,negative\n", encoding="utf-8")
    return at


def distilling(**given: object) -> Callable[[Any, Path], list[object]]:
    """The arguments of a distillation that would work, but for what is given."""

    def arguments(small: Any, tmp_path: Path) -> list[object]:
        usual: dict[str, object] = {
            "teacher": small.teachers["two"], "data": folder_of(small), "output": tmp_path / "out", "epochs": 1,
        }  # fmt: skip
        for key, value in given.items():
            usual[key] = value(small, tmp_path) if callable(value) else value
        return [
            "distill",
            *(x for key, value in usual.items() for x in (f"--{key.replace('_', '-')}", value)),
        ]

    return arguments


def recipe_file(text: str) -> Callable[[Any, Path], Path]:
    def written(_small: Any, tmp_path: Path) -> Path:
        (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "r.yaml"

    return written


WRONG: dict[str, tuple[Callable[[Any, Path], list[object]], tuple[str, ...]]] = {
    "no data": (distilling(data="./nowhere"), ("nowhere",)),
    "bad rows": (distilling(data=lambda s, t: bad_csv(t / "bad")), ("train.csv, row 3, column 'label'",)),
    "no task": (distilling(task="sst3"), ("sst3", "did you mean 'sst2'")),
    "no method": (distilling(method="akd"), ("there is no method 'akd'", "did you mean 'adkd'")),
    "no key": (distilling(set="training.epoch=3"), ("unknown key 'training.epoch'", "did you mean 'epochs'")),
    "no value": (distilling(set="training.epochs"), ("key.key=value",)),
    "no recipe": (distilling(recipe=recipe_file("method: [")), ("r.yaml is not valid YAML",)),
    "two methods": (distilling(method="kd", recipe=recipe_file("base: adkd")), ("leave --method out",)),
    "no teacher": (distilling(teacher="./gone"), ("there is no model folder ./gone",)),
    "no head": (distilling(teacher=lambda s, t: s.base), ("lacks weights", "gradistill finetune")),
    "no settings": (distilling(settings="mine"), ("authors or default",)),
    "no layers": (distilling(layer_map="1,9", student_layers=2), ("9",)),
    "no argument": (distilling(set="training.arguments.bf61=true"), ("did you mean 'bf16'",)),
    "other labels": (
        distilling(data=lambda s, t: folder_of(s, "three")),
        ("2 outputs (negative, positive)",),
    ),
    "no baseline": (
        lambda s, t: ["explain", "--model", s.teachers["two"], "--baseline", "one", "fine"],
        ("padding, mask or zero",),
    ),
    "no label": (
        lambda s, t: ["explain", "--model", s.teachers["two"], "--label", "maybe", "fine"],
        ("no label 'maybe'", "negative, positive"),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_bad_input_gets_one_message_and_exit_code_2(
    what: str, small: Any, tmp_path: Path, typed: Type
) -> None:
    arguments, expected = WRONG[what]
    printed = typed(*arguments(small, tmp_path))
    assert printed.code == 2, printed.out + printed.err
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    for part in expected:
        assert part in printed.err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_markup_and_control_characters_in_names_are_printed_not_obeyed(typed: Type) -> None:
    printed = typed("explain", "--model", "./[bold]x\x1b[31m", "fine")
    assert printed.code == 2
    assert "[bold]x" in printed.err
    assert "\x1b" not in printed.err


def test_an_interrupt_shows_how_to_go_on(
    small: Any, tmp_path: Path, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "distill", raising(KeyboardInterrupt()))
    printed = typed(*distilling()(small, tmp_path))
    assert printed.code == 130
    assert "The same command goes on" in printed.err


def test_sigterm_ends_a_command_with_a_message(
    small: Any, tmp_path: Path, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(distill, "distill", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    try:
        printed = typed(*distilling()(small, tmp_path))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert printed.code == 143
    assert "ended by SIGTERM. The same command goes on from what was saved." in printed.err


def test_an_interrupted_audit_begins_anew(
    small: Any, tmp_path: Path, typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "audit", raising(KeyboardInterrupt()))
    teacher, output = small.teachers["two"], tmp_path / "out"
    printed = typed(
        "audit", "--teacher", teacher, "--student", teacher, "--data", folder_of(small), "--output", output
    )
    assert printed.code == 130
    assert "stopped. The same command begins anew." in printed.err


@pytest.mark.parametrize("name", ["shapley", "smoothgrad", "integrated_gradients"])
def test_the_seed_is_that_of_every_drawn_attribution(name: str) -> None:
    assert AuditOptions(attribution=name, seed=5).choice().method.seed == 5  # pyright: ignore


@given(change=st.text(max_size=40), columns=st.none() | st.text(max_size=20))
@settings(max_examples=100)
def test_no_text_behind_an_option_is_a_traceback(change: str, columns: str | None) -> None:
    try:
        RecipeOptions(change=[change]).load("adkd")
    except GradistillError as error:
        assert str(error)
    FinetuningData(data="data", text_columns=columns).choice()


def test_signals_are_written_shown_used_listed_and_deleted(small: Any, typed: Type, tmp_path: Path) -> None:
    teacher, data, at = small.teachers["two"], folder_of(small), tmp_path / "stores/one"
    chosen = ("--teacher", teacher, "--data", data, "--method", "gkd")
    built = typed("signals", *chosen, "--output", at, "--encoding", "float16")
    assert built.code == 0, built.err
    assert "InputGradient/log_odds/own" in built.out
    assert "rows: 20" in typed("signals", "show", at).out
    used = typed("distill", *chosen, "--epochs", 1, "--signals", at, "--output", tmp_path / "run")
    assert used.code == 0, used.err
    assert f"teacher signals: from {at}" in used.out
    idle = typed("signals", "list", tmp_path / "stores", "--data", "rows", "--repair")
    assert idle.code == 2
    assert "--data was given with gradistill signals list, which writes no store" in idle.err
    listed = typed("signals", "list", tmp_path / "stores")
    assert "one" in listed.out
    assert "gkd" in listed.out
    assert typed("signals", "delete", at, "--yes").code == 0
    assert not at.exists()
    assert "no stores in" in typed("signals", "list", tmp_path / "stores").out


def test_signals_report_what_is_missing_or_wrong(small: Any, typed: Type, tmp_path: Path) -> None:
    teacher, data = small.teachers["two"], folder_of(small)
    for arguments, message in (
        ((), "needs --data"),
        (("--data", data), "needs --teacher"),
        (("--teacher", teacher, "--data", data, "--method", "kd", "--encoding", "int4"), "--encoding 'int4'"),
        (("show", tmp_path), "holds no manifest.json"),
        (("delete", tmp_path), "is no store of teacher signals"),
    ):
        ended = typed("signals", *arguments)
        assert ended.code == 2
        assert message in ended.err
        assert "method:" not in ended.err


def test_a_search_ends_with_a_command_that_can_be_typed() -> None:
    choice = FinetuningData(
        data="my data", task="sst2", label_column="gold", text_columns="a,b", validation_share=0.1
    ).choice()
    typed = shlex.split(next_command("runs/teacher", choice, Path("runs/tune")))
    assert typed == [
        "gradistill", "distill", "--teacher", "runs/teacher", "--data", "my data", "--task", "sst2",
        "--label-column", "gold", "--text-columns", "a,b", "--validation-share", "0.1",
        "--recipe", "runs/tune/best.yaml", "--output", "runs/tune/student",
    ]  # fmt: skip


def test_fields_of_a_search_that_end_alike_keep_columns_of_their_own() -> None:
    weights = {f"objectives.{name}.weight": k for k, name in enumerate(("soft_label", "attribution_map"))}
    row = trial_row(
        {"objective": 0.5, "saliency_loyalty": 0.25, "values": {**weights, "training.learning_rate": 1e-4}}
    )
    assert row == {
        "objective": 0.5, "saliency": 0.25, "soft_label.weight": "0", "attribution_map.weight": "1",
        "learning_rate": "0.0001",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "reason"),
    {
        "by its number": (OSError(errno.EIO, "Input/output error", "a/file"), "a/file: Input/output error"),
        "rust": (Exception("I/O error (os error 28)"), "No space left on device"),
        "torch": (RuntimeError("basic_ios::clear: iostream error"), "torch could not write a file"),
    }.values(),
)
def test_a_disk_that_fails_anywhere_is_one_message(
    error: Exception, reason: str, typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradistill.commands.finetune.finetune", raising(error))
    printed = typed("finetune", "--model", "m", "--data", "d", "--output", tmp_path)
    assert printed.code == 2
    assert f"{reason}\n" in printed.err
    assert "give the same command again" in printed.err
    monkeypatch.setattr(
        "gradistill.commands.finetune.finetune", raising(OSError(errno.ENOTTY, "a bug of ours"))
    )
    with pytest.raises(OSError, match="a bug of ours"):
        typed("finetune", "--model", "m", "--data", "d", "--output", tmp_path)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nMore."), MemoryError()])
def test_a_memory_that_is_too_small_is_one_message(
    error: Exception, typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradistill.commands.finetune.finetune", raising(error))
    printed = typed("finetune", "--model", "m", "--data", "d", "--output", tmp_path)
    assert printed.code == 2
    assert printed.err.startswith("error: the memory is too small: ")
    assert "More." not in printed.err


@pytest.mark.parametrize(
    "command", ["finetune", "distill", "pretrain", "signals", "audit", "tune", "bench", "demo"]
)
def test_an_empty_output_is_not_the_current_folder(
    command: str, typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--output "$RUN"`` with a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    printed = typed(command, "--teacher", "t", "--data", "d", "--output", "")
    assert printed.code == 2
    assert list(tmp_path.iterdir()) == []
    printed = typed("bench", "--output", "", "b.yaml")
    assert "it is empty; name a folder, or . for this one" in printed.err
