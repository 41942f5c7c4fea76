"""Distillation: build a student from a teacher, and train it to match the teacher's signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from gradistill.commands.given_models import AnyTeacher, source_paths
from gradistill.commands.prepared_raw_text_run import (
    prepared_raw_text_run,
    reads_raw_texts,
    refuse_store,
    with_student,
)
from gradistill.commands.prepared_run import TEST, prepared_run
from gradistill.commands.run_folder import check_run
from gradistill.commands.run_result import RunResult
from gradistill.commands.signal_stores import (
    AUTO,
    StoreChoice,
)
from gradistill.commands.teacher_prompt import refuse_other_columns, settled_prompt
from gradistill.data import DataChoice
from gradistill.data.data_source import Source
from gradistill.io import path_of
from gradistill.models.model_source import model_paths
from gradistill.recipe import Recipe
from gradistill.recipe.schema import check_recipe
from gradistill.training.arguments import check_training


def distill(  # noqa: PLR0913 (public; callbacks are the Trainer's own keyword)
    teacher: AnyTeacher,
    data: DataChoice | Source,
    output: str | Path,
    recipe: Recipe,
    *,
    signals: StoreChoice = AUTO,
    callbacks: Sequence[TrainerCallback] = (),
    overwrite: bool = False,
) -> RunResult:
    """Distil a fine-tuned teacher into a student; returns what ``metrics.json`` holds, with the student.

    Parameters:
        ``teacher``: a folder, a hub id, or a pair ``(model, tokenizer)``, which is left as it is; ``TeacherAnswers``,
            files of answers; a function from a list of texts (or pairs) to probabilities; a ``PromptedTeacher``;
            or several of these: a list, whose probabilities are averaged, or a dictionary with one teacher a label.
            docs/teachers.md lists the objectives for these, and for a teacher with another tokenizer.
        ``data``: a ``DataChoice``, or what its ``source`` may be: a path, a ``Dataset``, a frame, a list of dicts.
        ``output``: the run folder. An unfinished run of the same recipe and data in it goes on.
        ``recipe``: a recipe from ``load_recipe``; it also describes the student.
        ``signals``: where teacher signals come from (a store in the cache, in a folder, or the teacher itself), and how
            a large teacher is loaded.
        ``callbacks``: for the Trainer of transformers.
        ``overwrite``: replace an earlier run in that folder.

    Raises GradistillError before any work if the run cannot be trained. It then leaves no folder.

    Example: ``distill("runs/teacher", DataChoice("DATA/mrpc"), "runs/student", load_recipe("adkd")).student``
    """
    check_recipe(recipe)
    folder, choice = path_of(output), DataChoice.of(data)
    given: Any
    given, recipe = settled_prompt(teacher, recipe)
    refuse_other_columns(given, choice)
    recipe = with_student(given, recipe)
    reads = (*source_paths(teacher), *model_paths(recipe.student.checkpoint), *choice.paths)
    check_run(folder, recipe, overwrite=overwrite, reads=reads)
    check_training(recipe)
    if reads_raw_texts(given, recipe.student):
        refuse_store(signals)
        run = prepared_raw_text_run(given, choice, recipe, optional=TEST, loading=signals.loading)
    else:
        signals.check()
        run = prepared_run(given, choice, recipe, optional=TEST, loading=signals.loading)
    run = replace(run, signals=signals, callbacks=callbacks)
    return RunResult(run.train(folder, overwrite=overwrite), folder)
