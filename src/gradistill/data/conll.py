"""CoNLL files as columns: a word and its tag a line, a blank line between sentences."""

from __future__ import annotations

from array import array

from gradistill.data.json_rows import rows_table
from gradistill.data.span_metrics import OUTSIDE
from gradistill.data.table import Table
from gradistill.errors import Problem

_DOCUMENT = "-DOCSTART-"
"""The first field of a line that begins a document, in the files of CoNLL-2003."""


def read_conll(file: str, text: str) -> Table:
    """The columns ``tokens`` and ``tags``: lists of words and of their tags. The line of a row is its first line.

    The word is the first field of a line, its tag the last. Fields between them (parts of speech) are left out. Fields
    are separated by tabs where there are any, or else by blanks; other white space is part of a word.
    """
    rows: list[dict[str, list[str]]] = []
    lines = array("q")
    problems: list[Problem] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        parts = _fields(line)
        if not parts or parts[0] == _DOCUMENT:
            if words:
                rows.append({"tokens": words, "tags": tags})
                lines.append(number - len(words))
                words, tags = [], []
            continue
        if len(parts) < 2:
            problems.append(
                Problem(file, "a word without a tag: expected a word, a tab or blank, and a tag", number)
            )
            parts.append(OUTSIDE)
        words.append(parts[0])
        tags.append(parts[-1])
    return rows_table(file, rows, lines, problems)


def _fields(line: str) -> list[str]:
    """The fields of a line; an empty list for a blank line."""
    content = line.rstrip("\r").strip("\t ")
    if "\t" in content:
        return [field.strip(" ") for field in content.split("\t")]
    return [field for field in content.split(" ") if field]
