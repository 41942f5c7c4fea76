"""One reader for all YAML: bounded, without keys that stand twice, and quick to refuse."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest
import yaml

from gradistill.bench.plan import read_plan
from gradistill.commands.search_space import parse_search_field
from gradistill.errors import RecipeError
from gradistill.recipe import load_recipe, shipped_methods
from gradistill.recipe.recipe_files import shipped
from gradistill.recipe.strict_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, YamlError, load_yaml, read_yaml


def nested_anchors() -> str:
    """442 bytes that stand for 9^9 values."""
    names = "abcdefghi"
    first = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    rest = (f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(names))
    return first + "".join(rest) + "base: kd\ntitle: *i\n"


BAD = {
    "nested anchors": (nested_anchors(), rf"more than {MAX_NODES:,} values, in line [45]"),
    "a mapping in itself": (
        "base: kd\ntraining: &t {arguments: *t}\n",
        r"the alias \*t is used inside .* in line 2",
    ),
    "a list in itself": ("base: kd\nx: &x\n- *x\n", r"the alias \*x is used inside .* in line 3"),
    "merged with itself": ("a: &a\n  <<: *a\n", r"the alias \*a is used inside .* in line 2"),
    "a key twice": ("base: kd\ntraining: {epochs: 1}\ntraining: {epochs: 3}\n",
                    r"the key 'training' is used twice, in line 2 and in line 3"),
    "a nested key twice": ("training:\n  epochs: 1\n  seed: 2\n  epochs: 3\n", r"'epochs' .* line 2 and in line 4"),
    "deep lists": ("x: " + "[" * 50_000, rf"nested more than {MAX_DEPTH} deep, in line 1"),
    "deep mappings": ("\n".join(" " * k + "x:" for k in range(300)), rf"than {MAX_DEPTH} deep, in line {MAX_DEPTH}"),
    "many values": ("x: [" + "1," * (MAX_NODES + 1) + "]", f"more than {MAX_NODES:,} values, in line 1"),
    "large": ("x: " + "a" * MAX_BYTES, f"more than {MAX_BYTES:,} bytes"),
    "an object": ("x: !!python/object:os.system {}", "could not determine a constructor .* in line 1"),
    "a half list": ("method: [kd", r"expected ',' or '\]'.* in line 1"),
    "a date that is none": ("when: 2001-02-30", "day is out of range"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_refused_within_a_second(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    file = tmp_path / "r.yaml"
    file.write_text(text, encoding="utf-8")
    for read in (read_plan, lambda at: load_recipe(file=at)):
        start = perf_counter()
        with pytest.raises(RecipeError, match=rf"(?s)r\.yaml is not valid YAML: .*{message}"):
            read(file)
        assert perf_counter() - start < 3  # a second on a machine with nothing else to do
    with pytest.raises(YamlError, match=message):
        load_yaml(text)


@pytest.mark.parametrize(
    "text", ["[1, 1]", "a: &a {b: 1}\nc: {<<: *a, b: 2}\n", "x: &x [1]\ny: [*x, *x]", "", "1: 2\n'1': 3"]
)
def test_what_is_good_is_read_as_pyyaml_reads_it(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml(text.encode()) == yaml.safe_load(text)


def test_a_mapping_that_is_merged_before_it_is_built_has_no_key_twice() -> None:
    text = "x: {<<: &a {<<: &b {k: 0}, k: 1}, j: 2}\ny: *a\n"
    assert load_yaml(text) == yaml.safe_load(text)


def test_all_that_is_shipped_is_within_the_bounds() -> None:
    for method in shipped_methods():
        assert shipped(method)


def test_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(YamlError, match="not a regular file"):
        read_yaml(tmp_path / "pipe")


@pytest.mark.parametrize("change", ["training.arguments={a: 1, a: 2}", "training.arguments=&t {x: *t}"])
def test_changes_are_read_so_too(change: str) -> None:
    with pytest.raises(RecipeError, match=r"the value is not valid YAML: "):
        load_recipe("kd", changes=[change])


def test_searched_values_are_read_so_too() -> None:
    with pytest.raises(RecipeError, match="--search"):
        parse_search_field("student.layers=[,1")
