"""The plan of the package: imports point to the left, names are unique, importing does nothing."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import gradistill
from gradistill.auditing.predicted_labels import macro_f1
from gradistill.auditing.response import effect_agreement

HOUSE = Path(gradistill.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
PACKAGES = (
    "batch", "core_times", "errors", "io", "package_versions", "printing", "data", "models", "attribution", "signals",
    "objectives", "recipe", "store", "training", "auditing", "report", "export", "commands", "bench", "demo", "cli",
)  # fmt: skip


SPEECH = re.compile(
    r"\b(says?|said|saying|tells|told|hears?|heard|speaks?|spoke|spoken|remembers?|remembered)\b", re.I
)
APART = re.compile(r"\b(?:tell|tells|told)\b[^.;:]*?\b(?:apart|from)\b", re.S)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def package_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every import from this package, lazy ones inside functions included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            whole = node.module == "gradistill"
            yield from (
                (node.lineno, f"gradistill.{a.name}" if whole else str(node.module)) for a in node.names
            )


@pytest.mark.parametrize(
    "path", [path for path in FILES if package_of(path) not in {"__init__", "__main__"}], ids=str
)
def test_imports_point_to_the_left(path: Path) -> None:
    package = package_of(path)
    assert package in PACKAGES, f"{path} stands in no package of the plan"
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] == "gradistill" and len(parts) > 1 and parts[1] in PACKAGES:
            assert PACKAGES.index(parts[1]) <= PACKAGES.index(package), f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_documents_that_the_source_names_exist(path: Path) -> None:
    root = Path(__file__).parents[1]
    named = set(re.findall(r"\b(?:docs/)?[A-Za-z_]+\.md\b(?!\.j2)", path.read_text(encoding="utf-8")))
    written = {"README.md", "audit.md", "bench.md"}  # of a run folder, an audit and a bench
    missing = [n for n in named - written if not (root / n).is_file() and not (root / "docs" / n).is_file()]
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=str)
def test_models_and_programs_compute_and_do_not_speak(path: Path) -> None:
    """DESIGN.md 6, of comments, texts and names. Reviews of the demo are by people, and two things are told apart."""
    if path.name == "grammar.py":
        return
    text = APART.sub("", path.read_text(encoding="utf-8").replace("As I said", "").replace("_", " "))
    found = SPEECH.findall(text)
    assert not found, f"{path}: {found}"


def printed(program: str) -> dict:
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_is_quick_and_lazy() -> None:
    program = (
        "import json, sys, time; import torch; began = time.perf_counter(); import gradistill; "
        "took = time.perf_counter() - began; "
        "print(json.dumps({'took': took, 'heavy': [m for m in ('transformers', 'datasets') if m in sys.modules]}))"
    )
    runs = [printed(program) for _ in range(2)]
    assert runs[0]["heavy"] == []
    assert min(run["took"] for run in runs) < 0.3  # seconds beyond torch's own


def test_a_job_of_a_cluster_waits_for_its_command_without_torch() -> None:
    program = "import json, sys; import gradistill.bench.cluster; print(json.dumps('torch' in sys.modules))"
    assert printed(program) is False


def test_importing_opens_no_socket_and_sets_no_variable() -> None:
    program = """
import json, os, socket
before, opened = dict(os.environ), []
class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        opened.append(repr(args))
        super().__init__(*args, **kwargs)
socket.socket = Refused
import gradistill
print(json.dumps({"opened": opened, "changed": sorted(dict(os.environ).items() ^ before.items())}))
"""
    assert printed(program) == {"opened": [], "changed": []}


@pytest.mark.slow
def test_modules_need_no_network_and_nothing_that_only_unix_has() -> None:
    """Every module is imported with an eye on sockets, and where ``fcntl`` and ``resource`` do not exist, as on
    Windows. The libraries are imported before that: they look at the system themselves."""
    program = """
import importlib, json, pkgutil, sys
reached = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        reached.append([event, repr(args)])
sys.addaudithook(watch)
import accelerate, datasets, filelock, matplotlib.figure, optuna, psutil, rich.progress, scipy.stats
import sklearn.metrics, torch, transformers.trainer, typer
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import gradistill
for module in pkgutil.walk_packages(gradistill.__path__, "gradistill."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
loaded = sum(name.startswith("gradistill.") for name in sys.modules)
print(json.dumps({"reached": reached, "all": loaded > 100}))
"""
    assert printed(program) == {"reached": [], "all": True}


def test_shapes_are_checked_while_tests_run() -> None:
    """conftest.py puts its own decorator in the place of jaxtyping's. The second has shapes by another name alone."""
    with pytest.raises(TypeCheckError):
        effect_agreement(np.zeros(3), np.zeros(3))  # a row of copies each, where rows belong
    with pytest.raises(TypeCheckError):
        macro_f1(np.zeros(3), np.zeros(3))


def test_no_two_files_have_the_same_name() -> None:
    """A reader who looks for a file by its name finds one."""
    names = [path.name for path in FILES if path.name not in ("__init__.py", "base.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_nothing_underscored_is_imported_from_another_module() -> None:
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gradistill"):
                private = [a.name for a in node.names if re.match("_[a-z]", a.name)]
                assert not private, f"{path}:{node.lineno} imports {private}"
                assert not re.search(r"\._[a-z]", str(node.module)), (
                    f"{path}:{node.lineno} imports {node.module}"
                )


def test_every_objective_is_exported() -> None:
    """A file of ``objectives`` that the package does not list could be named by no recipe."""
    from gradistill import objectives
    from gradistill.objectives.base import Objective

    for path in (HOUSE / "objectives").glob("*.py"):
        module = (
            importlib.import_module(f"gradistill.objectives.{path.stem}")
            if path.stem != "__init__"
            else objectives
        )
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Objective) and kind.__module__ == module.__name__:
                assert kind is Objective or getattr(objectives, name) in objectives.all_objectives().values()


@pytest.mark.parametrize(
    "script", sorted(Path(__file__).parents[1].glob("benchmarks/*.py")), ids=lambda p: p.name
)
def test_a_benchmark_imports_names_that_exist(script: Path) -> None:
    """No test runs them: two imported a class for weeks after it was renamed."""
    for node in ast.walk(tree(script)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gradistill"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
