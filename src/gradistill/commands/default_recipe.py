"""The default method of a student: which of the defaults its teacher allows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from os import PathLike
from typing import Any

from gradistill.commands.defaults import DEFAULT_METHOD, OUTPUTS_METHOD, TOKEN_METHOD, tags_words
from gradistill.commands.given_models import source_paths
from gradistill.commands.text_lengths import trained_length
from gradistill.errors import GradistillError
from gradistill.models.attention import has_comparable_attention
from gradistill.models.loading import load_config
from gradistill.recipe import Recipe, StudentSettings

logger = logging.getLogger(__name__)

MOST_TOKENS = 512
"""The longest texts whose attention is compared: its memory grows with the square of the tokens. BERT reads as many."""


DECIDING = ("student.checkpoint", "student.width", "student.size", "training.max_length")
"""Fields of a recipe on which its default method depends (``_hidden_attention``)."""


def default_recipe(teacher: Any, load: Callable[[str], Recipe], *, max_length: int | None = None) -> Recipe:
    """The recipe that ``load`` returns for the default method of this teacher's student.

    ``teacher`` is as ``distill`` takes it. If attention cannot be compared, the method needs outputs only, and a log
    line gives the reason. ``max_length`` is that of a teacher which is not trained yet: by default its student reads as
    many tokens.

    Example: ``default_recipe("runs/teacher", load_recipe)``
    """
    if any(map(tags_words, source_paths(teacher))):
        return load(TOKEN_METHOD)
    recipe = load(DEFAULT_METHOD)
    prompted = recipe.teacher.template is not None
    length = recipe.training.max_length or max_length
    why = _hidden_attention(None if prompted else teacher, recipe.student, length)
    if why is None:
        return recipe
    logger.info(f"method: {OUTPUTS_METHOD}, as {why}")
    return load(OUTPUTS_METHOD)


def _hidden_attention(teacher: Any, student: StudentSettings, max_length: int | None) -> str | None:
    """The reason why attention of student and teacher is not compared, from their configurations; None if it is."""
    if not isinstance(teacher, str | PathLike):
        return "only the teacher's predictions are available"
    if student.checkpoint is not None:
        return "the student is not cut from its teacher"
    if student.width is not None or student.size is not None:
        return (
            "a student of another width, which a size may bring, has other attention heads than its teacher"
        )
    tokens = max_length or trained_length(str(teacher)) or 0
    if tokens > MOST_TOKENS:
        return f"attention over {tokens:,} tokens takes too much memory to be compared"
    try:
        config = load_config(str(teacher))
    except GradistillError:  # it is raised again where the teacher is loaded
        return None
    if has_comparable_attention(config):
        return None
    return f"attention of {config.model_type} is not known to be comparable"
