"""Write predictions for every row of a file into a file with the same rows."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Bool

from gradistill.auditing.predictor import OnProgress
from gradistill.commands.identity import of_onnx
from gradistill.commands.run_record import versions
from gradistill.commands.text_predictor import Predicted, TextPredictor, check_number, load_predictor
from gradistill.commands.token_predictor import TokenPredictor, predict_words
from gradistill.commands.unfinished_predictions import folder_of, unfinished_predictions
from gradistill.data.chunk_texts import (
    CheckedRows,
    check_rows,
    choose_text_columns,
    complete_rows,
    first_rows,
    incomplete_lines,
    sound_parts,
    texts_of,
    without_prediction,
)
from gradistill.data.cut import Cut
from gradistill.data.header_check import reads_like_a_text
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.data.row_output import OUTPUTS, Columns, json_lines, refuse_taken_names, writer_of
from gradistill.data.row_stream import CHUNK_ROWS, Chunk, RowStream, decoded_lines, format_of
from gradistill.errors import DataError, RecipeError
from gradistill.io import checksum_of, path_of
from gradistill.models.model_source import ModelSource
from gradistill.printing import log_on_stderr, progress_bars, write_lines
from gradistill.store.fingerprint import model_hash, tokenization_hash

logger = logging.getLogger(__name__)

PIPE = "-"
"""Given instead of a path: stdin, or stdout."""
PIPED_ROWS = 32
"""Lines of a pipe that are predicted together; from a terminal each line is predicted by itself."""
LABEL, LABELS, SCORE = "predicted_label", "predicted_labels", "predicted_score"
PROBABILITY, CUT = "probability_", "text_cut"
_FORMAT = 1


def predict(
    model: ModelSource | PromptedTeacher,
    data: str | Path,
    output: str | Path,
    *,
    text_columns: Sequence[str] | None = None,
    max_length: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the rows of a file with a classifier's predictions as new columns.

    The new columns are ``predicted_label`` (multi-label: ``predicted_labels``, a JSON list as text),
    ``probability_<label>`` for each label (in a regression ``predicted_score`` instead of both), and ``text_cut``,
    which is true if the model did not read all of a text. A row without a text keeps its place, and these columns are
    empty in it. Rows stream through memory a chunk at a time. A process that is killed loses one chunk at most: the
    same call resumes, and writes the same bytes (docs/predict.md). A token classifier reads lists of words (JSONL,
    Parquet) and writes JSON lines with ``predicted_tags`` and ``predicted_spans``. After a stop it starts anew
    (docs/tokens.md).

    Parameters:
        ``model``: a folder (PyTorch or ONNX), a hub id, or a pair ``(model, tokenizer)``; in a prompt as
            ``PromptedTeacher(model, template)``.
        ``data``: a file of rows: ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, or ``.txt`` with one text a line; all
            but Parquet also with ``.gz``. ``-`` is stdin, one text a line.
        ``output``: a file that ends in ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; ``-`` is stdout, one JSON object
            a line.
        ``text_columns``: one or two; by default those that the model was trained on, or the ones that hold texts.
        ``max_length``: tokens of a text at most; by default as the model was trained.
        ``overwrite``: replace an earlier output.

    Returns the number of ``rows``, how many of them were ``computed`` now, ``seconds``, and the number of texts that
    were ``cut`` (for a token classifier rows with ``cut`` words, and ``unread_words``). Raises DataError with every row
    that cannot be used, before any work, and RecipeError for an output that exists.

    Example: ``gradistill.predict("runs/student", "reviews.csv", "predicted.csv")["rows"]``
    """
    target = None if str(output) == PIPE else path_of(output)
    source = None if str(data) == PIPE else path_of(data, "data", "a file with rows, or - for stdin")
    _refuse_paths(source, target, overwrite=overwrite)
    with log_on_stderr() if target is None else nullcontext():
        predictor = load_predictor(model, max_length=max_length)
        began = perf_counter()
        named = _named(text_columns)
        if isinstance(predictor, TokenPredictor):
            if target is not None:
                _refuse_present(target, overwrite=overwrite)
            counts = predict_words(predictor, source, target, named)
            return counts | {"seconds": perf_counter() - began}
        job = _pipe_job(predictor, named) if source is None else _file_job(source, predictor, named)
        check_number(len(job.text_columns), predictor.text_columns)
        if predictor.model.template is not None:  # the rows may have their columns in another order
            predictor = replace(predictor, model=predictor.model.reading(job.text_columns))
        _refuse_taken(job, predictor)
        done = _streamed(job, predictor) if target is None else _written(job, predictor, target, overwrite)
        done.warn(predictor)
    if predictor.windows is not None:
        return done.as_dict() | {"cut": 0, "windowed": done.cut, "seconds": perf_counter() - began}
    return done.as_dict() | {"seconds": perf_counter() - began}


@dataclass(frozen=True)
class _Job:
    """The rows to predict. ``checked`` is None for a pipe, whose rows are checked while they are read."""

    stream: RowStream
    text_columns: tuple[str, ...]
    checked: CheckedRows | None = None

    @property
    def columns(self) -> Columns:
        if self.checked is not None:
            return self.checked.columns
        return Columns({name: frozenset({str}) for name in self.text_columns})

    def chunks(self) -> Iterator[Chunk]:
        """The rows chunk by chunk. Raises DataError for rows of a pipe that cannot be used, and for a file that changes
        while it is read."""
        if self.checked is None:
            for chunk in self.stream.chunks(1 if sys.stdin.isatty() else PIPED_ROWS):
                yield from sound_parts(chunk, self.text_columns)
            return
        before = _state(self.stream.path)
        for chunk in self.stream.chunks(CHUNK_ROWS):
            if _state(self.stream.path) != before:
                raise DataError(
                    f"{self.stream.path} was changed while it was read.",
                    expected="a file that does not change meanwhile",
                    remedy="give the command again when it is whole",
                )
            yield chunk


@dataclass
class _Counts:
    """Counts over all chunks: rows, rows predicted now, rows without a text, and texts that were cut or have no token
    but special ones."""

    rows: int = 0
    computed: int = 0
    cut: int = 0
    longest: int = 0
    blank: list[int] = field(default_factory=list)
    incomplete: list[int] = field(default_factory=list)

    def add(
        self, found: Predicted, chunk: Chunk, complete: Bool[np.ndarray, " row"], *, computed: bool
    ) -> None:
        lines = chunk.table.lines
        self.rows += len(lines)
        self.computed += int(complete.sum()) if computed else 0
        self.cut += int(found.cut.sum())
        self.longest = max(self.longest, found.longest)
        self.blank += [lines[k] for k in np.flatnonzero(found.blank).tolist()]
        self.incomplete += incomplete_lines(chunk, complete)

    def as_dict(self) -> dict[str, Any]:
        incomplete = {"incomplete": len(self.incomplete)} if self.incomplete else {}
        return {"rows": self.rows, "computed": self.computed, "cut": self.cut, **incomplete}

    def warn(self, predictor: TextPredictor) -> None:
        max_length = predictor.max_length
        if self.cut and predictor.windows is not None:
            pool = predictor.windows.pool
            logger.info(f"{Cut(max_length, self.cut, self.rows, self.longest).in_windows}; {pool} over them")
        elif self.cut:
            logger.warning(
                f"{Cut(max_length, self.cut, self.rows, self.longest)}; the column {CUT} marks them"
            )
        if self.incomplete:
            logger.warning(without_prediction(self.incomplete, self.rows, "a text"))
        if self.blank:
            logger.warning(
                f"{len(self.blank)} texts have no token but special ones, so their predictions follow from no text; "
                f"the first is row {self.blank[0]}"
            )


def _file_job(path: Path, predictor: TextPredictor, named: tuple[str, ...] | None) -> _Job:
    stream = RowStream.of(path, line_columns=named or predictor.text_columns or ("text",))
    columns = choose_text_columns(first_rows(stream), named, predictor.text_columns, predictor.labels or ())
    logger.info(f"text: {', '.join(columns)}")
    if stream.dialect is not None and any(map(reads_like_a_text, columns)):
        logger.warning("the first line was taken for names of columns; if it is a row, add a line with names")
    return _Job(stream, columns, check_rows(stream, columns))


def _pipe_job(predictor: TextPredictor, named: tuple[str, ...] | None) -> _Job:
    columns = named or predictor.text_columns or ("text",)
    lines = decoded_lines("stdin", sys.stdin.buffer)
    return _Job(RowStream(Path("stdin"), ".txt", line_columns=columns, given=lines), columns)


def _streamed(job: _Job, predictor: TextPredictor) -> _Counts:
    """Write predictions as JSON lines on stdout, each chunk as soon as it is predicted."""
    counts = _Counts()
    with _progress(job) as advance:
        for chunk in job.chunks():
            complete = complete_rows(chunk, job.text_columns)
            found = _predicted(chunk, complete, job, predictor, advance)
            counts.add(found, chunk, complete, computed=True)
            write_lines(json_lines(chunk, _added(found, complete, predictor)))
    return counts


def _written(job: _Job, predictor: TextPredictor, target: Path, overwrite: bool) -> _Counts:
    """Write the output file, whole or not at all. Chunks that an earlier process left are not computed again."""
    purpose = None if job.checked is None else _purpose(job, predictor)
    with unfinished_predictions(target, purpose) as work:
        if work.was_finished():
            work.remove()
            return _Counts(rows=job.checked.rows if job.checked else 0)
        _refuse_present(target, overwrite=overwrite)  # another process may have finished meanwhile
        work.begin()
        counts = _Counts()
        shown = _no_rows(predictor)
        with (
            closing(writer_of(work.draft, job.stream, job.columns, shown)) as writer,
            _progress(job) as advance,
        ):
            for number, chunk in enumerate(job.chunks()):
                complete = complete_rows(chunk, job.text_columns)
                kept = work.get(number, len(chunk))
                found = kept or _predicted(chunk, complete, job, predictor, advance)
                if kept is None:
                    work.put(number, found)
                else:
                    advance(len(chunk))
                counts.add(found, chunk, complete, computed=kept is None)
                writer.write(chunk, _added(found, complete, predictor))
        work.finish()
    return counts


@contextmanager
def _progress(job: _Job) -> Iterator[OnProgress]:
    total = None if job.checked is None else job.checked.rows
    with progress_bars(error=True) as progress:
        bar = progress.add_task("predictions", total=total)
        yield lambda done: progress.advance(bar, done)


def _predicted(
    chunk: Chunk, complete: Bool[np.ndarray, " row"], job: _Job, predictor: TextPredictor, advance: OnProgress
) -> Predicted:
    """The predictions of a chunk's rows; NaN for those that are not complete."""
    found = predictor.predicted(texts_of(chunk, job.text_columns, complete), advance)
    if complete.all():
        return found
    advance(int((~complete).sum()))
    rows, width = len(complete), found.values.shape[1]
    whole = Predicted(
        np.full((rows, width), np.nan), np.zeros(rows, bool), np.zeros(rows, bool), found.longest
    )
    for name in ("values", "cut", "blank"):
        getattr(whole, name)[complete] = getattr(found, name)
    return whole


def _no_rows(predictor: TextPredictor) -> dict[str, np.ndarray]:
    """The columns to write, without rows."""
    return _added(predictor.predicted([]), np.ones(0, bool), predictor)


def _added(
    found: Predicted, complete: Bool[np.ndarray, " row"], predictor: TextPredictor
) -> dict[str, np.ndarray]:
    """The new columns, masked where a row is not complete."""
    columns = _columns(found, predictor)
    if complete.all():
        return columns
    return {name: np.ma.masked_array(values, ~complete) for name, values in columns.items()}


def _columns(found: Predicted, predictor: TextPredictor) -> dict[str, np.ndarray]:
    labels, written = predictor.labels, found.values.astype(np.float32)
    cut = found.cut if predictor.windows is None else np.zeros_like(found.cut)
    if labels is None:
        return {SCORE: written[:, 0], CUT: cut}
    names = np.array(labels, dtype=object)
    probabilities = {f"{PROBABILITY}{label}": written[:, k] for k, label in enumerate(labels)}
    if predictor.multi_label:
        lists = [json.dumps(chosen, ensure_ascii=False) for chosen in predictor.chosen(found.values)]
        return {LABELS: np.array(lists, dtype=object), **probabilities, CUT: cut}
    return {LABEL: names[found.values.argmax(-1)], **probabilities, CUT: cut}


def _purpose(job: _Job, predictor: TextPredictor) -> dict[str, Any]:
    """Everything that the predictions depend on."""
    model = predictor.model
    assert model.tokenizer is not None
    device = "cpu" if model.model is None else model.model.device.type
    return {
        "format": _FORMAT,
        "model": of_onnx(model.predictor) if model.model is None else model_hash(model.model),
        "tokenizer": tokenization_hash(model.tokenizer),
        "data": checksum_of(job.stream.path),
        "read_as": job.stream.format,
        "text_columns": list(job.text_columns),
        "max_length": predictor.max_length,
        **({} if predictor.windows is None else predictor.windows.as_dict()),
        **({} if model.template is None else {"template": model.template}),
        "chunk_rows": CHUNK_ROWS,
        "device": device,
        "versions": versions(),
    }


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _named(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    named = (columns,) if isinstance(columns, str) else tuple(columns or ())
    if len(named) > 2 or len(set(named)) < len(named):
        raise RecipeError(
            f"the text columns {', '.join(named)} were named",
            expected="one column, or two different ones",
            remedy="correct --text-columns",
        )
    return named or None


def _refuse_paths(source: Path | None, target: Path | None, *, overwrite: bool) -> None:
    """Raise DataError or RecipeError for paths that cannot be used, before a model is loaded."""
    if source is not None:
        if source.is_dir() or not source.exists():
            raise DataError(
                f"{source} is a folder." if source.is_dir() else f"There is no file {source}.",
                expected="one file with rows, or - for stdin",
                remedy="name the file",
            )
        format_of(source)
    if target is None:
        return
    if not target.name.lower().endswith(OUTPUTS):
        raise RecipeError(
            f"{target} is of a kind that is not written",
            expected=f"a file that ends in {', '.join(OUTPUTS[:-1])} or {OUTPUTS[-1]}, or - for stdout",
            remedy="choose another --output",
        )
    if source is not None and target.exists() and target.samefile(source):
        raise RecipeError(
            f"{target} is the file of the data", expected="another file", remedy="choose another --output"
        )
    if not folder_of(target).exists():
        _refuse_present(target, overwrite=overwrite)


def _refuse_present(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise RecipeError(f"{target} is a folder", expected="a file", remedy="choose another --output")
    if target.exists() and not overwrite:
        raise RecipeError(
            f"{target} exists",
            expected="a new file",
            remedy="choose another --output, or give --overwrite to replace it",
        )


def _refuse_taken(job: _Job, predictor: TextPredictor) -> None:
    refuse_taken_names(job.stream.path, job.columns.types, _no_rows(predictor))
