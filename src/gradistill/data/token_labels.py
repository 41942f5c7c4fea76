"""Words with a tag each: checks of lists of words and of BIO2 tags, and the inference of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from gradistill.data.cell_checks import UNKNOWN_LABEL, is_missing, known_list, shown, text_fault
from gradistill.data.label_matching import Outputs
from gradistill.data.multilabel import literal
from gradistill.data.span_metrics import OUTSIDE
from gradistill.data.table import Table
from gradistill.data.tasks import Task
from gradistill.errors import DataError, Problem

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("tags", "ner_tags", "labels", "label")
"""Names of the columns of words and of tags, the likeliest first."""

BIO2 = "BIO2 tags: O, B-x for the first word of a span, I-x for its others"
"""The tags that messages expect."""
_WHERE = "name the words with --text-columns, the tags with --label-column (text_columns= and label_column= in Python)"
_OTHER_SCHEMES = frozenset("SELU")


def holds_lists(values: Iterable[object]) -> bool:
    """Whether a column holds lists, of words or of their tags. Cells may be missing; all others must be lists."""
    present = [value for value in values if not is_missing(value)]
    return bool(present) and all(isinstance(value, list | tuple) for value in present)


def with_word_lists(table: Table) -> Table:
    """The table of a CSV file with lists in place of their text, as pandas writes them, if it holds tagged words.

    It holds tagged words if it has columns of lists, and one of them has a BIO2 tag for each word of another.

    Example: ``with_word_lists(Table("a.csv", {"a": ["['in', 'Rome']"], "b": ["['O', 'B-x']"]}, [2], typed=False))``
    """
    if table.typed:
        return table
    lists = {name: cells for name, texts in table.columns.items() if (cells := _lists(texts)) is not None}
    tags = {name for name, cells in lists.items() if all(map(are_tags, cells))}
    if not any(_as_long(lists[words], lists[own]) for words in lists.keys() - tags for own in tags):
        return table
    return replace(table, columns={**table.columns, **lists})


def _lists(texts: Sequence[Any]) -> list[Any] | None:
    """The cells of a column as lists of text, and None for missing cells; None for a column of anything else."""
    first = next((text for text in texts if not is_missing(text)), None)
    if not isinstance(first, str) or not first.strip().startswith("["):
        return None
    cells = [None if is_missing(text) else literal(text) for text in texts]
    of_text = all(cell is None or isinstance(cell, list) for cell in cells) and _first(cells, str) is not None
    return cells if of_text else None


def find_words(table: Table, named: Sequence[str] | None = None) -> str | None:
    """The column of lists of words: the ``named`` one, or the one with a usual name; None if there is none."""
    names = named or [name for name in table.columns if name.casefold() in WORD_COLUMNS]
    columns = [
        name
        for name in names
        if holds_lists(cells := table.columns.get(name, ())) and _first(cells, str) is not None
    ]
    return columns[0] if len(columns) == 1 else None


def find_tags(table: Table, words: str, named: str | None = None) -> str | None:
    """The column of a tag for each word: the ``named`` one, or one with a usual name; None if there is none.

    A column that is not named must have as many tags as words in half of the rows.
    """
    by_name = {name.casefold(): name for name in table.columns}
    names = [named] if named else [by_name[name] for name in TAG_COLUMNS if name in by_name]
    lists = [name for name in names if name != words and holds_lists(table.columns.get(name, ()))]
    if named:
        return lists[0] if lists else None
    return next((name for name in lists if _as_long(table.columns[words], table.columns[name])), None)


def _as_long(words: Sequence[Any], tags: Sequence[Any]) -> bool:
    """Whether the lists of two columns are equally long in half of the rows or more."""
    same = [len(a or ()) == len(b or ()) for a, b in zip(words, tags, strict=True)]
    return 2 * sum(same) >= len(same)


def _first(cells: Iterable[Any], kind: type) -> Any:
    return next((part for cell in cells if cell for part in cell if isinstance(part, kind)), None)


def bio_names(table: Table, column: str, outputs: Outputs | None = None) -> tuple[str, ...]:
    """The tags of a column: ``O``, then ``B-`` and ``I-`` of every type in alphabetical order; or the declared ones.

    With ``outputs`` the rows are read for a model, and its other tags are added.

    Raises DataError for numbers without names, and for tags of another scheme.
    """
    if declared := table.class_names.get(column):
        if odd := next((name for name in declared if scheme_fault(name)), None):
            raise DataError(
                f"{table.file}, column {column!r} declares the tag {shown(odd)}. {scheme_fault(odd)}",
                expected=BIO2,
                remedy=f"convert them to BIO2, or {_WHERE}",
            )
        return declared
    kinds: set[str] = set()
    for row, cell in enumerate(table.columns[column]):
        for place, tag in enumerate(cell or ()):
            if not isinstance(tag, str):
                raise DataError(
                    f"{table.file}, row {table.lines[row]}, column {column!r}: the tag of word {place + 1} is "
                    f"{shown(tag)}, whose name is not known.",
                    expected="names of tags, such as B-person",
                    remedy="write the names, or give a data set whose column declares them (ClassLabel)",
                )
            if fault := scheme_fault(tag):
                raise DataError(
                    f"{table.file}, row {table.lines[row]}, column {column!r}: the tag of word {place + 1} is "
                    f"{shown(tag)}. {fault}",
                    expected=BIO2,
                    remedy=f"convert them to BIO2, or {_WHERE}",
                )
            if tag != OUTSIDE:
                kinds.add(tag[2:])
    names = (OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(kinds) for prefix in "BI"))
    if outputs is not None and (completed := outputs.completed(names)):
        return completed
    if not kinds:
        raise DataError(
            f"{table.file}, column {column!r}: no word has a tag but O.",
            expected="BIO2 tags of spans",
            remedy=_WHERE,
        )
    return names


def scheme_fault(tag: str) -> str:
    """Why a tag is not one of BIO2; an empty string if it is."""
    if tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2):
        return ""
    if len(tag) > 2 and tag[1] == "-" and tag[0] in _OTHER_SCHEMES:
        return "This is BIOES (or BILOU), which is not read."
    return "This is no tag of BIO2."


def are_tags(cell: object) -> bool:
    """Whether a cell is a list of BIO2 tags, or missing."""
    return is_missing(cell) or (
        isinstance(cell, list | tuple) and all(isinstance(tag, str) and not scheme_fault(tag) for tag in cell)
    )


def word_problems(table: Table, column: str) -> list[Problem]:
    """The problems of a column of words: lists that are missing or empty, or that hold other things than words."""
    return [
        table.problem(row, fault, column)
        for row, cell in enumerate(table.columns.get(column, [None] * len(table.lines)))
        if (fault := words_fault(cell))
    ]


def words_fault(cell: object) -> str:
    """Why a cell is no list of words; an empty string if it is one."""
    if is_missing(cell) or not isinstance(cell, list | tuple):
        return "the words are missing" if is_missing(cell) else f"{shown(cell)} where a list of words belongs"
    if not cell:
        return "the list of words is empty"
    faults = ((place, text_fault(word)) for place, word in enumerate(cell))
    return next((f"word {place + 1}: {fault}" for place, fault in faults if fault), "")


def tag_ids(
    table: Table, words: str, column: str, task: Task
) -> tuple[list[list[int] | None], list[Problem]]:
    """The tag id of every word of each row; None, and a problem, for tags that are missing or not BIO2."""
    names = task.labels or ()
    ids = {name: k for k, name in enumerate(names)}
    row_tags: list[list[int] | None] = []
    problems = []
    for row, (cell, text) in enumerate(zip(table.columns[column], table.columns[words], strict=True)):
        if fault := _tags_fault(cell, text, ids):
            problems.append(table.problem(row, fault, column))
        row_tags.append(None if fault else [ids[tag] for tag in cell])
    return row_tags, problems


def _tags_fault(cell: Any, words: Any, ids: dict[str, int]) -> str:
    if is_missing(cell) or not isinstance(cell, list | tuple):
        return "the tags are missing" if is_missing(cell) else f"{shown(cell)} where a list of tags belongs"
    if isinstance(words, list | tuple) and len(cell) != len(words):
        return f"{len(cell)} tags for {len(words)} words"
    before = OUTSIDE
    for place, tag in enumerate(cell):
        if tag not in ids:
            return f"{UNKNOWN_LABEL} {shown(tag)} of word {place + 1}; known: {known_list(tuple(ids))}"
        if tag[:2] == "I-" and before[2:] != tag[2:]:
            return (
                f"the tag of word {place + 1} is {tag} after {before}, where BIO2 has B-{tag[2:]}; spans that begin "
                "with I- are IOB1, which is not read: convert it"
            )
        before = tag
    return ""
