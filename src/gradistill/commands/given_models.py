"""Models as callers and options give them: one, several, or a teacher that gives outputs only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.function_predictor import PREFIX, FunctionPredictor, PredictFunction
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.data.teacher_answers import TeacherAnswers
from gradistill.errors import RecipeError
from gradistill.models.model_source import ModelSource, model_name, model_paths

OneModel = ModelSource | PredictFunction | PromptedTeacher
"""A PyTorch classifier, an ONNX model (its folder or file), a function from texts to probabilities, or a model with a
prompt around its texts."""

AnyModel = OneModel | list[OneModel] | dict[str, OneModel]
"""One model; a list, whose probabilities are averaged; or a dictionary with one yes-no model for each label."""

AnyTeacher = AnyModel | TeacherAnswers
"""A model, several, or files of answers."""


def is_function(given: Any) -> bool:
    """Whether a model is given as a function from texts to probabilities.

    A network or a tokenizer does not count, although both are callable.
    """
    return callable(given) and not isinstance(given, nn.Module | PreTrainedTokenizerBase | os.PathLike)


def is_several(given: Any) -> bool:
    """Whether several models are given: a list, or a dictionary with one model a label."""
    return isinstance(given, list | dict)


def members(given: Any) -> tuple[Any, ...]:
    """The models as a tuple. A single model is its only member."""
    if not is_several(given):
        return (given,)
    return tuple(given.values() if isinstance(given, dict) else given)


def each_changed(given: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to each of several models; returns them as a list or a dictionary, as they were given."""
    if isinstance(given, dict):
        return {label: change(each) for label, each in given.items()}
    return [change(each) for each in given]


def source_name(given: AnyModel) -> str:
    """The name of a model in messages and reports. Raises RecipeError for the name of a function (``python:…``), which
    is allowed on the command line only."""
    if is_several(given):
        start = "one a label: " if isinstance(given, dict) else "mean of "
        return start + ", ".join(Path(source_name(each)).name for each in members(given))
    one: Any = given.model if isinstance(given, PromptedTeacher) else given
    if is_function(one):
        return FunctionPredictor(one).name
    if isinstance(one, str) and one.startswith(PREFIX):
        raise RecipeError(
            f"{one} names a function, whose module would be run",
            expected="such a name on the command line only",
            remedy="pass the function itself",
        )
    return model_name(one)


def source_paths(given: AnyTeacher) -> tuple[str, ...]:
    """The paths or ids that models are read from. Raises ModelError for an object that is no model."""
    if is_several(given):
        return tuple(path for each in members(given) for path in source_paths(each))
    if isinstance(given, TeacherAnswers):
        return tuple(str(file) for file in (given.file, given.validation) if file is not None)
    if is_function(given):
        return ()
    return model_paths(given.model if isinstance(given, PromptedTeacher) else given)


def refuse_prompt_of(given: Any) -> None:
    """Raise RecipeError for a teacher that cannot get a prompt: a function, several models, or one with a prompt."""
    if is_several(given):
        kind, remedy = "several models", "give each of them its prompt"
    elif isinstance(given, PromptedTeacher):
        kind, remedy = "a model in a prompt", "give one prompt"
    elif is_function(given):
        kind, remedy = source_name(given), "leave the prompt out: a function can make its own"
    else:
        return
    raise RecipeError(
        f"a prompt was given around the texts of {kind}",
        expected="a folder, a hub id, or a pair (model, tokenizer) in each prompt",
        remedy=remedy,
    )


def check_several(given: Sequence[Any]) -> None:
    """Raise RecipeError for fewer than two models, or the same twice (in the same prompt)."""
    if len(given) < 2:
        raise RecipeError(
            f"the list of teachers holds {len(given) or 'none'}",
            expected="two teachers or more",
            remedy="name one teacher without a list, or several",
        )
    parts = [(e.model, e.template) if isinstance(e, PromptedTeacher) else (e, None) for e in given]
    paths = [(os.path.realpath(model), t) for model, t in parts if isinstance(model, str | os.PathLike)]
    if twice := [path for k, (path, template) in enumerate(paths) if (path, template) in paths[:k]]:
        raise RecipeError(
            f"the teacher {twice[0]} is named twice", expected="each teacher once", remedy="leave one out"
        )
