"""From names to a training run: load the teacher and the rows, build the student, set the text length."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from gradistill.commands.data_warnings import (
    log_splits,
    refuse_other_kind_of_model,
    refuse_words,
    unknown_token_warnings,
    warned,
)
from gradistill.commands.model_pair import ModelPair
from gradistill.commands.recorded_data import with_positive
from gradistill.commands.student_budget import on_budget, refuse_more_layers
from gradistill.commands.task_run import TaskRun
from gradistill.commands.teacher_prompt import refuse_prompt
from gradistill.commands.text_lengths import (
    refuse_idle_overlap,
    refuse_windows,
    task_length,
    task_windows,
)
from gradistill.commands.token_run import task_run_of
from gradistill.data import DataChoice, Splits, align_labels, read_splits
from gradistill.data.label_matching import Outputs
from gradistill.data.split_sources import refuse_missing
from gradistill.data.unlabelled_texts import Unlabelled, read_unlabelled
from gradistill.errors import RecipeError
from gradistill.models.factorized_embedding import factorize_embeddings
from gradistill.models.facts import is_multi_label, is_token_classifier
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name
from gradistill.models.student import (
    narrow_student,
    pair_warnings,
    share_embeddings,
    silence_embedding_dropout,
    student_from_checkpoint,
    student_from_teacher,
)
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading
from gradistill.models.tokenizers import check_same_rows, check_same_tokens
from gradistill.recipe import Recipe, StudentSettings

logger = logging.getLogger(__name__)

TEST = ("test",)
"""The split that is read if it has labels. Its metrics are reported at the end; it selects nothing."""
MANY_LABELS = 10
"""With more labels, the gradients of all labels cost more than the rest of a step."""


def prepared_run(
    teacher: ModelSource,
    data: DataChoice,
    recipe: Recipe,
    *,
    optional: tuple[str, ...] = (),
    loading: TeacherLoading = AS_IT_IS,
) -> TaskRun:
    """The run with its teacher, a new student and the rows. ``optional`` splits are read if they exist.

    Faults of options and models are raised before the rows are read.
    """
    refuse_prompt(recipe, "this command")
    refuse_idle_rows(data, recipe)
    tokenizer = load_tokenizer(teacher)
    teacher_model, _ = load_classifier(teacher, loading=loading, tokens=True)
    reader = LoadedModel("teacher", model_folder(teacher), teacher_model)
    refuse_idle_overlap(recipe.training, reader.name)
    recipe = on_budget(recipe, teacher_model)
    set_seed(recipe.training.seed)
    student = build_student(reader, tokenizer, recipe.student)
    set_padding(teacher_model, tokenizer)
    length = task_length(recipe.training.max_length, tokenizer, [reader, student])
    recipe = recipe.with_length(length)
    recipe = recipe.with_windows(task_windows(recipe.training, tokenizer, reader))
    models = ModelPair.of(student, reader, recipe)
    names, tokens = label_names(teacher_model), is_token_classifier(teacher_model)
    if not tokens:  # a TokenRun checks the signals for token classifiers itself
        models.required_signals()

    outputs = Outputs(tuple(names.values()), data.label_map or {}, labelled=True)
    splits = read_splits(data, optional=optional, outputs=outputs)
    refuse_other_kind_of_model(splits.task, is_multi_label(teacher_model), "teacher", tokens)
    refuse_windows(recipe.windows, splits.task)
    splits = align_labels(splits, names, label_map=data.label_map)
    splits = with_positive(splits, data.positive, [model_folder(teacher)])
    log_splits(splits)
    if recipe.training.augment:
        refuse_words(splits.task, "--augment")
        refuse_gold_scores(recipe, splits, "copies that --augment makes")
    if recipe.student.checkpoint is not None:
        student_tokenizer = load_tokenizer(recipe.student.checkpoint)
        check_same_rows(student_tokenizer, tokenizer, splits.rows["train"], splits.task, max_length=length)
    layers = reader.probe.layers, student.probe.layers
    splits = warned(splits, pair_warnings(reader.model, student.model, layers=layers))
    splits = warned(splits, view_warnings(recipe, len(names)))
    splits = warned(splits, unknown_token_warnings(splits, tokenizer))
    return task_run_of(splits.task)(
        recipe=recipe,
        models=models,
        tokenizer=tokenizer,
        names={"teacher": model_name(teacher), "data": data.name},
        splits=splits,
        unlabelled=unlabelled_rows(data, recipe, splits),
    )


def refuse_idle_rows(data: DataChoice, recipe: Recipe) -> None:
    """Raise an error for unlabelled rows that no objective uses, or whose file does not exist."""
    if data.unlabelled is None:
        return
    if not recipe.needs_teacher:
        raise RecipeError(
            f"unlabelled rows are given for {recipe.method!r}, which learns from labels alone",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    refuse_missing(data.unlabelled)


def unlabelled_rows(data: DataChoice, recipe: Recipe, splits: Splits) -> Unlabelled | None:
    """The rows without labels. Their numbers follow those of the training rows."""
    if data.unlabelled is None:
        return None
    refuse_words(splits.task, "--unlabelled")
    refuse_gold_scores(recipe, splits, "unlabelled rows")
    unlabelled = read_unlabelled(
        data.unlabelled,
        splits.task,
        first_index=len(splits.rows["train"]),
        skip_incomplete=data.skip_incomplete,
    )
    left_out = f" ({unlabelled.incomplete} without a text left out)" if unlabelled.incomplete else ""
    logger.info(f"unlabelled: {len(unlabelled.rows)} rows, with signals of the teacher only{left_out}")
    return unlabelled


def refuse_gold_scores(recipe: Recipe, splits: Splits, rows: str) -> None:
    gold = [t.name for t in recipe.objectives.values() if getattr(t.objective, "target", None) == "gold_loss"]
    if gold and (splits.task.labels is None or splits.task.multi_label):
        what = "loss of the gold labels" if splits.task.labels else "distance from the gold score"
        raise RecipeError(
            f"{gold[0]} differentiates the {what}, which {rows} do not have",
            expected="another target, such as log_odds",
            remedy=f"--set objectives.{gold[0]}.target=log_odds --set objectives.{gold[0]}.view=all, "
            "or --settings default",
        )


def view_warnings(recipe: Recipe, labels: int) -> Iterator[str]:
    """A warning for each objective whose view takes, or draws from, more than ``MANY_LABELS`` labels.

    Example: ``[*view_warnings(load_recipe("adkd"), 77)]``
    """
    costs = {
        "all": f"takes the gradients of all {labels} labels in every step",
        "sampled": f"draws one of {labels} labels in every step, and weights its gradient {labels} times: "
        "with 77 labels that cost .15 of accuracy",
    }
    for term in recipe.objectives.values():
        name, view = term.objective.name, getattr(term.objective, "view", None)
        if labels > MANY_LABELS and view in costs:
            yield f"{name} {costs[view]}. To take the teacher's label only: --set objectives.{name}.view=teacher"


def refuse_width_of_checkpoint(settings: StudentSettings) -> None:
    """Raise RecipeError where a checkpoint and a width are given: a checkpoint has its own width."""
    if settings.width is not None:
        raise RecipeError(
            "A student checkpoint is given, and a width too.",
            expected="one of them",
            remedy="drop student.width: a checkpoint has its own (--student-layers cuts its layers)",
        )


def cut_checkpoint(model: PreTrainedModel, settings: StudentSettings) -> PreTrainedModel:
    """The checkpoint with ``settings.layers`` of its own layers, or with all of them if that is not set."""
    if settings.layers is None:
        _note_idle_layer_map(settings, "student.layers is not set: the checkpoint keeps all of its layers")
        return model
    refuse_more_layers(settings, model.config)
    return student_from_teacher(
        model, settings.layers, layer_map=settings.layer_map, dropout=settings.dropout
    )


def _note_idle_layer_map(settings: StudentSettings, reason: str) -> None:
    """Log a warning. It is no error, because the authors' settings of some methods have a layer map."""
    if settings.layer_map != StudentSettings().layer_map:
        logger.warning(f"student.layer_map {settings.layer_map} changes nothing: {reason}")


def build_student(
    teacher: LoadedModel, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings
) -> LoadedModel:
    """The student that the settings describe; without a depth or a checkpoint, half of the teacher's layers."""
    if settings.checkpoint is not None:
        refuse_width_of_checkpoint(settings)
        check_same_tokens(load_tokenizer(settings.checkpoint), tokenizer)
        model = student_from_checkpoint(settings.checkpoint, teacher.model, dropout=settings.dropout)
        model = cut_checkpoint(model, settings)
    else:
        layers = settings.layers or max(1, teacher.model.config.num_hidden_layers // 2)
        if settings.width is None:
            model = student_from_teacher(
                teacher.model, layers, layer_map=settings.layer_map, dropout=settings.dropout
            )
        else:
            _note_idle_layer_map(settings, "a student of its own width takes no layers of the teacher")
            model = narrow_student(teacher.model, layers, settings.width, dropout=settings.dropout)
    set_padding(model, tokenizer)
    share_embeddings(model, teacher.model, settings.embeddings)
    set_embedding_rank(model, settings)
    student = LoadedModel("student", "", model)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(model, student.probe)
    return student


def refuse_rank(settings: StudentSettings) -> None:
    """Raise RecipeError for an embedding rank where the student takes the teacher's embeddings."""
    if settings.embedding_rank is not None and settings.embeddings != "own":
        raise RecipeError(
            f"student.embedding_rank is set, and student.embeddings is {settings.embeddings}",
            expected="embeddings of the student's own: a copy of the teacher's embeddings has their rank",
            remedy="set student.embeddings to own, or leave the rank out",
        )


def set_embedding_rank(model: PreTrainedModel, settings: StudentSettings) -> None:
    """Factorize the student's embeddings into two matrices, if the settings have a rank."""
    if getattr(model.config, "embedding_rank", None) is not None:
        model.config.embedding_rank = None  # copied from the teacher or checkpoint; training does not keep it
    if settings.embedding_rank is not None:
        refuse_rank(settings)
        lost = factorize_embeddings(model, settings.embedding_rank)
        logger.info(
            f"embeddings of rank {settings.embedding_rank}: {lost:.0%} of their norm is lost at first"
        )
