"""Write teacher signals into a store, for one recipe or for several."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gradistill.commands.model_pair import ModelPair
from gradistill.commands.prepared_run import build_student, prepared_run
from gradistill.commands.signal_stores import (
    DEFAULT_SETTINGS,
    StoreSettings,
    build_missing_shards,
    repaired_by_the_first,
)
from gradistill.commands.student_budget import on_budget
from gradistill.commands.task_run import TaskRun, replaces_words
from gradistill.data import DataChoice
from gradistill.data.data_source import Source
from gradistill.errors import GradistillError, RecipeError
from gradistill.io import path_of
from gradistill.models.device_map import is_spread
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.model_source import ModelSource
from gradistill.recipe import Recipe
from gradistill.recipe.schema import check_recipe
from gradistill.signals import Signal

logger = logging.getLogger(__name__)


def store_signals(
    teacher: ModelSource,
    data: DataChoice | Source,
    output: str | Path | None,
    recipe: Recipe,
    *,
    others: Sequence[Recipe] = (),
    settings: StoreSettings = DEFAULT_SETTINGS,
) -> Path:
    """Write the teacher signals that recipes need into a store, or finish one; returns its folder.

    Parameters:
        ``teacher``: a folder, a hub id, or a pair ``(model, tokenizer)``.
        ``data``: a ``DataChoice``, or what its ``source`` may be.
        ``output``: the store's folder; None for one in the cache.
        ``recipe``: the recipe whose signals are stored.
        ``others``: further recipes whose signals are stored too, for the same rows, cut at the same length. A recipe
            that does not fit this teacher is left out, with a warning.
        ``settings``: the encoding, whether damaged shards are repaired, and how a large teacher is loaded.

    Raises RecipeError for a recipe without a teacher, StoreError for a folder that holds something else.

    Example: ``store_signals("runs/teacher", DataChoice("DATA/mrpc"), "stores/mrpc", load_recipe("adkd"))``
    """
    check_recipe(recipe)
    if not recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} needs no teacher",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    run = prepared_run(teacher, DataChoice.of(data), recipe, loading=settings.loading)
    reader, online = run.models.teacher, run.models.online
    assert reader is not None
    assert online is not None
    signals = [*run.required_signals(), *_signals_of_others(run, reader, others)]
    rows = run.encoded("train", words=replaces_words(signals)).dataset
    reader.limits.check(rows, run.tokenizer, owner="teacher")
    validation = run.encoded("validation").dataset
    if not is_spread(reader.model):
        # a prediction before the store is built would move the weights in memory, and change the store's last bits
        run.warn_of_weak_teacher(validation)
    plan = run.plan(signals, rows, settings.encoding, path_of(output) if output else None)
    if settings.repair and repaired_by_the_first(plan, online, run.tokenizer):
        return plan.folder
    build_missing_shards(plan, online, run.tokenizer)
    if is_spread(reader.model):
        run.warn_of_weak_teacher(validation)
    return plan.folder


def _signals_of_others(run: TaskRun, teacher: LoadedModel, others: Sequence[Recipe]) -> Iterator[Signal]:
    """The signals of further recipes. A recipe that does not fit this teacher is left out, with a warning."""
    for other in others:
        try:
            other = on_budget(other, teacher.model)
            student = build_student(teacher, run.tokenizer, other.student)
            yield from replace(
                run, recipe=other, models=ModelPair.of(student, teacher, other)
            ).required_signals()
        except GradistillError as error:
            logger.warning(f"the store does not serve {other.method}: {error}")
