"""Groups of options: Typer sees the fields of a dataclass, the command gets the dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from gradistill.cli.option_groups import with_option_groups


@dataclass(frozen=True, kw_only=True)
class Shared:
    rate: Annotated[float, typer.Option("--rate", help="How fast.")] = 0.5


@dataclass(frozen=True, kw_only=True)
class Wider(Shared):
    names: Annotated[list[str] | None, typer.Option("--name")] = None
    folder: Annotated[Path, typer.Option("--folder")]


@dataclass(frozen=True, kw_only=True)
class Other:
    action: Annotated[str | None, typer.Argument()] = None


def app_of(command: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(with_option_groups(command))
    return app


def test_a_command_gets_its_groups_from_the_options(tmp_path: Path) -> None:
    got: list[Any] = []

    def command(group: Wider, other: Other, seed: Annotated[int, typer.Option("--seed")] = 3) -> None:
        """Do it."""
        got.append((group, other, seed))

    app = app_of(command)
    typed = ["show", "--folder", str(tmp_path), "--name", "a", "--name", "b", "--seed", "4"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    assert CliRunner().invoke(app, ["--folder", str(tmp_path), "--rate", "2"]).exit_code == 0
    assert got == [
        (Wider(folder=tmp_path, names=["a", "b"]), Other(action="show"), 4),
        (Wider(folder=tmp_path, rate=2.0), Other(), 3),
    ]
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    assert "Do it." in shown
    assert "How fast." in shown
    assert shown.index("--folder") < shown.index("--rate"), "what must be given comes first"
    assert CliRunner().invoke(app, []).exit_code == 2


def test_two_groups_with_a_field_of_one_name_are_refused() -> None:
    def command(one: Shared, two: Wider) -> None: ...

    with pytest.raises(ValueError, match="rate"):
        with_option_groups(command)
