"""The only reader of YAML: plain values, bounded size, depth and aliases, and no duplicate keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES, MAX_NODES, MAX_DEPTH = 64 << 10, 5_000, 40
"""Limits far above the needs of a recipe or a bench file; such a file is read within a second."""


class YamlError(ValueError):
    """The error for a text that is no YAML, or exceeds the limits. The message ends with the line, if known."""


def load_yaml(content: str | bytes) -> Any:
    """The value of a YAML text.

    Raises YamlError for more than ``MAX_BYTES``, ``MAX_NODES`` (an alias counts as many nodes as its content) or
    ``MAX_DEPTH``, for an alias inside its own content, for a duplicate key in a mapping, for tags of objects, and for
    anything that is not YAML. Raises UnicodeDecodeError for bytes that are not UTF-8.
    """
    size = len(content) if isinstance(content, bytes) else len(content.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise YamlError(f"it has more than {MAX_BYTES:,} bytes")
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    loader: Any = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except YamlError:
        raise
    except RecursionError as error:
        raise YamlError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", in line {mark.line + 1}" if mark else ""
        raise YamlError(f"{error.problem or error.context}{place}") from error
    except (
        Exception
    ) as error:  # PyYAML passes on errors of constructors, such as for "2001-02-30" or "!!int ''"
        raise YamlError(" ".join(str(error).split())) from error
    finally:
        if loader is not None:
            loader.dispose()


def yaml_lines(content: str) -> dict[tuple[str | int, ...], int]:
    """The line, counted from 1, of each key and list entry of a text that ``load_yaml`` reads, by its path.

    Example: ``yaml_lines("a: {b: 1}")[("a", "b")] == 1``
    """
    loader: Any = _Loader(content)
    try:
        found: dict[tuple[str | int, ...], int] = {}
        _note_lines(loader.get_single_node(), (), found)
        return found
    finally:
        loader.dispose()


def _note_lines(node: Any, path: tuple[str | int, ...], found: dict[tuple[str | int, ...], int]) -> None:
    if isinstance(node, yaml.MappingNode):
        inside = [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        inside = [(place, part, part) for place, part in enumerate(node.value)]
    else:
        return
    for name, mark, value in inside:
        found[*path, name] = mark.start_mark.line + 1
        _note_lines(value, (*path, name), found)


def read_yaml(file: Path) -> Any:
    """The value of a YAML file. At most ``MAX_BYTES`` are read. Raises YamlError and OSError."""
    if file.exists() and not file.is_file() and not file.is_dir():
        raise YamlError("it is not a regular file")  # opening a pipe without a writer would wait forever
    with file.open("rb") as stream:
        return load_yaml(stream.read(MAX_BYTES + 1))


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.nodes = 0
        self.size_of: dict[int, int] = {}
        """The number of nodes in an anchored node, by the node's id."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        before, line = self.nodes, event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            node: Any = super().compose_node(parent, index)
            if id(node) not in self.size_of:
                raise YamlError(f"the alias *{event.anchor} is used inside its own content, in line {line}")
            self.nodes += self.size_of[id(node)]
        else:
            self.depth += 1
            self.nodes += 1
            if self.depth > MAX_DEPTH:
                raise YamlError(f"it is nested more than {MAX_DEPTH} deep, in line {line}")
            node = super().compose_node(parent, index)
            self.depth -= 1
            self.size_of[id(node)] = self.nodes - before
        if self.nodes > MAX_NODES:
            raise YamlError(f"it holds more than {MAX_NODES:,} values, in line {line}")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: Any = super().compose_mapping_node(anchor)
        _refuse_twice(node)
        return node


def _refuse_twice(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if (key.tag, key.value) in lines:
            first = lines[key.tag, key.value]
            raise YamlError(f"the key {key.value!r} is used twice, in line {first} and in line {line}")
        lines[key.tag, key.value] = line
