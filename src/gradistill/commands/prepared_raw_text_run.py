"""From a teacher that reads raw texts to a training run: load the teacher and the rows, build the student."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from gradistill.commands.answer_sources import AnswerSource
from gradistill.commands.data_warnings import (
    log_splits,
    refuse_other_kind_of_model,
    refuse_words,
    unknown_token_warnings,
    warned,
)
from gradistill.commands.file_source import FileSource
from gradistill.commands.function_source import FunctionSource, function_name
from gradistill.commands.given_models import AnyTeacher, is_function, is_several
from gradistill.commands.live_source import LiveSource
from gradistill.commands.mean_source import MEAN, ONE_A_LABEL, mean_source
from gradistill.commands.model_pair import ModelPair
from gradistill.commands.prepared_run import (
    cut_checkpoint,
    refuse_gold_scores,
    refuse_idle_rows,
    refuse_width_of_checkpoint,
    set_embedding_rank,
    unlabelled_rows,
    view_warnings,
)
from gradistill.commands.raw_text_run import RawTextRun, no_near_words
from gradistill.commands.recorded_data import with_positive
from gradistill.commands.signal_stores import AUTO, StoreChoice
from gradistill.commands.student_budget import (
    checkpoint_on_budget,
    refuse_checkpoint_budget,
    refuse_more_layers,
)
from gradistill.commands.text_lengths import (
    raw_text_length,
    refuse_idle_overlap,
    task_length,
)
from gradistill.data import DataChoice, Splits, align_labels, read_splits
from gradistill.data.label_matching import Outputs
from gradistill.data.prompt_template import PromptedTeacher, PromptTemplate, set_template
from gradistill.data.teacher_answers import AnswerFile, TeacherAnswers
from gradistill.errors import ModelError, RecipeError
from gradistill.models.facts import is_multi_label
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import (
    PACKAGED,
    Head,
    label_names,
    load_classifier,
    load_config,
    load_tokenizer,
    set_padding,
)
from gradistill.models.model_source import model_folder
from gradistill.models.student import silence_embedding_dropout, student_for_labels
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading
from gradistill.models.tokenizers import check_same_tokens
from gradistill.objectives.base import ANY_PAIR, Pair
from gradistill.objectives.cross_tokenizer import check_cross_tokenizer_objectives
from gradistill.recipe import Recipe, StudentSettings

logger = logging.getLogger(__name__)


def reads_raw_texts(teacher: AnyTeacher, settings: StudentSettings) -> bool:
    """Whether a teacher reads raw texts: it is no single model, has a prompt, or the student has another tokenizer."""
    given: Any = teacher
    if isinstance(given, PromptedTeacher) or _kind_of_outputs(given) is not None:
        return True
    if settings.checkpoint is None:
        return False
    student, teacher_tokenizer = load_tokenizer(settings.checkpoint), load_tokenizer(given)
    try:
        check_same_tokens(student, teacher_tokenizer)
    except ModelError as error:
        lines = error.what.split("\n")
        logger.info(
            f"teacher and student are compared by words: {lines[0].rstrip(':')} ({lines[-1].strip(' -')})"
        )
        return True
    return False


def refuse_store(signals: StoreChoice) -> None:
    """Raise RecipeError for options of a store, because the signals of such a teacher are kept in memory."""
    where = [] if signals.where == AUTO.where else [f"--signals {signals.where}"]
    if options := [*where, *signals.store_options]:
        raise RecipeError(
            f"{' and '.join(options)} is about a store, and the signals of a teacher that reads other tokens than the "
            "student, or of a file or a function, are kept in memory",
            expected="--signals auto, without --encoding and --verify",
            remedy="leave these options out",
        )


def with_student(teacher: AnyTeacher, recipe: Recipe) -> Recipe:
    """The recipe, with ``minilm-l6`` as student if it names none and the student cannot be cut from the teacher."""
    settings = recipe.student
    if (
        settings.checkpoint is not None
        or isinstance(teacher, str | PathLike)
        or not reads_raw_texts(teacher, settings)
    ):
        return recipe
    if settings.width is not None:
        raise RecipeError(
            "A student's width is given, and there is no teacher to make a narrower one of.",
            expected="a checkpoint of its own width",
            remedy="drop student.width, and give --student CHECKPOINT",
        )
    logger.info(f"student: {PACKAGED}, as no --student was given and none is cut from such a teacher")
    return recipe.with_student_fields(checkpoint=PACKAGED)


def prepared_raw_text_run(
    teacher: AnyTeacher,
    data: DataChoice,
    recipe: Recipe,
    *,
    optional: tuple[str, ...] = (),
    loading: TeacherLoading = AS_IT_IS,
) -> RawTextRun:
    """The run of a teacher that reads raw texts (``reads_raw_texts``), with a new student and the rows. ``optional``
    splits are read if they exist.

    The recipe names the student's checkpoint (``with_student``). Faults of options and models are raised before the
    rows are read.
    """
    _refuse_options(teacher, data, recipe)
    source, splits = _source(teacher, TeacherRows(data, optional, recipe.student), loading)
    log_splits(splits)
    for rows, given in (
        ("copies that --augment makes", recipe.training.augment),
        ("unlabelled rows", data.unlabelled),
    ):
        if given:
            refuse_gold_scores(recipe, splits, rows)
    splits = warned(splits, view_warnings(recipe, len(splits.task.labels or ())))
    recipe = checkpoint_on_budget(recipe, Head(splits.task.labels, splits.task.multi_label))
    set_seed(recipe.training.seed)
    student, tokenizer = _student(recipe.student, splits)
    splits = warned(splits, unknown_token_warnings(splits, tokenizer))
    usual = source.max_length if isinstance(source, LiveSource) else None
    recipe = recipe.with_length(raw_text_length(recipe.training.max_length, student, usual))
    return RawTextRun(
        recipe=recipe,
        models=ModelPair(
            student, None, recipe, shared_embeddings=False, teacher_facts=source.facts(splits.task)
        ),
        tokenizer=tokenizer,
        names={"teacher": source.name, "data": data.name},
        splits=splits,
        unlabelled=unlabelled_rows(data, recipe, splits),
        source=source,
    )


def _refuse_options(teacher: AnyTeacher, data: DataChoice, recipe: Recipe) -> None:
    """Raise an error for settings that are wrong whatever the rows are."""
    given: Any = teacher
    kind = _kind_of_outputs(given)
    settings, training = recipe.student, recipe.training
    assert settings.checkpoint is not None
    refuse_idle_rows(data, recipe)
    if training.windows not in (None, "off"):
        raise RecipeError(
            f"windows are {training.windows}, and a teacher that reads raw texts has other windows",
            expected="a teacher with the student's tokens",
            remedy="leave --windows out: long texts are cut",
        )
    refuse_idle_overlap(training, "")
    if training.augment and kind is not None:
        raise no_near_words(kind)
    facts = replace(ANY_PAIR.teacher, reads_raw_texts=True, outputs_only=kind is not None)
    check_cross_tokenizer_objectives(recipe.objectives.values(), Pair(ANY_PAIR.student, facts))
    _refuse_student(settings)
    refuse_more_layers(settings, load_config(settings.checkpoint))


def _kind_of_outputs(teacher: Any) -> str | None:
    """The kind of a teacher that gives outputs only; None for a single model."""
    if isinstance(teacher, TeacherAnswers):
        return FileSource.kind
    if is_several(teacher):
        return ONE_A_LABEL if isinstance(teacher, dict) else MEAN
    return FunctionSource.kind if is_function(teacher) else None


def _source(teacher: AnyTeacher, rows: TeacherRows, loading: TeacherLoading) -> tuple[AnswerSource, Splits]:
    """The teacher, and the rows with class ids in the order of its labels."""
    given: Any = teacher
    data = rows.data
    if _kind_of_outputs(given) is not None:
        loading.refuse("a teacher that is no model, or is several")
    if isinstance(given, TeacherAnswers):
        files = [AnswerFile.read(file) for file in (given.file, given.validation) if file is not None]
        if files[0].labels is None:
            _refuse_label_map(data, "the file's answers are the labels themselves, or scores")
        splits = rows.read(files[0].labels, "file of answers")
        splits = with_positive(splits, data.positive)
        return FileSource.of(given, files, splits), splits
    if is_several(given):
        return mean_source(given, data, rows.of_several)
    if is_function(given):
        labels = getattr(given, "labels", None)
        if labels is None:
            _refuse_label_map(data, "the function names no labels (its attribute labels)")
        splits = rows.read(None if labels is None else [*map(str, labels)], "function")
        if labels is None and splits.task.labels is not None:
            logger.info(
                f"the function's columns are assumed to be {', '.join(splits.task.labels)}, in this order; "
                "its attribute labels would name them"
            )
        splits = with_positive(splits, data.positive)
        return FunctionSource.of(given, function_name(given), splits.task), splits
    template, notes = None, {}
    if isinstance(given, PromptedTeacher):
        template, given = given.template, given.model
        notes = {"template": template}
    tokenizer = load_tokenizer(given)
    model, _ = load_classifier(given, loading=loading)
    splits = rows.read([*label_names(model).values()])
    if template is not None:
        set_template(tokenizer, PromptTemplate.of(template, splits.task.text_columns))
    refuse_other_kind_of_model(splits.task, is_multi_label(model), "teacher")
    splits = with_positive(splits, data.positive, [model_folder(given)])
    set_padding(model, tokenizer)
    reader = LoadedModel("teacher", model_folder(given), model)
    length = task_length(None, tokenizer, [reader])
    assert rows.student.checkpoint is not None
    return LiveSource(reader, tokenizer, length, load_tokenizer(rows.student.checkpoint), notes), splits


@dataclass(frozen=True)
class TeacherRows:
    """Reads the rows for a teacher as soon as its labels are known. It also holds the settings of the student."""

    data: DataChoice
    optional: tuple[str, ...]
    student: StudentSettings

    def read(self, names: Sequence[str] | None = None, owner: str = "teacher") -> Splits:
        """The rows, with class ids in the order of the teacher's labels ``names``, if it has names."""
        data, outputs = self.data, None
        if names is not None:
            refuse_checkpoint_budget(self.student, Head(tuple(names) if len(names) > 1 else None))
            outputs = Outputs(tuple(names), data.label_map or {}, labelled=True)
        splits = read_splits(data, optional=self.optional, outputs=outputs)
        refuse_words(splits.task, "a teacher that reads raw texts")
        if names is None:
            return splits
        return align_labels(splits, dict(enumerate(names)), owner, label_map=data.label_map)

    def of_several(self, names: Sequence[str] | None) -> Splits:
        """The rows for several teachers; ``names`` is None for functions without label names."""
        if names is None:
            _refuse_label_map(self.data, "the functions name no labels (their attribute labels)")
        return self.read(names)


def _refuse_label_map(data: DataChoice, why: str) -> None:
    if data.label_map is not None:
        raise RecipeError(
            f"A label map was given, and {why}.",
            expected="a teacher with a name for each output",
            remedy="leave --label-map out",
        )


def _refuse_student(settings: StudentSettings) -> None:
    refuse_width_of_checkpoint(settings)
    if settings.embeddings != "own":
        raise RecipeError(
            f"student.embeddings is {settings.embeddings}, and the student reads other tokens than its teacher",
            expected="own",
            remedy="--set student.embeddings=own",
        )


def _student(settings: StudentSettings, splits: Splits) -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    """The student of the checkpoint, and its tokenizer."""
    assert settings.checkpoint is not None
    tokenizer = load_tokenizer(settings.checkpoint)
    head = Head(splits.task.labels, splits.task.multi_label)
    model = cut_checkpoint(student_for_labels(settings.checkpoint, head, dropout=settings.dropout), settings)
    set_padding(model, tokenizer)
    set_embedding_rank(model, settings)
    student = LoadedModel("student", settings.checkpoint, model)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(model, student.probe)
    return student, tokenizer
