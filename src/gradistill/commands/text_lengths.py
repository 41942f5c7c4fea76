"""How many tokens of a text models read: as many as the first of them was trained with, and no more than all can."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.commands.run_folder import RECIPE, record_of
from gradistill.errors import ModelError, RecipeError
from gradistill.models.input_limits import Limits
from gradistill.models.probe import Probe, ProbedModel
from gradistill.recipe.recipe_files import read_keys

logger = logging.getLogger(__name__)

USUAL, MOST = 128, 512
"""Tokens for a model that is yet to be trained on a task, and at most for one whose training nobody recorded."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that reads the texts; ``owner`` is what messages call it, ``name`` its folder or hub id, if any."""

    owner: str
    name: str
    model: PreTrainedModel

    @cached_property
    def probe(self) -> Probe:
        """What is found by looking at one forward pass, once."""
        return Probe.find(self.model)

    @cached_property
    def probed(self) -> ProbedModel:
        """The model with its probe; whether its last block may be trimmed is verified once."""
        return ProbedModel.of(self.model, self.probe)

    @cached_property
    def limits(self) -> Limits:
        """What the model can read."""
        return Limits.find(self.model)

    def __str__(self) -> str:
        return f"{self.owner} {self.name}".strip()


def trained_length(name: str | Path) -> int | None:
    """The ``max_length`` that a run recorded in the model's folder; None where there is no such record."""
    texts = record_of(name).get("texts")
    if isinstance(texts, dict):
        found: Any = texts.get("max_length")
    else:  # no run, or one of an earlier version; a model that lies in no folder has no name
        found = _of_recipe(Path(name) / RECIPE) if str(name) else None
    return found if isinstance(found, int) and found > 0 else None


def _of_recipe(file: Path) -> Any:
    """A recipe holds the length since the first version; the file may also be somebody's own."""
    try:
        return read_keys(file, "recipe", "keys")["training"]["max_length"] if file.is_file() else None
    except (RecipeError, KeyError, TypeError, RecursionError):
        return None


def task_length(
    wanted: int | None, tokenizer: PreTrainedTokenizerBase, readers: Sequence[LoadedModel]
) -> int:
    """The length for texts of a task that the first of the ``readers`` was trained on.

    Its own record counts; without one the tokenizer's ``model_max_length`` does, up to ``MOST``. What ``wanted`` gives
    is kept. A difference between the readers, and whatever shortens texts, is printed. Raises ModelError where a model
    cannot read as many tokens as ``wanted``.
    """
    first, *others = readers
    recorded = trained_length(first.name)
    own = recorded or min(tokenizer.model_max_length, MOST)
    chosen = _within(wanted, own, readers)
    if wanted is not None and recorded not in (None, wanted):
        logger.info(f"max_length {wanted}, as set; the {first.owner} was trained with {recorded}")
    for other in others:
        length = trained_length(other.name)
        if length not in (None, chosen):
            why = "as set" if wanted is not None else f"as the {first.owner} was trained: it is the reference"
            logger.info(f"max_length {chosen}, {why}; the {other.owner} was trained with {length}")
    return chosen


def apart_length(wanted: int | None, student: LoadedModel, usual: int | None) -> int:
    """The length for a student that reads other tokens than its teacher: what it was trained with, else the ``usual``
    one, which is the teacher's, else ``USUAL``. Raises ModelError as ``task_length`` does."""
    return _within(wanted, trained_length(student.name) or usual or USUAL, [student])


def new_length(wanted: int | None, readers: Sequence[LoadedModel]) -> int:
    """The length for a model that is yet to be trained on a task: what its folder records, else ``USUAL``.

    Raises ModelError as ``task_length`` does.
    """
    return _within(wanted, trained_length(readers[0].name) or USUAL, readers)


def _within(wanted: int | None, usual: int, readers: Sequence[LoadedModel]) -> int:
    """What was ``wanted``, or as much of the ``usual`` length as all models can read."""
    chosen = usual if wanted is None else wanted
    for reader in readers:
        positions = reader.limits.positions
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
