"""Warnings about data and teacher: overlap of splits, unknown tokens, predictions no better than a constant."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing import predict_logits
from gradistill.data import DataChoice, Splits, Task
from gradistill.data.batching import Collate
from gradistill.data.constant_prediction import no_better_than_constant
from gradistill.data.data_source import is_path, path_text
from gradistill.data.overlap import as_text, overlap, texts_of
from gradistill.data.split_sources import Wanted, read_source
from gradistill.data.table import with_fields
from gradistill.errors import DataError, RecipeError
from gradistill.models.facts import thresholds_of
from gradistill.printing import NO_PREFIX, log_line

logger = logging.getLogger(__name__)

OF_DATA = {"of_data": True}
"""``extra`` of a log record about rows that were read."""

LOOKED_AT, MANY_UNKNOWN = 1000, 0.02
"""The rows whose tokens are counted, and the share of unknown tokens above which a warning is given."""
ROWS = 500
"""Rows on which the teacher is checked before training. Its whole evaluation follows at the end."""


def weak_teacher_warning(teacher: nn.Module, encoded: Dataset, collate: Collate, task: Task) -> str | None:
    """A warning if a teacher is no better than a constant prediction, on some of the encoded rows."""
    sample = encoded if len(encoded) <= ROWS else encoded.shuffle(seed=0).select(range(ROWS))
    logits = predict_logits(teacher, sample, collate)
    predicted = task.predicted(logits, thresholds_of(teacher))
    return constant_prediction_warning(task, predicted, np.asarray(sample["labels"][:]))


def constant_prediction_warning(
    task: Task, predicted: np.ndarray, labels: np.ndarray, owner: str = "teacher"
) -> str | None:
    """A warning if predictions (of ``Task.predicted``) are no better than one constant prediction for every row."""
    problem = no_better_than_constant(task, predicted, labels)
    if problem is None:
        return None
    remedy = "Check the labels and the data, or train it for longer"
    return f"the {owner} is no better than a constant prediction: {problem}. {remedy}"


def refuse_other_kind_of_model(task: Task, multi_label: bool, owner: str, tokens: bool = False) -> None:
    """Raise DataError if only one of data and model is multi-label, or if only one of them has a label for each word.
    ``tokens``: whether the model is a token classifier."""
    if task.token_labels != tokens:
        kinds = (
            ("a tag for each word", "one label for a text")
            if task.token_labels
            else ("one label for a text", "a tag for each word")
        )
        raise DataError(
            f"The data have {kinds[0]}, and the {owner} predicts {kinds[1]}.",
            expected=f"a {owner} of the same kind of task",
            remedy=f"take another {owner}, or other columns (--text-columns, --label-column)",
        )
    if task.multi_label == multi_label:
        return
    kinds = (
        ("any number of labels", "one label") if task.multi_label else ("one label", "any number of labels")
    )
    raise DataError(
        f"The data have {kinds[0]} a row, and the {owner} predicts {kinds[1]}.",
        expected=f"a {owner} of the same kind of task (problem_type in its config.json)",
        remedy=f"take another {owner}, or read the labels otherwise (--label-separator, --label-columns, --kind)",
    )


def refuse_words(task: Task, what: str) -> None:
    """Raise RecipeError for an option or a command that does not read words with a tag each."""
    if task.token_labels:
        raise RecipeError(
            f"{what} cannot be used: the task {task.name!r} has a tag for each word",
            expected="finetune, distill, signals, predict or audit, on rows of words and tags (docs/tokens.md)",
            remedy=f"leave {what} out" if what.startswith("--") else "use one of these, or other rows",
        )


def log_splits(splits: Splits) -> None:
    """Log the splits, one record a line. Rows in two splits and doubtful data are warnings."""
    for line in splits.describe().split("\n"):
        if line.startswith("WARNING: "):
            logger.warning(line.removeprefix("WARNING: "), extra=OF_DATA)
        elif line.startswith("overlap: "):
            log_overlap(line)
        else:
            logger.info(line, extra=OF_DATA)


def warned(splits: Splits, warnings: Iterable[str]) -> Splits:
    """The splits with these warnings added. The warnings are also logged."""
    new = [*warnings]
    for warning in new:
        logger.warning(warning)
    return replace(splits, warnings=(*splits.warnings, *new))


def unknown_token_warnings(splits: Splits, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """A warning if the tokenizer has no token for more than ``MANY_UNKNOWN`` of the tokens of the training texts. The
    first ``LOOKED_AT`` rows are counted.

    Example: ``[*unknown_token_warnings(splits, tokenizer)]``
    """
    rows, task = splits.rows["train"], splits.task
    rows = rows.select(range(min(len(rows), LOOKED_AT)))
    texts = [rows[name][:] for name in task.text_columns]
    if task.token_labels:
        texts = [[" ".join(words) for words in column] for column in texts]
    ids = tokenizer(list(chain.from_iterable(texts)), add_special_tokens=False, verbose=False)["input_ids"]
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    share = unknown / max(sum(map(len, ids)), 1)
    if share > MANY_UNKNOWN:
        example = next(
            text for text, row in zip(chain(*texts), ids, strict=True) if tokenizer.unk_token_id in row
        )
        yield (
            f"the tokenizer has no token for {share:.0%} of the training texts, such as for "
            f"{example[:60]!r}: the model reads {tokenizer.unk_token} instead. Take a model for this language, "
            "or for these characters"
        )


def log_overlap(line: str) -> None:
    """Log the line on how many rows of a split are training rows, as a warning without a prefix."""
    logger.warning(line, extra={**NO_PREFIX, **OF_DATA})


class NewLines:
    """A log filter for a job of several parts that read the same rows. It keeps each line about the data once, and
    every other record.

    Example: ``with log_filter(NewLines()): finetune(…), distill(…)``
    """

    def __init__(self) -> None:
        self._shown: set[str] = set()
        self._last: logging.LogRecord | None = None
        self._kept = False

    def __call__(self, record: logging.LogRecord) -> bool:
        if record is not self._last:  # every handler filters it
            line = log_line(record)
            self._kept = self._keeps(record, line not in self._shown)
            self._shown.add(line)
            self._last = record
        return self._kept

    def _keeps(self, record: logging.LogRecord, new: bool) -> bool:
        return new or not getattr(record, "of_data", False)


class NewWarnings(NewLines):
    """A log filter for a job that runs many times. It keeps each warning once, and progress, and no other record.
    With ``data_lines`` it keeps each line about the data once, too.

    Example: ``with log_filter(new_warnings): distill(…)``, with one ``new_warnings`` for all runs.
    """

    def __init__(self, *, data_lines: bool = False) -> None:
        super().__init__()
        self._data_lines = data_lines

    def _keeps(self, record: logging.LogRecord, new: bool) -> bool:
        of_data = self._data_lines and getattr(record, "of_data", False)
        return (new and (of_data or record.levelno >= logging.WARNING)) or getattr(
            record, "is_progress", False
        )


def overlap_with_training(splits: Splits, split: str, choice: DataChoice) -> dict[str, Any] | None:
    """The number of rows of a split that are training rows; None if the source has no training split.

    It is also None with a drawn validation share, which has no training rows (``data.validation_share``).
    """
    one_file = is_path(choice.source) and Path(path_text(choice.source)).is_file()
    alone = one_file and splits.split_column is None
    if split == "train" or alone or choice.validation_share is not None:
        return None
    columns = splits.task.text_columns
    wanted = Wanted((), ("train",), (*columns, splits.label_column))
    tables, _ = read_source(choice.source, wanted, splits.task)
    table = with_fields(tables["train"], columns) if "train" in tables else None
    if table is None or not all(name in table.columns for name in columns):
        return None
    training = zip(*(map(as_text, table.columns[name]) for name in columns), strict=True)
    return overlap(texts_of(splits.rows[split], columns), training)
