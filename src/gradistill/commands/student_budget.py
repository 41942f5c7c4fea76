"""The recipe of a student with a size budget: layers, rank and width are chosen and logged before any work."""

from __future__ import annotations

import logging

from transformers import PreTrainedConfig, PreTrainedModel

from gradistill.errors import RecipeError
from gradistill.models.facts import is_multi_label, is_token_classifier
from gradistill.models.loading import Head, empty_classifier, label_names
from gradistill.models.student_size import SizeSearch, StudentShape
from gradistill.recipe import Recipe, StudentSettings

logger = logging.getLogger(__name__)


def on_budget(recipe: Recipe, teacher: PreTrainedModel) -> Recipe:
    """The recipe with layers, rank and width that fit into ``student.size``; unchanged without a size.

    Raises RecipeError if no student fits. The message has the smallest possible student.
    """
    settings = recipe.student
    if settings.size is None:
        return recipe
    model, usual = teacher, max(1, teacher.config.num_hidden_layers // 2)
    if settings.checkpoint is not None:
        names = label_names(teacher)
        labels = tuple(names.values()) if len(names) > 1 else None
        head = Head(labels, is_multi_label(teacher), is_token_classifier(teacher))
        model = empty_classifier(settings.checkpoint, head)
    own_embeddings = settings.embeddings == "own"
    widths = own_embeddings and settings.checkpoint is None and settings.embedding_rank is None
    source = settings.checkpoint or "the teacher"
    return _fitted(
        recipe, SizeSearch(model, _given(settings), source, ranks=own_embeddings, widths=widths, usual=usual)
    )


def checkpoint_on_budget(recipe: Recipe, head: Head) -> Recipe:
    """``on_budget`` for a checkpoint with another tokenizer than the teacher's: only the depth is chosen."""
    settings = recipe.student
    return recipe if settings.size is None else _fitted(recipe, _checkpoint_search(settings, head))


def refuse_checkpoint_budget(settings: StudentSettings, head: Head) -> None:
    """Raise RecipeError if no student that is cut from the checkpoint fits into the budget."""
    if settings.budget is not None:
        _checkpoint_search(settings, head).fitted(settings.budget)


def _checkpoint_search(settings: StudentSettings, head: Head) -> SizeSearch:
    assert settings.checkpoint is not None
    model = empty_classifier(settings.checkpoint, head)
    return SizeSearch(model, _given(settings), settings.checkpoint, ranks=False, widths=False)


def refuse_more_layers(settings: StudentSettings, checkpoint: PreTrainedConfig) -> None:
    """Raise RecipeError for more layers than the checkpoint with this configuration has."""
    depth = checkpoint.num_hidden_layers
    if (settings.layers or 0) > depth:
        raise RecipeError(
            f"The student is to have {settings.layers} layers, and the checkpoint {settings.checkpoint} has {depth}.",
            expected=f"at most {depth}",
            remedy="lower --student-layers, or take another checkpoint",
        )


def _given(settings: StudentSettings) -> StudentShape:
    named = settings.layer_map if isinstance(settings.layer_map, tuple) else ()
    return StudentShape(settings.layers or len(named) or None, settings.width, settings.embedding_rank)


def _fitted(recipe: Recipe, search: SizeSearch) -> Recipe:
    settings, budget = recipe.student, recipe.student.budget
    assert budget is not None
    if settings.checkpoint is not None:
        refuse_more_layers(settings, search.model.config)
    shape, size = search.fitted(budget)
    logger.info(f"student.size {settings.size}: {shape.of(search.source)}; {budget.shown(size)}")
    if shape.width is not None and settings.width is None:
        counted = (
            "" if budget.parameters else ", or count what an INT8 export holds: about a byte a parameter"
        )
        logger.warning(
            f"no student of {search.source}'s width fits into {settings.size}, so this one starts from random "
            f"weights: pre-train it first (gradistill pretrain), raise the size{counted}"
        )
    return recipe.with_student_fields(layers=shape.layers, width=shape.width, embedding_rank=shape.rank)
