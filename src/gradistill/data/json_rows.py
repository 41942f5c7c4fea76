"""JSON as columns: one object a line, a list of objects, or dictionaries in memory."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from gradistill.data.cells import joined, numbers, piecewise
from gradistill.data.table import Table, duplicates, no_rows
from gradistill.errors import Problem

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_A_LIST = "expected a list of objects, or one object a line"


def read_jsonl(file: str, text: str) -> Table:
    """One JSON object a line; blank lines are skipped."""
    lines, problems = array("q"), list[Problem]()
    # str.splitlines would also split at U+2028, which JSON allows inside a text.
    numbered = filled_lines(match[0] for match in _LINE.finditer(text))

    def rows() -> Iterator[Mapping[str, Any]]:
        for line, content in numbered:
            if (row := row_of_line(file, line, content, problems)) is not None:
                lines.append(line)
                yield row

    return rows_table(file, rows(), lines, problems)


def filled_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1 and without their ends."""
    numbered = ((number, line.removesuffix("\n")) for number, line in enumerate(lines, start=1))
    return ((number, line) for number, line in numbered if line.strip())


def row_of_line(file: str, line: int, content: str, problems: list[Problem]) -> dict[str, Any] | None:
    """The JSON object in a line; None for anything else, which is added to the problems."""
    try:
        return parsed_object(content)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(file, f"{error}; expected one JSON object a line", line))
        return None


def parsed_object(content: str) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError for anything else, RecursionError for one nested too deep."""
    return _object(_parsed(content), checked="\\u" in content)


def read_json(file: str, text: str) -> Table:
    """A list of JSON objects, or one object a line."""
    start = text.lstrip()[:1]
    if start == "[":
        return _list_table(file, text)
    table = read_jsonl(file, text)
    if start == "{" and (len(table.lines) < 2 or table.problems) and (what := _of_one_object(text)):
        return Table(file, problems=(Problem(file, what),))
    return table


def rows_table(
    file: str, rows: Iterable[Mapping[str, Any]], lines: array[int], problems: Sequence[Problem] = ()
) -> Table:
    """Objects as columns; a key that a row lacks is None there.

    Reading ``rows`` may add to ``lines`` and ``problems``.
    """
    pieces = (
        {name: [row.get(name) for row in piece] for name in dict.fromkeys(chain.from_iterable(piece))}
        for piece in piecewise(rows)
    )
    columns = joined(pieces)
    return Table(file, columns, numbers(lines), (*problems, *no_rows(file, lines, problems)))


def _list_table(file: str, text: str) -> Table:
    try:
        values = _parsed(text)
    except (ValueError, RecursionError) as error:
        return Table(file, problems=(Problem(file, f"{error}; {_A_LIST}", getattr(error, "line", None)),))
    rows: list[Mapping[str, Any]] = []
    lines, problems = array("q"), []
    for number, value in enumerate(values, start=1):
        try:
            rows.append(_object(value, checked="\\u" in text))
            lines.append(number)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(file, f"{error}; {_A_LIST}", number))
    return rows_table(file, rows, lines, problems)


def _of_one_object(text: str) -> str:
    """The advice for a file that is one JSON object and not a row; an empty string for other files."""
    try:
        whole = _parsed(text)
    except (ValueError, RecursionError):
        return ""
    lists = [name for name, value in whole.items() if isinstance(value, list) and _are_rows(value)]
    if lists:
        return f"one JSON object, whose key {lists[0]!r} holds the rows; save that list alone"
    if "\n" in text.strip() or (whole and all(isinstance(value, dict | list) for value in whole.values())):
        return f"one JSON object; {_A_LIST} (pandas: to_json(orient='records'))"
    return ""


def _are_rows(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


class _InvalidJSON(ValueError):
    def __init__(self, error: json.JSONDecodeError) -> None:
        super().__init__(f"invalid JSON at character {error.colno} ({error.msg})")
        self.line = error.lineno


def _parsed(content: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise _InvalidJSON(error) from None


def _object(value: Any, *, checked: bool) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, not an object")
    if not value:
        raise ValueError("an object without keys")
    if checked and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: half of a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if twice := duplicates([name for name, _ in pairs]):
        raise ValueError(f"a key occurs twice: {twice}")
    return dict(pairs)
