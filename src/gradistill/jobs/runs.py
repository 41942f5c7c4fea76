"""Fine-tuning, distillation and stores of teacher signals, from names to folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from gradistill.data import Splits, align_labels, load_splits, load_unlabelled
from gradistill.errors import GradistillError, RecipeError
from gradistill.jobs import Say
from gradistill.jobs.checking import with_positive
from gradistill.jobs.folder import check_run
from gradistill.jobs.running import Run
from gradistill.jobs.signals import AUTO, DEFAULT_ENCODING, StoreChoice, filled, mended
from gradistill.models.loading import Head, label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.placing import DeviceMap
from gradistill.models.student import (
    narrow_student,
    share_embeddings,
    silence_embedding_dropout,
    student_from_checkpoint,
    student_from_teacher,
)
from gradistill.models.tokenizers import check_same_tokens
from gradistill.objectives._contract import Request
from gradistill.printing import write
from gradistill.recipe import Recipe, StudentSettings
from gradistill.signals.layout import Encoding
from gradistill.signals.teacher import OnlineTeacher
from gradistill.training.trainer import online_teacher


@dataclass(frozen=True)
class DataChoice:
    """Where the rows are and how to read them; see ``load_splits``."""

    source: str
    task: str | None = None
    label_column: str | None = None
    text_columns: tuple[str, ...] | None = None
    unlabelled: str | None = None
    """Where more rows are, which nobody labelled (``load_unlabelled``)."""
    label_map: Mapping[str, str] | None = None
    """The teacher's output of each class of the data, where their names differ (``align_labels``)."""
    positive: str | None = None
    """Of two classes the one that F1 is of; without it the teacher's, or the rarer one."""

    def load(self, splits: tuple[str, ...] = ("train", "validation")) -> Splits:
        return load_splits(
            self.source,
            task=self.task,
            splits=splits,
            label_column=self.label_column,
            text_columns=self.text_columns,
        )


def finetune(
    model: str,
    data: DataChoice,
    output: str | Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    say: Say = write,
) -> dict[str, Any]:
    """Fine-tune a pre-trained model into a teacher; returns what ``metrics.json`` holds."""
    if recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} needs a teacher",
            expected="finetune",
            remedy="use gradistill distill",
        )
    check_run(Path(output), recipe, overwrite=overwrite, reads=(model, data.source))
    splits = with_positive(data.load(), data.positive)
    say(splits.describe())
    set_seed(recipe.training.seed)
    tokenizer = load_tokenizer(model)
    student, _ = load_classifier(model, head=Head(splits.task.labels), new_head=True)
    names = {"student": model, "data": data.source}
    run = Run(Path(output), recipe, splits, tokenizer, say, names=names)
    return run.train(student, None, overwrite=overwrite)


def distill(
    teacher: str,
    data: DataChoice,
    output: str | Path,
    recipe: Recipe,
    *,
    signals: StoreChoice = AUTO,
    callbacks: Sequence[TrainerCallback] = (),
    overwrite: bool = False,
    say: Say = write,
) -> dict[str, Any]:
    """Distil a fine-tuned teacher into a student; returns what ``metrics.json`` holds.

    ``signals`` says where what the teacher says comes from: a store in the cache, in a folder, or the teacher itself.
    ``callbacks`` go to transformers' Trainer.
    """
    reads = (teacher, data.source, recipe.student.checkpoint)
    check_run(Path(output), recipe, overwrite=overwrite, reads=(*reads, data.unlabelled))
    run, teacher_model, student = _pair(teacher, data, Path(output), recipe, say, signals)
    return replace(run, callbacks=callbacks).train(student, teacher_model, overwrite=overwrite)


def store_signals(
    teacher: str,
    data: DataChoice,
    output: str | Path | None,
    recipe: Recipe,
    *,
    others: Sequence[Recipe] = (),
    encoding: Encoding = DEFAULT_ENCODING,
    repair: bool = False,
    device_map: DeviceMap | None = None,
    say: Say = write,
) -> Path:
    """Write what a recipe asks of the teacher into a store, or finish one; without ``output``, into the cache.

    What ``others`` ask is written beside it, so that one store serves them all: they read the same rows, cut at the
    same length; one that cannot learn from this teacher is left out, and said. With ``repair`` damaged shards of a
    finished store are written again, and no others. With a ``device_map`` accelerate spreads a large teacher over the
    devices there are. Returns the folder.
    """
    if not recipe.needs_teacher:
        raise RecipeError(
            f"the recipe {recipe.method!r} asks nothing of a teacher",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    run, teacher_model, student = _pair(
        teacher, data, Path(output or "."), recipe, say, device_map=device_map
    )
    online = online_teacher(teacher_model, recipe.compute)
    asked = [*run.asked(student, online), *_asked_beside(run, online, teacher_model, others)]
    run.doubt(teacher_model, run.encoded("validation"))
    plan = run.plan(asked, online, run.encoded("train"), encoding, Path(output) if output else None)
    if repair and mended(plan, online, run.tokenizer, say):
        return plan.folder
    filled(plan, online, run.tokenizer, say)
    return plan.folder


def _asked_beside(
    run: Run, online: OnlineTeacher, teacher: PreTrainedModel, others: Sequence[Recipe]
) -> Iterator[Request]:
    for other in others:
        try:
            student = build_student(teacher, run.tokenizer, other.student)
            yield from replace(run, recipe=other).asked(student, online)
        except GradistillError as error:
            run.say(f"{other.method} is not served: {error}")


def _pair(
    teacher: str,
    data: DataChoice,
    output: Path,
    recipe: Recipe,
    say: Say,
    signals: StoreChoice = AUTO,
    device_map: DeviceMap | None = None,
) -> tuple[Run, PreTrainedModel, PreTrainedModel]:
    """The run, the teacher and the new student that these names describe."""
    tokenizer = load_tokenizer(teacher)
    teacher_model, _ = load_classifier(teacher, device_map=device_map)
    splits = align_labels(data.load(), label_names(teacher_model), label_map=data.label_map)
    splits = with_positive(splits, data.positive, [teacher])
    say(splits.describe())
    set_seed(recipe.training.seed)
    student = build_student(teacher_model, tokenizer, recipe.student)
    set_padding(teacher_model, tokenizer)
    names = {"teacher": teacher, "data": data.source}
    unlabelled = _unlabelled(data, recipe, splits, say)
    return Run(output, recipe, splits, tokenizer, say, signals, names, unlabelled), teacher_model, student


def _unlabelled(data: DataChoice, recipe: Recipe, splits: Splits, say: Say) -> Dataset | None:
    """The rows without labels, numbered behind those of the training split."""
    if data.unlabelled is None:
        return None
    if not recipe.needs_teacher:
        raise RecipeError(
            f"unlabelled rows came for {recipe.method!r}, which learns from labels alone",
            expected="a method with a teacher",
            remedy="see gradistill methods",
        )
    gold = [t.name for t in recipe.objectives.values() if getattr(t.objective, "view", None) == "gold"]
    if gold and splits.task.labels is None:
        raise RecipeError(
            f"{gold[0]} differentiates the distance from the gold score, which unlabelled rows do not have",
            expected="another target, such as log_odds (the prediction)",
            remedy=f"--set objectives.{gold[0]}.target=log_odds --set objectives.{gold[0]}.view=all, "
            "or --settings default",
        )
    rows = load_unlabelled(data.unlabelled, splits.task, first_index=len(splits.rows["train"]))
    say(f"unlabelled: {len(rows)} rows, which learn from the teacher alone")
    return rows


def build_student(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings
) -> PreTrainedModel:
    """The student that the settings describe; without a depth or a checkpoint, half of the teacher's layers."""
    if settings.checkpoint is not None:
        if settings.layers is not None or settings.width is not None:
            raise RecipeError(
                "both a student checkpoint and a number of student layers, or a width, came",
                expected="one of them",
                remedy="drop --student-layers and student.width: a checkpoint has its own",
            )
        check_same_tokens(load_tokenizer(settings.checkpoint), tokenizer)
        student = student_from_checkpoint(settings.checkpoint, teacher, dropout=settings.dropout)
    else:
        layers = settings.layers or max(1, teacher.config.num_hidden_layers // 2)
        if settings.width is None:
            student = student_from_teacher(
                teacher, layers, layer_map=settings.layer_map, dropout=settings.dropout
            )
        else:
            student = narrow_student(teacher, layers, settings.width, dropout=settings.dropout)
    set_padding(student, tokenizer)
    share_embeddings(student, teacher, settings.embeddings)
    if settings.dropout == "not_in_embeddings":
        silence_embedding_dropout(student)
    return student
