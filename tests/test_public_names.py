"""The public face: every name loads, is documented, and a user's code type-checks and runs."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import gradistill
from user_code import errors, recipes_and_commands, trainer


@pytest.mark.parametrize("name", gradistill.__all__)
def test_a_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(gradistill, name)
    if name != "TASKS":
        assert len(inspect.getdoc(value) or "") > 40, name


@pytest.mark.parametrize("name", gradistill.__all__)
def test_no_subpackage_has_the_name_of_a_public_function(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module(f"gradistill.{name}")


@pytest.mark.slow
def test_a_users_code_runs(small: Any, tmp_path: Path) -> None:
    data, teacher = str(small.tables["two"]), str(small.teachers["two"])
    recipes_and_commands(data, teacher, str(tmp_path / "commands"))
    assert trainer(data, teacher, str(tmp_path / "trainer")).label is not None
    assert "methods" in errors() or errors()


@pytest.mark.parametrize(
    "name", [n for n in gradistill.__all__ if inspect.isfunction(getattr(gradistill, n))]
)
def test_every_parameter_of_a_public_function_is_documented(name: str) -> None:
    function = getattr(gradistill, name)
    text = inspect.getdoc(function) or ""
    missing = [
        p for p in inspect.signature(function).parameters if f"``{p}``" not in text and p not in ("how",)
    ]
    assert not missing, f"{name} documents no {', '.join(missing)}"
