"""What the documents say is what the code has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import gradistill
from doc_commands import NEEDS, PAGES, ROOT, Block, blocks, inline_commands
from gradistill import objectives
from gradistill.objectives import Term, all_objectives
from gradistill.recipe import shipped_methods
from prose import faults

LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
BLOCKS = [
    pytest.param(block, id=f"{block.page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
]


@pytest.mark.parametrize("name", all_objectives())
def test_the_fields_of_an_objective_stand_in_the_docs(name: str) -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    section = text.split(f"### `{name}`", 1)[1].split("###", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \|$", section, re.MULTILINE)
    fields = all_objectives()[name].__pydantic_fields__
    assert rows == [
        (field, str(list(i.default) if isinstance(i.default, tuple) else i.default), i.description)
        for field, i in fields.items()
    ]


def test_the_keys_beside_those_fields_stand_in_the_docs() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Term):
        if field.name != "objective":
            assert f"| `{field.name}` | `{field.default.default}` | {field.default.description} |" in text


@pytest.mark.parametrize("method", shipped_methods())
def test_every_method_is_named_in_the_readme(method: str) -> None:
    assert f"`{method}`" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_and_benchmarks_exist(page: Path) -> None:
    named = re.findall(r"(?:tests|benchmarks)/[\w/]+\.(?:py|sh)(?:::\w+)?", page.read_text(encoding="utf-8"))
    for name in named:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert f"def {function}" in (ROOT / file).read_text(encoding="utf-8") or not function, name


@pytest.mark.parametrize("block", BLOCKS)
def test_a_test_runs_each_command_or_its_needs_are_named(block: Block) -> None:
    """The tutorial runs as a whole (test_tutorial.py). A ``form`` shows which words a command takes."""
    verb, _, what = block.mark.partition(": ")
    if block.page.name != "tutorial_csv.md":
        assert block.mark, "put <!-- not run: real data --> or <!-- run by tests/… --> above the block"
    if verb.startswith("run by "):
        assert (ROOT / verb.removeprefix("run by ")).is_file()
    elif verb == "not run":
        assert what in NEEDS
    else:
        assert verb in ("form", "")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.values[0].mark != "form"])
def test_commands_have_the_options_that_the_docs_give_them(block: Block) -> None:
    for words in block.commands:
        if words[:2] == ["signals", "show"] or words[:1] == ["demo"]:
            continue
        _parse(words)


def _parse(words: list[str]) -> None:
    """Raises where there is no such command or option."""
    from typer.main import get_command

    from gradistill.cli.app import app

    command: Any = get_command(app)
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    from typer.main import get_command

    from gradistill.cli.app import app

    names: Any = get_command(app)
    for words in inline_commands(page):
        if words[0].startswith(("--", "…")):
            continue
        assert words[0] in names.commands, words
        known = {option for p in _with_subcommands(names.commands[words[0]]) for option in p.opts}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, words


def _with_subcommands(command: Any) -> list[Any]:
    below = getattr(command, "commands", {}).values()
    return [*command.params, *(p for each in below for p in each.params)]


def test_every_public_name_is_in_the_api_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    wanted = {f"gradistill.{name}" for name in gradistill.__all__}
    wanted |= {f"gradistill.objectives.{name}" for name in objectives.__all__ if name != "Term"}
    assert sorted(wanted - listed) == []
    assert sorted(listed - wanted) == []


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    pages += [f"notebooks/{page.stem}.md" for page in (ROOT / "docs" / "notebooks").glob("*.ipynb")]
    assert [page for page in pages if page not in text] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_prose_is_plain_english(page: Path) -> None:
    assert faults(page.read_text(encoding="utf-8")) == {"sentences": [], "lines": [], "words": []}
