"""The number of tokens that models read of a text: as the first model was trained, within the positions of all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from gradistill.commands.run_folder import RECIPE, export_record, record_of
from gradistill.data import Task
from gradistill.data.windows import OVERLAP, Windows
from gradistill.errors import ModelError, RecipeError
from gradistill.recipe import TrainingSettings
from gradistill.recipe.recipe_files import read_keys
from gradistill.recipe.schema import recipe_part

logger = logging.getLogger(__name__)

DEFAULT_LENGTH, LONGEST_BY_DEFAULT = 128, 512
"""The length for a model that is not trained on a task yet, and the longest for a model without a record."""


class TextModel(Protocol):
    """A model that reads a text's tokens: its name in messages, its folder or hub id, and the number of its positions,
    None without a limit."""

    @property
    def owner(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def positions(self) -> int | None: ...


@dataclass(frozen=True)
class OnnxModel:
    """A model whose graph does not show the number of its positions."""

    owner: str
    name: str
    positions: None = None


def trained_length(name: str | Path) -> int | None:
    """The ``max_length`` that a run or an export recorded in the model's folder; None without a record."""
    length: Any = recorded_texts(name).get("max_length")
    return length if isinstance(length, int) and length > 0 else None


def trained_windows(name: str | Path) -> Windows | None:
    """The windows for long texts that a run or an export recorded in the model's folder; None if it cuts texts."""
    return Windows.of(recorded_texts(name))


def recorded_texts(name: str | Path) -> Mapping[str, Any]:
    """What a run or an export recorded about its texts (length, windows), from the model's folder; or empty.

    Its recipe has it where there is no such record: in a run of an earlier version, and in a model of the hub.
    """
    texts = record_of(name).get("texts")
    if isinstance(texts, dict):
        return texts
    if exported := export_record(name):
        return {"max_length": exported.get("max_length"), **recipe_part(exported, "texts")}
    return _training_of(Path(name) / RECIPE) if str(name) else {}  # a model without a folder has no name


def task_windows(
    settings: TrainingSettings, tokenizer: PreTrainedTokenizerBase, first: TextModel
) -> Windows | None:
    """The windows for texts longer than ``settings.max_length``: as set, or as the first reader was trained.

    Raises RecipeError for a tokenizer without character offsets, and for an overlap that leaves no room.
    """
    length, recorded = settings.max_length, trained_windows(first.name)
    assert length is not None
    pool = settings.windows or (recorded.pool if recorded else "off")
    overlap = settings.window_overlap
    if pool == "off":
        refuse_idle_overlap(settings, first.name)
        if recorded:
            logger.info(f"windows off, as set; the {first.owner} was trained with {recorded.pool}")
        return None
    if not tokenizer.is_fast:
        raise _no_windows(pool, "a tokenizer without character offsets")
    if overlap is None:
        overlap = recorded.overlap if recorded else min(OVERLAP, length // 4)
    room = length - tokenizer.num_special_tokens_to_add()
    if overlap >= room:
        raise RecipeError(
            f"window_overlap is {overlap}, and a window has room for {room} tokens of the text",
            expected=f"at most {room - 1}; a quarter of max_length is usual",
            remedy="lower --window-overlap, or raise max_length",
        )
    windows = Windows(pool, overlap)
    if recorded != windows and recorded is not None:
        trained = f"{recorded.pool}, overlap {recorded.overlap}"
        logger.info(
            f"windows {pool}, overlap {overlap}, as set; the {first.owner} was trained with {trained}"
        )
    return windows


def refuse_idle_overlap(settings: TrainingSettings, folder: str) -> None:
    """Raise RecipeError for an overlap without windows, neither in the settings nor in the record of the first reader's
    folder."""
    if settings.window_overlap is None:
        return
    if settings.windows == "off" or (settings.windows is None and trained_windows(folder) is None):
        raise RecipeError(
            f"window_overlap is {settings.window_overlap}, and long texts are cut",
            expected="windows: mean or max",
            remedy="give --windows mean, or leave --window-overlap out",
        )


def refuse_windows(windows: Windows | None, task: Task) -> None:
    """Raise RecipeError for windows of rows that cannot have any: pairs of texts, and words with tags."""
    if windows is not None and (len(task.text_columns) != 1 or task.token_labels):
        raise _no_windows(windows.pool, "words with a tag each" if task.token_labels else "pairs of texts")


def _no_windows(pool: str, what: str) -> RecipeError:
    return RecipeError(
        f"windows are {pool}, and there are none for {what}",
        expected="one text a row, and a fast tokenizer",
        remedy="leave --windows out: long texts are cut",
    )


def _training_of(file: Path) -> Mapping[str, Any]:
    """The settings of training in a ``recipe.yaml``, which even the first version wrote; empty in another file."""
    try:
        return recipe_part(read_keys(file, "recipe", "keys"), "training") if file.is_file() else {}
    except (RecipeError, RecursionError):
        return {}


def task_length(wanted: int | None, tokenizer: PreTrainedTokenizerBase, readers: Sequence[TextModel]) -> int:
    """The text length for a task on which the first of the ``readers`` was trained.

    ``wanted`` takes precedence over the reader's record. Without both it is the tokenizer's ``model_max_length``, up to
    ``LONGEST_BY_DEFAULT``. Differences between readers, and a length that positions reduce, are logged. Raises
    ModelError if a model cannot read ``wanted`` tokens.
    """
    first, *others = readers
    recorded = trained_length(first.name)
    usual = recorded or min(tokenizer.model_max_length, LONGEST_BY_DEFAULT)
    chosen = _length_within_positions(wanted, usual, readers)
    if wanted is not None and recorded not in (None, wanted):
        logger.info(f"max_length {wanted}, as set; the {first.owner} was trained with {recorded}")
    for other in others:
        length = trained_length(other.name)
        if length not in (None, chosen):
            why = "as set" if wanted is not None else f"as the {first.owner} was trained: it is the reference"
            logger.info(f"max_length {chosen}, {why}; the {other.owner} was trained with {length}")
    return chosen


def raw_text_length(wanted: int | None, student: TextModel, usual: int | None) -> int:
    """The text length for a student with another tokenizer than the teacher's: the one that it was trained with, else
    the ``usual`` one of the teacher, else ``DEFAULT_LENGTH``. Raises ModelError as ``task_length`` does."""
    return _length_within_positions(
        wanted, trained_length(student.name) or usual or DEFAULT_LENGTH, [student]
    )


def new_length(wanted: int | None, readers: Sequence[TextModel]) -> int:
    """The text length for a model that is not trained on a task yet: its folder's record, else ``DEFAULT_LENGTH``.

    Raises ModelError as ``task_length`` does.
    """
    return _length_within_positions(wanted, trained_length(readers[0].name) or DEFAULT_LENGTH, readers)


def _length_within_positions(wanted: int | None, usual: int, readers: Sequence[TextModel]) -> int:
    """``wanted``, or else the ``usual`` length, reduced to the positions of all models."""
    chosen = usual if wanted is None else wanted
    for reader in readers:
        positions = reader.positions
        if positions is None or positions >= chosen:
            continue
        if wanted is not None:
            raise ModelError(
                f"max_length is {wanted}, and the {reader} has {positions} positions.",
                expected=f"at most {positions} tokens a text, special ones included",
                remedy=f"set max_length to {positions} or less, or leave it out",
            )
        logger.info(f"max_length {positions} instead of {chosen}: the {reader.owner} has no more positions")
        chosen = positions
    return chosen
