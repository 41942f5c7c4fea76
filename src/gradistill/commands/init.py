"""``gradistill init``: read data, and write a proposed project file. No model is loaded."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradistill.commands.defaults import DEFAULT_METHOD, PROJECT_FILE, TOKEN_METHOD
from gradistill.data.data_choice import DataChoice
from gradistill.data.data_source import Source, data_name, described_source, is_path, path_text
from gradistill.data.overlap import overlap_line
from gradistill.data.proposal import Proposal, propose
from gradistill.data.raw_words import word_spans
from gradistill.data.tasks import Task
from gradistill.errors import RecipeError
from gradistill.io import path_of, system_reason, write_whole
from gradistill.models.packaged import ON_THE_HUB, PACKAGED, packaged_model_installed
from gradistill.printing import printable

WIDTH = 96
TEACHER_EXAMPLES, STUDENT_EXAMPLES = 12_000, 16_000
"""Rows that a model reads in all epochs together: enough for a small model, and minutes to an hour on two cores."""
EPOCHS = (3, 20)
MOST_ROWS = 20_000
"""The most training rows that are proposed, so that a first run ends on the same day."""
USUAL_LENGTH, LENGTHS = 128, (128, 256, 512)
TOKENS_PER_WORD = 1.3
LONG_TEXTS = 0.95
"""The share of texts that the proposed length should not cut."""


def init(
    data: DataChoice | Source,
    output: str | Path = PROJECT_FILE,
    *,
    model: str | None = None,
    force: bool = False,
) -> Path:
    """Read data and write a commented ``gradistill.yaml`` for ``run``; returns its path.

    Columns, labels, validation rows, teacher, student and settings are proposed. A comment gives the reason for each
    uncertain value. Nothing is trained, and no model is loaded.

    Parameters:
        ``data``: a path or hub id, or a ``DataChoice`` of one. Fields that are set are kept, the others are proposed.
        ``output``: the file to write. Paths in it are relative to its folder.
        ``model``: the model that is fine-tuned into the teacher: a folder, a hub id or ``minilm-l6``, which is the
            default where it is installed.
        ``force``: replace an existing file.

    Raises DataError for data that a run would refuse, and RecipeError where ``output`` cannot be written.

    Example: ``gradistill.run(gradistill.init("tickets.csv"))``
    """
    return drafted(data, path_of(output), model=model, force=force)[0]


def drafted(
    data: DataChoice | Source, output: Path, *, model: str | None = None, force: bool = False
) -> tuple[Path, Proposal]:
    """Do the work of ``init``; returns the path and the proposal in the file.

    Example: ``drafted("tickets.csv", Path("gradistill.yaml"))[1].doubts``
    """
    given = DataChoice.of(data)
    for source in filter(
        lambda source: source is not None and not is_path(source), (given.source, given.unlabelled)
    ):
        raise RecipeError(
            f"The data are {described_source(source)}, which no file can name.",
            expected="a file, a folder of files, or a hub id",
            remedy="write the rows to a file first",
        )
    if isinstance(given.task, Task):
        raise RecipeError(
            f"The task {given.task.name} is an object, which no file can name.",
            expected="the name of a known task, or none, so that it is inferred from the rows",
            remedy="leave the task out, and name columns, kind and positive class",
        )
    _refuse_taken(output, force)
    proposal = propose(given)
    text = project_text(proposal, _relative(model, output.parent) if model else _model(), output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {system_reason(error)}", remedy="choose another --output"
        ) from error
    return output, proposal


def _refuse_taken(output: Path, force: bool) -> None:
    if output.is_dir():
        raise RecipeError(
            f"{output} is a folder", expected="a file", remedy=f"--output {output / PROJECT_FILE}"
        )
    if output.exists() and not force:
        raise RecipeError(
            f"{output} is there already",
            expected="a new file",
            remedy="choose another --output, or give --force to replace it",
        )


def _model() -> str:
    return PACKAGED if packaged_model_installed() else ON_THE_HUB


@dataclass(frozen=True)
class _Line:
    """A key with its value, and a comment for the reader; a ``hint`` is a key that is commented out."""

    key: str
    value: Any
    comment: str = ""
    hint: bool = False

    def lines(self, indent: str = "  ") -> Iterator[str]:
        text = f"{indent}{'# ' if self.hint else ''}{self.key}: {_plain(self.value)}"
        comment = printable(" ".join(self.comment.split()))
        if not comment:
            yield text
        elif len(text) + len(comment) + 4 <= WIDTH:
            yield f"{text}  # {comment}"
        else:
            width = WIDTH - len(indent) - 2
            yield from (f"{indent}# {part}" for part in textwrap.wrap(comment, width, break_on_hyphens=False))
            yield text


def _plain(value: Any) -> str:
    """A value as YAML on one line."""
    value = list(value) if isinstance(value, tuple) else value
    options: Any = {"default_flow_style": True, "width": float("inf")}
    dumped = yaml.safe_dump(value, allow_unicode=True, **options)
    if not dumped.replace("\n", "").isprintable():  # characters that are not shown must be visible as escapes
        dumped = yaml.safe_dump(value, allow_unicode=False, **options)
    return dumped.removesuffix("\n").removesuffix("\n...")


def project_text(found: Proposal, model: str, folder: Path) -> str:
    """The text of the file: a proposal as commented YAML, with paths relative to ``folder``."""
    splits = found.splits
    rows = len(splits.rows["train"])
    name = data_name(found.choice.source)
    head = [
        f"What gradistill does with {printable(name)}, proposed by gradistill init. Change what does not fit.",
        "Run it, or resume it after a stop or a change, with: gradistill run",
        "Check the lines marked 'not certain'.",
    ]
    learnt = "answers" if found.tags_words else "answers and its reasons"
    sections = [
        _section("data", "Where the rows are, and how to read them.", _data(found, folder)),
        _section("teacher", "A model that is fine-tuned for this task.", _teacher(found, model, rows)),
        _section("student", f"A small model that learns the teacher's {learnt}.",
                 _student(found, model, rows)),
        _section("audit", "Does the student decide like its teacher? 'audit: no' leaves it out.",
                 _audit(found)),
        _export(found),
    ]  # fmt: skip
    top = [
        *_Line("output", f"runs/{name}", "one folder for all: models, audit, export, summary.html").lines(""),
        *_Line("seed", 0, "for random draws, initialisation and order of rows").lines(""),
    ]
    notes = [
        line for line in splits.describe().split("\n")
        if line.startswith(("train:", "validation:", "test:", "WARNING"))
    ]  # fmt: skip
    head_lines = [f"# {part}" for line in head for part in textwrap.wrap(line, WIDTH - 2)]
    found_lines = [f"#   {part}" for line in notes for part in textwrap.wrap(printable(line), WIDTH - 4)]
    return (
        "\n\n".join(["\n".join([*head_lines, "#", *found_lines]), "\n".join(top), *map("\n".join, sections)])
        + "\n"
    )


def _section(name: str, comment: str, lines: list[_Line]) -> list[str]:
    wrapped = [f"# {part}" for part in textwrap.wrap(comment, WIDTH - 2)]
    return [*wrapped, f"{name}:", *(part for line in lines for part in line.lines())]


def _export(found: Proposal) -> list[str]:
    if found.tags_words:
        return ["# Students that tag words are not exported to ONNX yet.", "export: no"]
    what = "The student as ONNX, for onnxruntime and transformers.js. Needs the extra gradistill[export]."
    lines = [_Line("quantize", "int8", "a second file with weights in 8 bits; null leaves it out")]
    return _section("export", f"{what} 'export: no' leaves it out.", lines)


def _data(found: Proposal, folder: Path) -> list[_Line]:
    choice, reasons = found.choice, dict(found.reasons)
    if line := reasons.get("left_out"):
        reasons["text_columns"] = "; ".join(filter(None, (reasons.get("text_columns"), line)))
    values: Mapping[str, Any] = {
        "source": _relative(path_text(choice.source), folder),
        "task": choice.task,
        "text_columns": choice.columns,
        "label_column": choice.label_column,
        "label_columns": choice.label_columns,
        "label_separator": choice.label_separator,
        "kind": choice.kind,
        "positive": choice.positive,
        "validation_share": choice.validation_share,
        "validation_seed": choice.validation_seed or None,
        "skip_incomplete": choice.skip_incomplete or None,
        "unlabelled": _relative(path_text(choice.unlabelled), folder) if is_path(choice.unlabelled) else None,
    }
    lines = [_Line(key, value, reasons.get(key, "")) for key, value in values.items() if value is not None]
    if choice.label_map:
        lines.append(_Line("label_map", dict(choice.label_map), "with teacher.fine_tuned", hint=True))
    overlap = found.splits.overlap
    if "validation" in found.splits.rows and overlap:
        task = found.splits.task
        if line := overlap_line(overlap, "validation", found.splits.rows["validation"], task.text_columns):
            lines[0] = _Line("source", lines[0].value, f"{lines[0].comment} {line}".strip())
    return lines


def _relative(source: str, folder: Path) -> str:
    """A relative path, made relative to ``folder``; a hub id or an absolute path as it is."""
    if not Path(source).exists() or Path(source).is_absolute():
        return source
    return Path(os.path.relpath(source, folder)).as_posix()


def _teacher(found: Proposal, model: str, rows: int) -> list[_Line]:
    small = model in (PACKAGED, ON_THE_HUB)
    lines = [
        _Line("model", model, "a folder or hub id; larger ones, such as roberta-base, are better teachers"),
        _Line("fine_tuned", "FOLDER", "instead of model: a classifier that is fine-tuned already", hint=True),
        _Line("epochs", _epochs(rows, TEACHER_EXAMPLES), f"passes over {min(rows, MOST_ROWS):,} rows"),
        _Line("learning_rate", 1e-4 if small else 3e-5),
        _Line("batch_size", 16),
    ]
    length, long = _length(found)
    if length != USUAL_LENGTH:
        share = (
            f"{long:.0%} of the texts are probably longer than {USUAL_LENGTH} tokens, estimated from words"
        )
        lines.append(_Line("max_length", length, f"tokens after which a text is cut: {share}"))
    if rows > MOST_ROWS:
        lines.append(
            _Line("max_train_rows", MOST_ROWS, f"of {rows:,}, so that a first run is short; remove for all")
        )
    return lines


def _student(found: Proposal, model: str, rows: int) -> list[_Line]:
    small = model in (PACKAGED, ON_THE_HUB)
    method = TOKEN_METHOD if found.tags_words else DEFAULT_METHOD
    lines = [
        _Line("method", method, "the others: gradistill methods")
        if small or found.tags_words
        else _Line(
            "method", method, "one of gradistill methods (default: what the teacher allows)", hint=True
        ),
        _Line("layers", 3, "blocks taken from the teacher; it has 6")
        if small
        else _Line("layers", 3, "blocks taken from the teacher (default: half of them)", hint=True),
        _Line("epochs", _epochs(rows, STUDENT_EXAMPLES)),
        _Line("learning_rate", 1e-4),
        _Line("batch_size", 16),
    ]
    if rows > MOST_ROWS:
        lines.append(_Line("max_train_rows", MOST_ROWS))
    return lines


def _audit(found: Proposal) -> list[_Line]:
    tested = "test" in found.splits.rows
    limit = {"span_loyalty": 0.5} if found.tags_words else {"response_loyalty": 0.5}
    split = "test" if tested else "validation"
    why = "" if tested else "there is no test split; the best epoch was chosen on these rows"
    return [
        _Line("split", split, why),
        _Line("max_rows", 500, "rows that are audited, drawn by the seed"),
        _Line(
            "reference",
            True,
            "trains the teacher once more with another seed, to compare the student with",
            hint=True,
        ),
        _Line("fail_under", limit, "exit code 1 below any of these", hint=True),
    ]


def _epochs(rows: int, examples: int) -> int:
    low, high = EPOCHS
    return max(low, min(high, round(examples / max(min(rows, MOST_ROWS), 1))))


def _length(found: Proposal) -> tuple[int, float]:
    """The proposed ``max_length``, and the share of rows with more than ``USUAL_LENGTH`` tokens, estimated from
    words."""
    rows, columns = found.splits.rows["train"], found.splits.task.text_columns
    counts = [0.0] * len(rows)
    for name in columns:
        counts = [
            n + TOKENS_PER_WORD * (len(word_spans(text)) if isinstance(text, str) else len(text))
            for n, text in zip(counts, rows[name][:], strict=True)
        ]
    counts.sort()
    wanted = counts[int(LONG_TEXTS * (len(counts) - 1))]
    long = sum(n > USUAL_LENGTH for n in counts) / len(counts)
    return next((length for length in LENGTHS if length >= wanted), LENGTHS[-1]), long
