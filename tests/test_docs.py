"""What the documents say is what the code has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from gradistill.objectives import Term, all_objectives
from gradistill.recipe import shipped_methods

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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
