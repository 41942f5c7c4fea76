"""One place prints, and what it prints is text: no label, column, file name or error steers a terminal."""

from __future__ import annotations

import ast
import codecs
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

import gradistill
from gradistill import printing
from gradistill.errors import DataError
from hostile import HOSTILE
from small import write_table
from typed_command import exit_code

BAD = "\x1b]0;title\x07\x1b[2J\x08\r\x9b31m\u202e\u2066"
"""A title, a cleared screen, a bell, a backspace, a carriage return, C1, text turned round, an isolate."""
SOURCES = sorted(Path(gradistill.__file__).parent.rglob("*.py"))
PRINTERS = {
    "print",
    "echo",
    "secho",
    "confirm",
    "prompt",
    "Console",
    "Progress",
    "pprint",
    "get_console",
}


def steering(text: str) -> list[str]:
    """Characters that a terminal obeys, or that change the order of others."""
    return sorted(
        {
            repr(c)
            for c in text
            if c != "\n" and unicodedata.category(c) in ("Cc", "Cf") and c not in "\u200c\u200d"
        }
    )


def test_nothing_but_the_one_place_prints() -> None:
    found = []
    for path in SOURCES:
        if path.name == "printing.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and (
                getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            )
            stream = (
                isinstance(node, ast.Attribute)
                and node.attr in ("stdout", "stderr")
                and getattr(node.value, "id", 0) == "sys"
            )
            default = isinstance(node, ast.Name) and node.id in ("print", "track")
            if called in PRINTERS or stream or default:
                found.append(f"{path}:{node.lineno}")
    assert not found


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory(), raising=False)
    factory, formatting, hook = logging.getLogRecordFactory(), warnings.formatwarning, sys.excepthook

    def run(*arguments: object) -> tuple[int, str]:
        code = exit_code(monkeypatch, arguments)
        out, err = capfd.readouterr()
        return code, out + err

    yield run
    logging.setLogRecordFactory(factory)
    warnings.formatwarning, sys.excepthook = formatting, hook


@pytest.fixture(scope="module")
def hostile_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, columns and a folder with control characters in their names."""
    folder = tmp_path_factory.mktemp("data") / f"fold{BAD}er"
    for split, count in (("train", 20), ("validation", 10)):
        rows = [
            {
                f"te{BAD}xt": f"the film was {'very ' * (k % 7)}{('fine', 'awful')[k % 2]} .",
                f"la{BAD}bel": f"{'ab'[k % 2]}{BAD}x",
            }
            for k in range(count)
        ]
        write_table(folder / f"{split}.csv", rows)
    return folder


@pytest.mark.slow
def test_every_command_shows_hostile_names_as_text(
    small: Any, hostile_data: Path, tmp_path: Path, typed: Any
) -> None:
    """Names as they come out of a CSV file: its reader trims blanks, and nothing else."""
    columns = ("--label-column", f"la{BAD}bel", "--text-columns", f"te{BAD}xt")
    data = ("--data", hostile_data, *columns)
    teacher, student = tmp_path / f"teach{BAD}er", tmp_path / f"stud{BAD}ent"
    store, audited, no = tmp_path / f"st{BAD}ore", tmp_path / f"a{BAD}", tmp_path / "no"
    few = ("--faithfulness-rows", 0, "--perturbed-rows", 2, "--examples", 2)
    bench = tmp_path / "bench.yaml"
    turned = "ta\x9b31m\u202e\u2066sk"  # a bench refuses the other controls
    plan = {"tasks": {turned: {}}, "methods": {"kd": {}}, "data": str(hostile_data)}
    bench.write_text(json.dumps(plan), encoding="utf-8")
    commands: dict[str, tuple[tuple[object, ...], int]] = {
        "finetune": (("finetune", "--model", small.base, *data, "--epochs", 1, "--output", teacher), 0),
        "distill": (("distill", "--teacher", teacher, *data, "--epochs", 1, "--method", "kd", "--output", student), 0),
        "signals": (("signals", "--teacher", teacher, *data, "--method", "kd", "--output", store), 0),
        "show": (("signals", "show", store), 0),
        "list": (("signals", "list", tmp_path), 0),
        "delete": (("signals", "delete", store, "--yes"), 0),
        "audit": (("audit", "--teacher", teacher, "--student", student, *data, *few, "--output", audited), 0),
        "explain": (("explain", "--model", teacher, f"the film{BAD} was fine ."), 0),
        "no label": (("explain", "--model", teacher, "--label", f"no{BAD}ne", "fine"), 2),
        "bench": (("bench", bench, "--output", tmp_path / f"be{BAD}nch"), 1),
        "asked": (("finetune", "--model", small.base, "--data", hostile_data, "--output", no), 2),
        "other": (("distill", "--teacher", small.teachers["two"], *data, "--output", no), 2),
        "no model": (("audit", "--teacher", f"./no{BAD}", "--student", student, *data, "--output", no), 2),
        "no option": (("distill", f"--no{BAD}"), 2),
        "no number": (("distill", "--epochs", f"1{BAD}"), 2),
        "no command": ((f"dis{BAD}till",), 2),
        "no task": (("finetune", "--model", small.base, *data, "--task", f"ss{BAD}t2", "--output", no), 2),
        "no recipe": (("distill", "--teacher", teacher, *data, "--recipe", f"{BAD}.yaml", "--output", no), 2),
        "no change": (("distill", "--teacher", teacher, *data, "--set", f"a{BAD}=1", "--output", no), 2),
        "no pairs": (("distill", "--teacher", teacher, *data, "--label-map", f"a{BAD}", "--output", no), 2),
        "no positive": (("finetune", "--model", small.base, *data, "--positive", BAD, "--output", no), 2),
    }  # fmt: skip
    for name, (arguments, code) in commands.items():
        ended, printed = typed(*arguments)
        assert ended == code, f"{name}: {printed}"
        assert not steering(printed), f"{name}: {printed!r}"
        assert "Traceback" not in printed, name
    for page in ("README.md", "metrics.json"):
        assert not steering((student / page).read_text(encoding="utf-8")), page
    for page in ("audit.md", "audit.json"):
        assert not steering((audited / page).read_text(encoding="utf-8")), page


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_is_written_is_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    printing.write(text)
    printing.write(text, error=True)
    printing.show(Text(text), text.replace("[", "("))
    shown = capsys.readouterr()
    assert not steering(shown.out)
    assert not steering(shown.err)


def test_log_lines_warnings_and_tracebacks_are_text(
    typed: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ValueError(BAD)

    monkeypatch.setattr("gradistill.commands.finetune.finetune", failing)
    with pytest.raises(ValueError, match="title"):
        typed("finetune", "--model", "m", "--data", "d", "--output", tmp_path)
    logging.getLogger("of somebody").warning("file %s", BAD)
    assert not steering(warnings.formatwarning(BAD, UserWarning, BAD, 1))
    record = logging.getLogRecordFactory()("n", logging.WARNING, "p", 1, "file %s", (BAD,), None)
    assert "\\x1b]0;title" in record.getMessage()
    assert not steering(record.getMessage())
    try:
        raise ValueError(BAD)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    shown = capfd.readouterr()
    assert "ValueError: \\x1b]0;title" in shown.err
    assert not steering(shown.out + shown.err)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_stream_that_cannot_show_a_character_gets_another(
    encoding: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding=encoding))
    printing.write(f"a – b × c … {text}")
    printing.show(Text(f"ρ = 0.5 {text}"))
    sys.stdout.flush()
    shown = codecs.decode(raw.getvalue(), encoding)
    if encoding == "ascii":
        assert shown.startswith("a - b x c ... ")
        assert "rho = 0.5" in shown


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.text("ab –", min_size=1, max_size=30), max_size=12), st.integers(5, 60))
def test_a_terminal_gets_lines_that_end_between_words(words: list[str], columns: int) -> None:
    text = "train: " + " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        terminal, pipe = _Terminal(), StringIO()
        patch.setenv("COLUMNS", str(columns))
        patch.setattr(sys, "stdout", terminal)
        printing.write(text)
        patch.setattr(sys, "stdout", pipe)
        printing.write(text)
    lines = terminal.getvalue().rstrip("\n").split("\n")
    assert pipe.getvalue() == text + "\n"
    assert " ".join(lines).split() == text.split()
    assert all(len(line) <= columns or len(line.split()) == 1 for line in lines)


def test_what_is_copied_is_never_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    command = "gradistill finetune --model minilm-l6"
    printing.write(DataError("no column has this name", remedy=command), error=True)
    printing.write(command, error=True, fold=False)
    assert terminal.getvalue() == f"no column has this\n  name\nTo do: {command}\n{command}\n"


@pytest.mark.slow
def test_commands_run_in_an_ascii_terminal(small: Any, tmp_path: Path) -> None:
    """In a process of its own, as C locales and old Windows consoles start them."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    environment["PYTHONPATH"] = str(Path(gradistill.__file__).parents[1])
    data = ("--data", str(small.tables["two"]), "--label-column", "label", "--text-columns", "text")
    teacher = str(small.teachers["two"])
    commands = (
        ("methods",),
        ("explain", "--model", teacher, "the film – was fine … 日本語 ."),
        ("explain", "--model", "./größe日本", "fine"),
        ("audit", "--teacher", teacher, "--student", teacher, *data, "--output", str(tmp_path / "audit"),
         "--faithfulness-rows", "0", "--perturbed-rows", "2", "--response-rows", "0", "--shapley-rows", "0",
         "--expected-gradients-rows", "0",
         "--floor-rows", "0", "--max-rows", "4"),
    )  # fmt: skip
    program = f"""
import sys
from gradistill.cli import main
for arguments in {commands!a}:
    sys.argv = ["gradistill", *arguments]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    print("ended with", code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
    shown = (done.stdout + done.stderr).decode("ascii")
    assert re.findall(r"ended with (\d)", shown) == ["0", "0", "2", "0"], shown
    assert not re.search("UnicodeEncodeError|Traceback", shown)
