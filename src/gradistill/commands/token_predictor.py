"""A token classifier as a callable on words, and its predictions for every row of a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool

from gradistill.auditing.token_predictions import predict_tokens
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.token_audit_measurements import word_tags
from gradistill.data import Collator, Task, encode
from gradistill.data.cell_checks import shown
from gradistill.data.chunk_texts import (
    MOST_PROBLEMS,
    complete_rows,
    faults,
    first_rows,
    incomplete_lines,
    refuse_missing,
    texts_of,
    without_prediction,
)
from gradistill.data.row_output import json_lines, refuse_taken_names
from gradistill.data.row_stream import CHUNK_ROWS, Chunk, RowStream
from gradistill.data.span_metrics import find_spans
from gradistill.data.table import with_fields
from gradistill.data.tasks import inferred_task
from gradistill.data.token_labels import BIO2, WORD_COLUMNS, find_words, scheme_fault, words_fault
from gradistill.errors import DataError, ModelError, Problem, RecipeError
from gradistill.io import draft_beside, sync_folder
from gradistill.printing import progress_bars, write_lines

logger = logging.getLogger(__name__)

TAGS, SPANS = "predicted_tags", "predicted_spans"


@dataclass(frozen=True)
class TokenPredictor:
    """A token classifier that is called with lists of words and returns the tag of each word.

    ``labels`` are its tags. ``max_length`` is the number of tokens that it reads of a row, special ones included.
    ``load_predictor`` returns a ``TokenPredictor``.

    Example::

        predictor = gradistill.load_predictor("runs/ner")
        predictor([["Ada", "saw", "Rome"]])  # [["B-person", "O", "B-location"]]
        predictor.spans([["Ada", "saw", "Rome"]])[0]  # [{"kind": "person", "start": 0, "end": 1, "text": "Ada"}, …]
    """

    model: AuditModel
    max_length: int
    text_columns: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"TokenPredictor({self.model.name}: {', '.join(self.labels[:5])}, …; {self.max_length} tokens)"

    @property
    def labels(self) -> tuple[str, ...]:
        """Its tags, from ``id2label`` in ``config.json``."""
        return self.model.labels or ()

    def __call__(self, rows: Sequence[Sequence[str]]) -> list[list[str | None]]:
        """The tag of each word of each row; None for words without a token, such as those that are cut off.

        Raises DataError for anything but a list of words, with its position.
        """
        for place, words in enumerate(rows):
            if fault := words_fault(list(words) if isinstance(words, tuple) else words):
                raise DataError(
                    f"Row {place} (from 0): {fault}",
                    expected="lists of words",
                    remedy="split the text into words",
                )
        if not rows:
            return []
        assert self.model.model is not None
        assert self.model.tokenizer is not None
        columns = {
            "tokens": list(map(list, rows)),
            "label": [[]] * len(rows),
            "index": list(range(len(rows))),
        }
        encoded = encode(
            Dataset.from_dict(columns),
            self.model.tokenizer,
            self._task,
            max_length=self.max_length,
            keep_tokenless=True,
        ).dataset
        self.model.refuse_unknown_tokens(max(max(ids, default=0) for ids in encoded["input_ids"][:]))
        tags: list[list[str | None]] = [[None] * len(row) for row in rows]
        read = [place for place, words in enumerate(encoded["word_ids"][:]) if max(words, default=-1) >= 0]
        if read:
            predictions = predict_tokens(
                self.model.model, encoded.select(read), Collator(self.model.tokenizer)
            )
            for place, labels, words in zip(read, predictions.labels, predictions.words, strict=True):
                tags[place] = word_tags(labels, words, len(rows[place]), self.labels)
        return tags

    def predict(self, rows: Sequence[Sequence[str]]) -> list[list[str | None]]:
        """The tag of each word, the same as a call."""
        return self(rows)

    def spans(self, rows: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        """The spans of each row: ``kind``, ``start`` and ``end`` (not included) in words from 0, and ``text``.

        Raises ModelError if the labels are no BIO2 tags.
        """
        if fault := self.tags_fault:
            raise ModelError(
                f"There are no spans of {self.model.name}: it {fault}",
                expected=BIO2,
                remedy="call the predictor itself for the tags, or correct id2label in config.json",
            )
        return [spans_of(words, tags) for words, tags in zip(rows, self(rows), strict=True)]

    @property
    def tags_fault(self) -> str:
        """The reason why the tags define no spans, as the end of a sentence; blank if they are BIO2."""
        faults = ((label, scheme_fault(label)) for label in self.labels)
        return next((f"predicts the tag {shown(label)}. {fault}" for label, fault in faults if fault), "")

    @property
    def _task(self) -> Task:
        return inferred_task(("tokens",), self.labels, "", token_labels=True)


def spans_of(words: Sequence[str], tags: Sequence[str | None]) -> list[dict[str, Any]]:
    """The spans that tags define, with their words. A word without a tag ends a span."""
    return [
        {
            "kind": span.kind,
            "start": span.start,
            "end": span.end,
            "text": " ".join(words[span.start : span.end]),
        }
        for span in find_spans([tag or "O" for tag in tags])
    ]


def predict_words(
    predictor: TokenPredictor,
    data: Path | None,
    output: Path | None,
    named: tuple[str, ...] | None,
) -> dict[str, Any]:
    """Write the rows of a JSONL or Parquet file with ``predicted_tags`` and ``predicted_spans``, as JSON lines.

    Rows stream through memory a chunk at a time, and the file is written whole or not at all. Raises DataError with
    every row that cannot be used, before any work, and RecipeError for another type of file.
    """
    if data is None or not data.name.lower().endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise RecipeError(
            f"{data or 'stdin'} holds no lists of words",
            expected="a .jsonl or .parquet file whose rows have a list of words (tokens)",
            remedy='write the words so: {"tokens": ["Ada", "saw", "Rome"]}',
        )
    if output is not None and not output.name.lower().endswith(".jsonl"):
        raise RecipeError(
            f"{output} is of a kind that holds no lists of tags",
            expected="a file that ends in .jsonl, or - for stdout",
            remedy="choose another --output",
        )
    stream = RowStream.of(data, line_columns=("text",))
    column = _checked_column(stream, named, predictor)
    logger.info(f"words: {column}")
    if fault := predictor.tags_fault:
        logger.warning(f"{SPANS} is null in every row: {predictor.model.name} {fault} Expected: {BIO2}")
    rows = cut = unread = 0
    incomplete: list[int] = []
    with _lines_to(output) as write, progress_bars(error=True) as progress:
        bar = progress.add_task("predictions", total=None)
        for chunk in stream.chunks(CHUNK_ROWS):
            complete = complete_rows(chunk, (column,))
            incomplete += incomplete_lines(chunk, complete)
            lines, lost = _predicted_lines(chunk, column, complete, predictor)
            rows, cut, unread = rows + len(chunk), cut + sum(map(bool, lost)), unread + sum(lost)
            write(lines)
            progress.advance(bar, len(chunk))
    if incomplete:
        logger.warning(without_prediction(incomplete, rows, "words"))
    if unread:
        logger.warning(
            f"no token stands for {unread} words (cut off at {predictor.max_length} tokens, or of invisible "
            "characters); their tag is null"
        )
    lacking = {"incomplete": len(incomplete)} if incomplete else {}
    computed = rows - len(incomplete)
    return {"rows": rows, "computed": computed, "cut": cut, "unread_words": unread, **lacking}


@contextmanager
def _lines_to(output: Path | None) -> Iterator[Callable[[bytes], object]]:
    """A function that writes lines to stdout, or to a file that appears whole or not at all."""
    if output is None:
        yield write_lines
        return
    draft = draft_beside(output)
    try:
        with draft.open("wb") as stream:
            yield stream.write
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(output.parent)


def _checked_column(stream: RowStream, named: tuple[str, ...] | None, predictor: TokenPredictor) -> str:
    """The column of words, after a check of every row. Raises DataError with all faults."""
    if named and len(named) > 1:
        raise RecipeError(
            f"the columns {' and '.join(named)} were named, and {predictor.model.name} reads one",
            expected="one column of lists of words",
            remedy="name one with --text-columns (text_columns= in Python)",
        )
    if named:
        refuse_missing(first_rows(stream), named)
    column, complete, problems = named[0] if named else None, 0, list[Problem]()
    for chunk in stream.chunks(CHUNK_ROWS):
        refuse_taken_names(stream.path, chunk.table.columns, (TAGS, SPANS))
        if column is None and chunk.table.columns:
            recorded = predictor.text_columns or ()
            column = find_words(with_fields(chunk.table, recorded), recorded) or find_words(chunk.table)
        if column is None:  # all rows of the chunk lack words, or none of its lines can be read
            problems += chunk.table.problems
        else:
            problems += faults(chunk, (column,), words_fault)
            complete += int(complete_rows(chunk, (column,)).sum())
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise DataError(
            f"{stream.path} has rows that cannot be used:", problems=problems, remedy="correct them"
        )
    if column is not None and not complete:
        raise DataError(
            f"{stream.path}: no row has words ({column}).",
            expected="a list of words in some rows",
            remedy="name another column with --text-columns (text_columns= in Python)",
        )
    if column is None:
        raise DataError(
            f"{stream.path} has no column of lists of words.",
            expected=f"a column {' or '.join(WORD_COLUMNS)}, or the one that is named",
            remedy="name it with --text-columns (text_columns= in Python)",
        )
    return column


def _predicted_lines(
    chunk: Chunk, column: str, complete: Bool[np.ndarray, " row"], predictor: TokenPredictor
) -> tuple[bytes, list[int]]:
    """A line for each row, and its number of words without a token. A row without words has null as tags."""
    tags, spans = np.full(len(chunk), None), np.full(len(chunk), None)
    words = [own for (own,) in texts_of(chunk, (column,), complete)]
    marks_spans = not predictor.tags_fault
    for place, own, found in zip(np.flatnonzero(complete), words, predictor(words), strict=True):
        tags[place] = found
        spans[place] = spans_of(own, found) if marks_spans else None
    unread = [sum(tag is None for tag in row or ()) for row in tags]
    return json_lines(chunk, {TAGS: tags, SPANS: spans}), unread
