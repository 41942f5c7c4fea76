"""Transfer rows for ``distill``: changed copies of training rows. They have no label; the teacher predicts them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.batch import MOST_SEED
from gradistill.commands.data_warnings import log_splits, refuse_words
from gradistill.commands.output_folder import (
    FolderKind,
    check_output,
    draft_folder,
    locked_output,
    put_in_place,
)
from gradistill.commands.run_record import versions
from gradistill.data import DataChoice, Splits, Task, read_splits
from gradistill.data.data_source import Source
from gradistill.data.transfer_rows import CHANGE, COPY, ROW, TransferRows, replaceable_words, transfer_rows
from gradistill.errors import DataError, RecipeError
from gradistill.io import path_of
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.models.model_source import ModelSource, model_name
from gradistill.models.word_neighbours import near_words
from gradistill.printing import progress_bars

logger = logging.getLogger(__name__)

ROWS, REPORT = "unlabelled.jsonl", "augment.json"
"""The copies, named like the split that ``distill --unlabelled`` reads in a folder, and the report."""

AUGMENTED = FolderKind("file of changed copies", finished=REPORT)


def augment(
    data: DataChoice | Source,
    output: str | Path,
    *,
    teacher: ModelSource | None = None,
    times: int = 10,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write changed copies of training rows, for ``distill --unlabelled``; returns what ``augment.json`` holds.

    Words are deleted, or replaced by words that are near in the teacher's token embeddings. Some copies of pairs have
    their texts swapped, or the second text of another row. Copies have no label: only a teacher can predict one. No
    split but ``train`` is read (``data.transfer_rows`` has the definition).

    Parameters:
        ``data``: a ``DataChoice``, or what its ``source`` may be: a path, a ``Dataset``, a frame, a list of dicts.
        ``output``: a folder for the copies, ``unlabelled.jsonl``, and their counts, ``augment.json``.
        ``teacher``: a folder, a hub id, ``minilm-l6``, or a pair ``(model, tokenizer)``. Without one, no word is
            replaced.
        ``times``: copies of each row. The first three of ten are those of ``times=3``.
        ``seed``: the seed of all draws.
        ``overwrite``: replace an earlier file of copies in that folder.

    Raises DataError if no row can be changed, and GradistillError before any work for data that cannot be read.

    Example: ``augment(DataChoice("DATA/mrpc"), "runs/copies", teacher="runs/teacher", times=4)["rows"]``
    """
    folder, choice = path_of(output), DataChoice.of(data)
    _refuse_numbers(times, seed)
    _refuse_idle_fields(choice)
    check_output(folder, AUGMENTED, overwrite=overwrite)
    splits = read_splits(choice, ("train",))
    refuse_words(splits.task, "gradistill augment")
    log_splits(splits)
    rows, task = splits.rows["train"], splits.task
    read = None if teacher is None else (load_classifier(teacher, new_head=True)[0], load_tokenizer(teacher))
    if read is None:
        logger.info("no word is replaced: near words need a --teacher")
    copies = transfer_rows_of(rows, task, read, times=times, seed=seed)
    logger.info(copies.describe(len(rows)))
    if not len(copies):
        raise DataError(
            f"None of {len(rows)} rows of {choice.name} could be changed.",
            expected="texts of several words, with spaces between them",
            remedy="give --teacher, whose near words replace others, or more rows",
        )
    report = _report(splits, copies, choice, times=times, seed=seed, teacher=teacher)
    with locked_output(folder, AUGMENTED), draft_folder(folder) as draft:
        check_output(folder, AUGMENTED, overwrite=overwrite)  # another process may have finished meanwhile
        _write(copies, task, draft / ROWS)
        (draft / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        put_in_place(draft, folder, AUGMENTED)
    return report


def transfer_rows_of(
    rows: Dataset,
    task: Task,
    read: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None,
    *,
    times: int,
    seed: int = 0,
) -> TransferRows:
    """Changed copies of rows, with near words by the model and tokenizer ``read``. A bar shows progress."""
    near = {} if read is None else near_words(*read, replaceable_words(rows, task))
    if read is not None and not near:
        logger.warning(
            "no word is replaced: the model has no near word for any word of the data that is one token"
        )
    with progress_bars() as progress:
        bar = progress.add_task("changed copies", total=len(rows))

        def done(count: int) -> None:
            progress.advance(bar, count)

        return transfer_rows(rows, task, near, times=times, seed=seed, on_progress=done)


def _refuse_numbers(times: int, seed: int) -> None:
    if times < 1:
        raise RecipeError(f"times is {times}", expected="1 copy of each row or more", remedy="raise --times")
    if not 0 <= seed <= MOST_SEED:
        raise RecipeError(f"seed is {seed}", expected=f"0 to {MOST_SEED}", remedy="choose another --seed")


def _refuse_idle_fields(choice: DataChoice) -> None:
    for name in ("label_map", "unlabelled", "positive"):
        if getattr(choice, name) is not None:
            raise RecipeError(
                f"{name} was given, and changed copies are made of training rows alone, without their labels",
                expected="task, label_column, text_columns, kind, validation_share or validation_seed",
                remedy=f"leave {name} out, or give it to distill",
            )


def _report(
    splits: Splits,
    copies: TransferRows,
    choice: DataChoice,
    *,
    teacher: ModelSource | None,
    **settings: int,
) -> dict[str, Any]:
    return {
        "data": {
            "source": Path(choice.name).name,
            "task": splits.task.name,
            "text_columns": list(splits.task.text_columns),
            "rows": len(splits.rows["train"]),
        },
        "teacher": None if teacher is None else Path(model_name(teacher)).name,
        **settings,
        **copies.counts(),
        "versions": versions(),
    }


def _write(copies: TransferRows, task: Task, file: Path) -> None:
    """Write one JSON object a line: the texts, the row, the number of the copy and its change."""
    columns = {ROW: copies.sources, COPY: copies.copies, CHANGE: copies.changes}
    names = [name for name in columns if name not in task.text_columns]
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for place, texts in enumerate(copies.texts_by_row(task)):
            line = dict(zip(task.text_columns, texts, strict=True)) | {n: columns[n][place] for n in names}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
