"""The models of an audit: teacher, students and a reference, over the same labels."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from gradistill.auditing.onnx_predictor import OnnxPredictor
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.commands.audit_model import AuditModel, other_kind, text_length
from gradistill.commands.given_models import AnyModel, source_name
from gradistill.commands.run_folder import record_of
from gradistill.commands.text_lengths import (
    recorded_texts,
    trained_windows,
)
from gradistill.data import Task
from gradistill.data.prompt_template import PromptedTeacher
from gradistill.data.windows import Windows
from gradistill.errors import ModelError, RecipeError
from gradistill.models.random_head import has_head
from gradistill.models.student import pair_warnings, same_weights
from gradistill.models.teacher_loading import AS_IT_IS, TeacherLoading
from gradistill.models.tokenizers import check_same_rows, check_same_tokens

logger = logging.getLogger(__name__)

ROLES = ("teacher", "reference", "constant prediction")
"""Names of rows in tables and pages that are not students. No student gets such a name."""


@dataclass(frozen=True)
class AuditModels:
    """The models in memory, on the accelerator if there is one.

    ``notes`` name the students that tokenize texts otherwise than the teacher. Models that read the same tokens share
    one tokenizer object (``sharing_tokens``).
    """

    teacher: AuditModel
    students: list[AuditModel]
    reference: AuditModel | None = None
    notes: tuple[str, ...] = ()

    def refuse_other_kinds(self) -> None:
        """Raise ModelError where only some of the models are multi-label classifiers."""
        for model in self.compared:
            if model.multi_label != self.teacher.multi_label:
                raise other_kind(model, self.teacher)

    @property
    def token_labels(self) -> bool:
        """Whether the models are token classifiers. Raises ModelError where only some of them are."""
        kinds = [model.token_labels for model in self.every]
        if any(kinds) and not all(kinds):
            owners = [
                next(m for m, tags in zip(self.every, kinds, strict=True) if tags is k) for k in (True, False)
            ]
            raise ModelError(
                f"The {owners[0].owner} labels the words of a text, and the {owners[1].owner} whole texts.",
                expected="models of one task",
                remedy="take other models",
            )
        return all(kinds)

    @classmethod
    def load(
        cls,
        teacher: AnyModel,
        students: Sequence[AnyModel],
        reference: AnyModel | None = None,
        loading: TeacherLoading = AS_IT_IS,
    ) -> AuditModels:
        """Load all models. Raises ModelError for models that cannot be loaded."""
        names = _short_names([source_name(student) for student in students])
        if isinstance(teacher, PromptedTeacher) and isinstance(reference, str | Path):  # trained likewise
            reference = PromptedTeacher(reference, teacher.template)
        return cls(
            AuditModel.load(teacher, "teacher", source_name(teacher), tokens=True, loading=loading),
            [
                AuditModel.load(source, f"student {name}", name, tokens=True)
                for source, name in zip(students, names, strict=True)
            ],
            None
            if reference is None
            else AuditModel.load(reference, "reference", source_name(reference), tokens=True),
        )

    @property
    def names(self) -> list[str]:
        """The names of the students."""
        return [student.name for student in self.students]

    @property
    def compared(self) -> list[AuditModel]:
        """The students, followed by the reference, if there is one."""
        return [*self.students, *([] if self.reference is None else [self.reference])]

    @property
    def every(self) -> list[AuditModel]:
        """All models, the teacher first."""
        return [self.teacher, *self.compared]

    @property
    def tokenizers(self) -> list[PreTrainedTokenizerBase]:
        """Each tokenizer once, the teacher's first."""
        tokenizers = {id(t): t for t in (model.tokenizer for model in self.every) if t is not None}
        return list(tokenizers.values())

    def text_length(self, wanted: int | None) -> int:
        """The largest number of tokens of a text, for all models."""
        return text_length(self.every, wanted)

    @property
    def windows(self) -> Windows | None:
        """The windows for long texts, the same for all models: those of the first model with a training record."""
        readers = [
            model for model in self.every if model.tokenizer is not None and recorded_texts(model.folder)
        ]
        trained = [(model, trained_windows(model.folder)) for model in readers]
        for model, windows in trained[1:]:
            if windows != trained[0][1]:
                logger.info(
                    f"windows are those of the {trained[0][0].owner}; the {model.owner} was trained with others"
                )
        return trained[0][1] if trained else None

    def refuse_other_labels(self) -> None:
        """Raise DataError for models with other labels than the teacher's, if the teacher names its labels."""
        for model in self.compared if self.teacher.labels != () else ():
            model.refuse_other_labels(self.teacher.labels, "teacher")

    def ordered(self, task: Task) -> AuditModels:
        """All models with their outputs in the order of the teacher's labels, or of the data's labels if the teacher
        names none. Raises DataError for models with other labels."""
        labels = task.labels if self.teacher.labels == () else self.teacher.labels
        teacher, *compared = (model.ordered(labels).reading(task.text_columns) for model in self.every)
        return self._with(teacher, compared)

    def sharing_tokens(self, splits: Mapping[str, Dataset], task: Task, max_length: int) -> AuditModels:
        """All models; those whose tokens equal the teacher's in every row get the teacher's tokenizer object."""
        teacher, compared, notes = self.teacher, [], []
        for model in self.compared:
            if model.tokenizer is None or teacher.tokenizer is None:
                compared.append(model)
                continue
            if model.template != teacher.template:
                compared.append(model)
                if model.reader is not None and teacher.reader is not None:
                    notes.append(
                        f"the {model.owner} reads no prompt around its texts, so {_on_words(model, teacher)}"
                    )
                continue
            try:
                check_same_tokens(model.tokenizer, teacher.tokenizer)
                for rows in splits.values():
                    check_same_rows(model.tokenizer, teacher.tokenizer, rows, task, max_length=max_length)
            except ModelError as error:
                compared.append(model)
                if model.reader is not None and teacher.reader is not None:
                    notes.append(_other_tokens(model, teacher, error))
            else:
                assert isinstance(model.predictor, ClassifierPredictor | OnnxPredictor)
                shared = replace(model.predictor, tokenizer=teacher.tokenizer)
                compared.append(replace(model, predictor=shared))
        return replace(self._with(teacher, compared), notes=tuple(notes))

    def _with(self, teacher: AuditModel, compared: Sequence[AuditModel]) -> AuditModels:
        students = list(compared[: len(self.students)])
        return replace(
            self, teacher=teacher, students=students,
            reference=None if self.reference is None else compared[-1],
        )  # fmt: skip

    def warnings(self) -> list[str]:
        """Warnings about pairs whose figures can mislead, and about figures that are left out."""
        return [*self._other_prompts(), *self._alike(), *self.notes, *self._left_out()]

    def cascade_warnings(self) -> list[str]:
        """A warning for each student that has no blocks to randomise."""
        return [
            f"the cascade of {student.name} is left out: {student.kind} has no blocks to randomise"
            for student in self.students
            if student.reader is None
        ]

    def _other_prompts(self) -> Iterator[str]:
        """A warning for each student that was distilled from this teacher with another prompt."""
        for student in self.students:
            record = record_of(student.folder)
            of_teacher = (record.get("teacher") or {}).get("name") == Path(self.teacher.name).name
            prompt = (record.get("teacher_source") or {}).get("template")
            if of_teacher and prompt not in (None, self.teacher.template):
                yield (
                    f"{student.name} was distilled from the teacher with the prompt {prompt!r}, and the audit reads "
                    "the teacher with another prompt, or none: give --teacher-template"
                )

    def _alike(self) -> Iterator[str]:
        classifiers = [model for model in self.students if model.reader is not None]
        teacher = self.teacher.reader
        for student in classifiers:
            assert student.reader is not None
            if teacher is not None:
                layers = teacher.probe.layers, student.reader.probe.layers
                yield from pair_warnings(teacher.model, student.reader.model, student.owner, layers=layers)
        for one, other in combinations(classifiers, 2):
            if _same(one, other):
                yield f"the students {one.name} and {other.name} hold the same weights"
        if self.reference is None:
            return
        for student in classifiers:
            if _same(student, self.reference):
                yield f"the reference holds the weights of the student {student.name}"
        if _same(self.teacher, self.reference):
            yield "the reference holds the teacher's weights; take a teacher of another seed"

    def _left_out(self) -> Iterator[str]:
        maps = "saliency loyalty, expected gradients, the other figures of maps and their floors"
        if self.teacher.reader is None:
            yield f"{maps} are left out: they need gradients, and the teacher is {self.teacher.kind}"
            yield "flips replace words at random: nearest words need the embeddings of a PyTorch teacher in float32"
        for student in self.students:
            if student.reader is None:
                if self.teacher.reader is not None:
                    yield (
                        f"{maps} of {student.name} are left out: they need gradients, and it is {student.kind}"
                    )
                yield f"the figures of {student.name} have no floor: {student.kind} has no head to randomise"
            elif not has_head(student.reader.model):
                yield (
                    f"the figures of {student.name} have no floor: its head cannot be told from the rest of the model"
                )
        without = [model for model in (self.teacher, *self.students) if model.reader is None]
        if without:
            names = ", ".join(model.owner for model in without)
            yield f"faithfulness of all models is measured for the occlusion of words: no gradients of the {names}"
        if without_masks := [model for model in self.every if not model.predictor.can_mask]:
            why = (
                "has no masks"
                if without_masks[0].tokenizer is None
                else "has a tokenizer without character offsets"
            )
            yield f"figures on masked words are left out: the {without_masks[0].owner} {why}"


def _same(one: AuditModel, other: AuditModel) -> bool:
    return one.model is not None and other.model is not None and same_weights(one.model, other.model)


def _other_tokens(model: AuditModel, teacher: AuditModel, error: ModelError) -> str:
    first = next((line.strip(" -") for line in error.what.split("\n")[1:]), "")
    return f"the {model.owner} reads other tokens than the teacher, so {_on_words(model, teacher)} ({first})"


def _on_words(model: AuditModel, teacher: AuditModel) -> str:
    """The end of a sentence on how maps of models with other tokens are compared."""
    fast = all(m.tokenizer is not None and m.tokenizer.is_fast for m in (model, teacher))
    return "maps are compared on words" if fast else "maps are not compared: words need a fast tokenizer"


def check_students(students: Any) -> None:
    """Raise RecipeError if ``students`` is no list, or is empty."""
    if isinstance(students, str | bytes | os.PathLike | tuple) or not isinstance(students, Sequence):
        raise RecipeError(
            f"students is of the type {type(students).__name__}",
            expected="a list of models, each a path, a hub id, a pair (model, tokenizer) or a function",
            remedy="put the student into a list: [student]",
        )
    if not students:
        raise RecipeError(
            "students is an empty list", expected="one model or more", remedy="name the student"
        )


def _short_names(named: Sequence[str]) -> list[str]:
    """The last part of each path as a name. The whole path is the name if the last part is a role or not unique; if
    that is not unique either, a number is added."""
    short = [*ROLES, *(Path(name).name for name in named)]
    candidates = [
        name if short.count(name) == 1 else full
        for name, full in zip(short[len(ROLES) :], named, strict=True)
    ]
    taken = Counter((*ROLES, *candidates))
    names: list[str] = []
    for name in candidates:
        free = (f"{name} ({k})" for k in count(1))
        names.append(name if taken[name] == 1 else next(new for new in free if new not in {*taken, *names}))
    return names
