"""The texts that a model is to predict: the choice of their columns, and a check of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from jaxtyping import Bool

from gradistill.data.cell_checks import missing_columns, refuse_missing_columns, text_fault
from gradistill.data.checked_rows import incomplete_rows
from gradistill.data.column_names import names_texts
from gradistill.data.raw_words import Texts
from gradistill.data.row_output import Columns
from gradistill.data.row_stream import REMEDY, Chunk, RowStream
from gradistill.data.table import Table, with_fields
from gradistill.data.text_columns import (
    SAMPLE,
    find_text_columns,
    holds_text,
    label_candidates,
)
from gradistill.errors import DataError, Problem

MOST_PROBLEMS = 1000
"""The check of a file stops at this many faults."""


@dataclass(frozen=True)
class CheckedRows:
    """The result of a check of all rows of a file: the number of rows, and their columns."""

    rows: int
    columns: Columns


def first_rows(stream: RowStream) -> Table:
    """The first rows of a file, at least ``SAMPLE`` if it has so many. Raises DataError if no columns can be read."""
    columns: dict[str, list[Any]] = {}
    done, table = 0, Table(str(stream.path))
    for chunk in stream.chunks():
        table = chunk.table
        if not columns and not table.columns and table.problems:
            raise _refused(str(stream.path), table.problems)
        for name in [name for name in table.columns if name not in columns]:
            columns[name] = [None] * done
        done += len(chunk)
        for name, cells in columns.items():
            cells.extend(table.columns.get(name, [None] * len(chunk)))
        if done >= SAMPLE:
            break
    return replace(table, columns=columns, lines=range(1, done + 1), problems=())


def choose_text_columns(
    table: Table, named: tuple[str, ...] | None, recorded: tuple[str, ...] | None, labels: Sequence[str]
) -> tuple[str, ...]:
    """The one or two columns of texts, by the first of these rules that applies.

    1. The ``named`` columns.
    2. The ``recorded`` columns, which the model was trained on, if the table has them all.
    3. The columns with a usual name of texts, if they are as many as the recorded ones.
    4. The only one or two columns that hold texts (``data.text_columns``).

    Rules 3 and 4 skip columns that hold only the model's ``labels``, and columns with a usual name of labels. Raises
    DataError for named columns that are missing, and where the choice is not certain.
    """
    if named:
        refuse_missing(table, named)
        return named
    if recorded and not missing_columns(with_fields(table, recorded), recorded):
        return recorded
    known = {label.casefold() for label in labels}
    hidden = {*label_candidates(table.columns), *(name for name in table.columns if _are(table, name, known))}
    rest = {name: cells for name, cells in table.columns.items() if name not in hidden}
    usual = tuple(name for name in rest if names_texts(name) and holds_text(table, name))
    if recorded and len(usual) == len(recorded):  # the record shows whether the model reads one text or two
        return usual
    texts = find_text_columns(replace(table, columns=rest), "").texts
    if recorded and len(texts) != len(recorded):
        raise DataError(
            f"{table.file} has {_counted(len(texts))} of text ({', '.join(texts)}), and the model reads "
            f"{_counted(len(recorded))}: {', '.join(recorded)}.",
            expected="as many texts a row as the model was trained on",
            remedy="name the text columns with --text-columns (text_columns= in Python)",
        )
    return texts


def refuse_missing(table: Table, named: tuple[str, ...]) -> None:
    """Raise DataError for ``named`` columns that the table lacks. A dotted name is a field of an object."""
    refuse_missing_columns(with_fields(table, named), named)


def _counted(columns: int) -> str:
    return f"{columns} column{'s' if columns > 1 else ''}"


def complete_rows(chunk: Chunk, columns: tuple[str, ...]) -> Bool[np.ndarray, " row"]:
    """Which rows of a chunk have all of their texts."""
    complete = np.ones(len(chunk), bool)
    complete[sorted(incomplete_rows(_with_texts(chunk, columns), columns, None))] = False
    return complete


def incomplete_lines(chunk: Chunk, complete: Bool[np.ndarray, " row"]) -> list[int]:
    """The line numbers of the rows that lack a text; ``complete`` comes from ``complete_rows``."""
    return list(compress(chunk.table.lines, ~complete))


def texts_of(chunk: Chunk, columns: tuple[str, ...], complete: Bool[np.ndarray, " row"]) -> list[Texts]:
    """The texts of each row that is ``complete`` (``complete_rows``). The rows have been checked before."""
    table = _with_texts(chunk, columns)
    return list(compress(zip(*(table.columns[name] for name in columns), strict=True), complete))


def _with_texts(chunk: Chunk, columns: tuple[str, ...]) -> Table:
    """The chunk's table with all of these columns. JSON rows may lack one in a whole chunk; its cells are None."""
    table = with_fields(chunk.table, columns)
    lacking = {name: [None] * len(chunk) for name in columns if name not in table.columns}
    return replace(table, columns={**table.columns, **lacking}) if lacking else table


def check_rows(stream: RowStream, columns: tuple[str, ...]) -> CheckedRows:
    """Check every row, and return the number of rows and their columns.

    Raises DataError with the rows that cannot be read or whose texts are not text, and if no row has its texts.
    """
    rows, complete, joined, problems = 0, 0, None, list[Problem]()
    for chunk in stream.chunks():
        rows += len(chunk)
        complete += int(complete_rows(chunk, columns).sum())
        joined = Columns.joined(joined, chunk)
        problems += faults(chunk, columns)
        if len(problems) >= MOST_PROBLEMS:
            break
    if not problems and not complete:
        problems.append(Problem(str(stream.path), f"no row has a text ({', '.join(columns)})"))
    if problems:
        raise _refused(str(stream.path), problems)
    return CheckedRows(rows, joined or Columns({}))


def without_prediction(rows: Sequence[int], total: int, lacking: str) -> str:
    """The message about rows that lack something and have no prediction."""
    return f"{len(rows)} of {total} rows lack {lacking} and have no prediction; the first is row {rows[0]}"


def faults(
    chunk: Chunk, columns: tuple[str, ...], fault: Callable[[object], str] = text_fault
) -> list[Problem]:
    """The problems of a chunk's rows and of their texts. A missing text is not a problem."""
    problems = list(chunk.table.problems)
    if not chunk.table.columns:
        return problems
    table, complete = _with_texts(chunk, columns), complete_rows(chunk, columns)
    return problems + [
        table.problem(k, what, name)
        for name in columns
        for k, (cell, whole) in enumerate(zip(table.columns[name], complete, strict=True))
        if whole and (what := fault(cell))
    ]


def sound_parts(chunk: Chunk, columns: tuple[str, ...]) -> Iterator[Chunk]:
    """Yield the chunk's rows before its first fault, then raise DataError if there is one.

    For rows that cannot be checked before they are predicted, as those of a pipe.
    """
    problems = faults(chunk, columns)
    sound = _before(chunk, [problem.row for problem in problems if problem.row is not None])
    if len(sound):
        yield sound
    if problems:
        raise _refused(chunk.table.file, problems)


def _before(chunk: Chunk, places: Sequence[int]) -> Chunk:
    """The rows of a chunk before the first of these lines; all rows if there are none."""
    if not places:
        return chunk
    kept = sum(line < min(places) for line in chunk.table.lines)
    cells = {name: values[:kept] for name, values in chunk.table.columns.items()}
    table = replace(chunk.table, columns=cells, lines=chunk.table.lines[:kept], problems=())
    return replace(chunk, table=table, lines=None if chunk.lines is None else chunk.lines[:kept])


def _refused(file: str, problems: Sequence[Problem]) -> DataError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    more = " or more" if len(problems) >= MOST_PROBLEMS else ""
    return DataError(f"The data of {file} has {count}{more}:", problems=problems, remedy=REMEDY)


def _are(table: Table, column: str, known: set[str]) -> bool:
    cells = [cell for cell in table.columns[column] if cell is not None]
    return bool(cells) and all(isinstance(cell, str) and cell.strip().casefold() in known for cell in cells)
