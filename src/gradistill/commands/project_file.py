"""The project file ``gradistill.yaml``: its schema, and the data, recipes and settings of stages that it describes.

Every key is checked before any work, and a message names the file, the line and the key. A file may come from somebody
else: it must hold no secrets, and name no code to run (``python:module:function``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, PlainValidator

from gradistill.auditing.function_predictor import PREFIX
from gradistill.batch import MOST_SEED
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.default_recipe import default_recipe
from gradistill.commands.defaults import TOKEN_METHOD
from gradistill.commands.export_choice import ExportChoice
from gradistill.data import DataChoice
from gradistill.data.data_choice import LabelKind
from gradistill.data.data_source import is_path, path_text
from gradistill.data.prompt_template import named_fields
from gradistill.data.proposal import holds_tagged_words
from gradistill.data.split_sources import files_of, refuse_missing
from gradistill.errors import GradistillError, RecipeError
from gradistill.models.loading import locate
from gradistill.models.packaged import PACKAGED
from gradistill.objectives.labelled_tokens import refuse_objectives_of_texts
from gradistill.recipe import Recipe, load_recipe
from gradistill.recipe.recipe_files import read_keys
from gradistill.recipe.schema import Label, OneOrMany, Pooling, Strict, not_a_number, refusal, truth_value
from gradistill.recipe.secrets import redacted
from gradistill.recipe.strict_yaml import yaml_lines

Place = tuple[str | int, ...]
"""The path of a key in the file."""


class ProjectData(Strict):
    """The fields of ``DataChoice`` that a file can hold."""

    source: str = Field(min_length=1, description="a file, a folder of files, or a hub id")
    task: str | None = None
    label_column: str | None = None
    text_columns: OneOrMany | None = Field(default=None, min_length=1, max_length=2)
    unlabelled: str | None = None
    kind: LabelKind | None = None
    validation_share: float | None = Field(default=None, gt=0, lt=1)
    validation_seed: int = Field(default=0, ge=0)
    positive: Label | None = None
    label_columns: OneOrMany | None = None
    label_separator: str | None = None
    skip_incomplete: bool = Field(default=False, description="leave out rows that lack a text or a label")
    label_map: dict[Label, Label] | None = Field(
        default=None, description="with teacher.fine_tuned: its output of each label, where names differ"
    )


class Training(Strict):
    """The fields of a recipe that are changed most; ``set`` changes the rest, as ``--set`` does."""

    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_length: int | None = None
    windows: Pooling | None = None
    window_overlap: int | None = None
    max_train_rows: int | None = None
    set: OneOrMany = Field(default=(), description="changes of the recipe: training.arguments.bf16=true")

    def changes(self, seed: int, *more: str) -> list[str]:
        """The changes in the form of ``load_recipe``; ``set`` comes last."""
        names = (
            "epochs",
            "learning_rate",
            "batch_size",
            "max_length",
            "max_train_rows",
            "windows",
            "window_overlap",
        )
        given = {name: getattr(self, name) for name in names}
        set_here = [f"training.{name}={value}" for name, value in given.items() if value is not None]
        return [f"training.seed={seed}", *set_here, *more, *self.set]


class TeacherStage(Training):
    """The teacher: a model to fine-tune, or one that is fine-tuned already."""

    model: str = PACKAGED
    fine_tuned: OneOrMany | None = Field(
        default=None, min_length=1, description="one model, or several whose probabilities are averaged"
    )
    template: str | None = Field(
        default=None, description="a prompt around the texts that teacher.fine_tuned reads"
    )


class StudentStage(Training):
    """The student: its method, and its size or checkpoint."""

    method: str | None = Field(
        default=None, description="one of gradistill methods (by default what suits the teacher)"
    )
    layers: int | None = None
    width: int | None = None
    size: str | None = Field(
        default=None, description="a budget: 60MB of model.safetensors, or 9.5M parameters"
    )
    checkpoint: str | None = None

    def made_of(self) -> list[str]:
        """The student's layers, width and size as changes of a recipe."""
        given = {"layers": self.layers, "width": self.width, "size": self.size and json.dumps(self.size)}
        return [f"student.{name}={value}" for name, value in given.items() if value is not None]


def _second_or_named(given: Any) -> bool | str:
    if isinstance(given, bool) or (isinstance(given, str) and given.strip()):
        return given
    raise ValueError("yes, no, or a model: a folder or a hub id")


class AuditStage(Strict):
    """The settings of the audit."""

    split: str = "validation"
    max_rows: int | None = Field(default=500, ge=1)
    reference: Annotated[bool | str, PlainValidator(_second_or_named)] = Field(
        default=False,
        description="a second teacher to compare the student with: yes trains one, with another seed; or a model",
    )
    fail_under: dict[str, float] = Field(default_factory=dict)


class ExportStage(Strict):
    """The settings of the export to ONNX."""

    quantize: Literal["int8", "int8-static"] | None = "int8"
    embedding_bits: Literal[4, 8] = 8
    trim_vocabulary: bool = Field(default=False, description="leave tokens out that no training text has")
    vocabulary_size: int | None = Field(default=None, ge=1)
    max_rows: int = Field(default=1000, ge=1)
    fail_under: dict[str, float] = Field(default_factory=dict)


def _left_out(given: Any) -> Any:
    """``no`` leaves a stage out; a bare ``audit:`` is one without changes."""
    return None if given is False else {} if given is None else given


class ProjectFile(Strict):
    """The whole file."""

    output: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    data: ProjectData
    teacher: TeacherStage = TeacherStage()
    student: StudentStage = StudentStage()
    audit: Annotated[AuditStage | None, BeforeValidator(_left_out)] = AuditStage()
    export: Annotated[ExportStage | None, BeforeValidator(_left_out)] = ExportStage()


@dataclass(frozen=True)
class Project:
    """A project file that was read and checked: the arguments of each stage. Paths are resolved."""

    file: Path
    output: Path
    data: DataChoice
    teachers: tuple[str, ...]
    """The teachers that are fine-tuned already: one, several whose probabilities are averaged, or none."""
    model: str
    finetuning: Recipe
    distillation: Recipe
    reference: Recipe | None
    """The recipe of a second teacher for the audit; None without one, or if it is fine-tuned already."""
    audit: AuditChoice | None
    export: ExportChoice | None


def read_project(file: Path) -> Project:
    """Read and check a project file. Its paths are relative to its own folder.

    Raises RecipeError for anything that a run cannot do, with the line and the key.
    """
    plan, lines = _checked_plan(file)
    base = file.parent
    with _at(file, ("data",), lines):
        data = _data_choice(plan, base)
    if data.unlabelled is not None:
        with _at(file, ("data", "unlabelled"), lines):
            refuse_missing(data.unlabelled)
    with _at(file, ("teacher",), lines):
        finetuning = load_recipe("finetune", changes=plan.teacher.changes(plan.seed), authors_settings=False)
    with _at(file, ("student",), lines):
        distillation = _distillation(plan, data, base)
    if distillation.student.checkpoint is not None:
        with _at(file, ("student", "checkpoint"), lines):
            locate(distillation.student.checkpoint)
    if plan.teacher.template is not None:
        with _at(file, ("teacher", "template"), lines):
            distillation = _with_prompt(distillation, plan.teacher.template)
    with _at(file, ("audit",), lines):
        reference, audit = _second_teacher(plan, finetuning), _audit_choice(plan, base)
    if audit is not None and isinstance(audit.reference, str):
        with _at(file, ("audit", "reference"), lines):
            locate(audit.reference)  # now, and not after hours of training
    if audit is not None:
        with _at(file, ("audit", "split"), lines):
            _refuse_missing_split(data, audit.split)
    with _at(file, ("export",), lines):
        export = _export_choice(plan, data)
    return Project(
        file=file,
        output=base / plan.output,
        data=data,
        teachers=tuple(_resolved(name, base) for name in plan.teacher.fine_tuned or ()),
        model=_resolved(plan.teacher.model, base),
        finetuning=finetuning,
        distillation=distillation,
        reference=reference,
        audit=audit,
        export=export,
    )


def _checked_plan(file: Path) -> tuple[ProjectFile, Mapping[Place, int]]:
    """The content of a file, checked against the schema, and the line of each key."""
    raw = read_keys(file, "project", "keys such as data, teacher, student, audit, export")
    lines = yaml_lines(file.read_text(encoding="utf-8"))
    _refuse_unsafe(file, raw, lines)
    try:
        plan = ProjectFile.model_validate(raw)
    except pydantic.ValidationError as error:
        place = tuple(error.errors()[0]["loc"])
        raise _placed(refusal(error, ProjectFile, kind="project"), file, place, lines) from error
    if (keys := truth_value(raw, plan)) is not None:
        raise _placed(not_a_number(".".join(map(str, keys)), "project"), file, keys, lines)
    if plan.teacher.fine_tuned is not None:
        _refuse_idle(file, raw, lines)
    elif plan.teacher.template is not None:
        error = RecipeError(
            "teacher.template is given without teacher.fine_tuned, and teachers are fine-tuned without a prompt",
            expected="a model that was fine-tuned with this prompt",
            remedy="name it as teacher.fine_tuned, or remove teacher.template",
        )
        raise _placed(error, file, ("teacher", "template"), lines)
    return plan, lines


def _data_choice(plan: ProjectFile, base: Path) -> DataChoice:
    fields = plan.data.model_dump(exclude={"source", "unlabelled"})
    unlabelled = None if plan.data.unlabelled is None else _resolved(plan.data.unlabelled, base)
    return DataChoice(_resolved(plan.data.source, base), unlabelled=unlabelled, **fields)


def _refuse_missing_split(data: DataChoice, split: str) -> None:
    """Raise RecipeError if a folder of data has no file of a split. Other sources are read first of all anyway."""
    drawn = split == "validation" and data.validation_share is not None
    if drawn or not is_path(data.source) or not Path(path_text(data.source)).is_dir():
        return
    if not files_of(data.source, split, None):
        raise RecipeError(
            f"{path_text(data.source)} has no split {split!r}",
            expected="a split of the data",
            remedy="correct audit.split, or add a file of this name",
        )


def _distillation(plan: ProjectFile, data: DataChoice, base: Path) -> Recipe:
    """The student's recipe: for its method, or for the default method of its teacher and data."""
    student = plan.student
    changes = student.changes(plan.seed, *student.made_of())
    checkpoint = None if student.checkpoint is None else _resolved(student.checkpoint, base)

    def load(method: str) -> Recipe:
        recipe = load_recipe(method, changes=changes, authors_settings=False)
        return recipe if checkpoint is None else recipe.with_student_fields(checkpoint=checkpoint)

    # Checked now, not after hours of fine-tuning. A fine-tuned teacher's configuration has its kind of labels.
    tagged = plan.teacher.fine_tuned is None and holds_tagged_words(data)
    method = student.method or (TOKEN_METHOD if tagged or data.kind == "tokens" else None)
    if method is None:
        return default_recipe(_one_model(plan.teacher, base), load, max_length=plan.teacher.max_length)
    recipe = load(method)
    if tagged:
        refuse_objectives_of_texts(recipe.objectives.values())
    return recipe


def _audit_choice(plan: ProjectFile, base: Path) -> AuditChoice | None:
    audit = plan.audit
    if audit is None:
        return None
    return AuditChoice(
        split=audit.split, max_rows=audit.max_rows, limits=audit.fail_under, seed=plan.seed,
        reference=_resolved(audit.reference, base) if isinstance(audit.reference, str) else None,
    )  # fmt: skip


def _export_choice(plan: ProjectFile, data: DataChoice) -> ExportChoice | None:
    export = plan.export
    if export is None:
        return None
    return ExportChoice(
        quantize=export.quantize, max_rows=export.max_rows, limits=export.fail_under, seed=plan.seed,
        embedding_bits=export.embedding_bits, vocabulary_size=export.vocabulary_size,
        trim_vocabulary=data.source if export.trim_vocabulary else None,
    )  # fmt: skip


def _one_model(teacher: TeacherStage, base: Path) -> str | None:
    """The folder or id of the teacher, or of the model to fine-tune; None for several, and for one with a prompt."""
    names = teacher.fine_tuned or (teacher.model,)
    return _resolved(names[0], base) if len(names) == 1 and teacher.template is None else None


def _second_teacher(plan: ProjectFile, finetuning: Recipe) -> Recipe | None:
    """The teacher's recipe with the next seed, if the audit needs a second teacher that is not trained yet."""
    if plan.audit is None or plan.audit.reference is not True:
        return None
    if plan.teacher.fine_tuned is not None:
        raise RecipeError(
            "audit.reference is yes, and how the teacher of teacher.fine_tuned was trained is not known here",
            expected="a second teacher, trained as the first one was with another seed",
            remedy="name its folder: audit.reference: FOLDER",
        )
    seed = (finetuning.training.seed + 1) % (MOST_SEED + 1)
    changes = [*plan.teacher.changes(plan.seed), f"training.seed={seed}"]
    return load_recipe("finetune", changes=changes, authors_settings=False)


def _with_prompt(recipe: Recipe, template: str) -> Recipe:
    """The student's recipe with the prompt around its teacher's texts."""
    named_fields(template)
    if recipe.teacher.template is not None:
        raise RecipeError(
            "teacher.template is given, and student.set changes it",
            expected="one prompt",
            remedy="leave it out of student.set",
        )
    return recipe.with_template(template)


def _resolved(name: str, base: Path) -> str:
    """A path relative to the file's folder, resolved. A hub id, or a name of no existing path, is returned as it is."""
    path = base / name
    return str(path) if path.exists() or name.startswith(("./", "../")) else name


def _refuse_unsafe(file: Path, raw: Mapping[Any, Any], lines: Mapping[Place, int]) -> None:
    for place, value in _texts(raw):
        if value.strip().startswith(PREFIX) or f"={PREFIX}" in value:
            error = RecipeError(
                f"{_named(place)} names code to run: {value!r}",
                expected="a model folder or hub id: a project file runs no code of its own",
                remedy=f"give {PREFIX}… on the command line of gradistill audit or distill",
            )
            raise _placed(error, file, place, lines)
    for place, value in _texts(raw):
        parent: Any = value if "label_map" in place else {place[-1]: value}  # keys of a label map are labels
        change = value.partition("=")
        named = {change[0].rpartition(".")[2]: change[2]} if change[1] else {}
        if redacted(parent) != parent or redacted(named) != named:
            error = RecipeError(
                f"{_named(place)} holds what looks like a secret",
                expected="no tokens and no passwords: a project file is read by others",
                remedy="remove it, and set HF_TOKEN in the environment",
            )
            raise _placed(error, file, place, lines)


def _texts(content: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _texts(value, (*place, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _texts(value, (*place, number))
    elif isinstance(content, str):
        yield place, content


def _refuse_idle(file: Path, raw: Mapping[Any, Any], lines: Mapping[Place, int]) -> None:
    """Raise RecipeError for training settings of a fine-tuned teacher, which would have no effect."""
    if idle := [name for name in raw["teacher"] if name not in ("fine_tuned", "template")]:
        error = RecipeError(
            f"teacher.{idle[0]} is given, and teacher.fine_tuned too, which is trained already",
            expected="one of them",
            remedy=f"remove teacher.{idle[0]}, or teacher.fine_tuned",
        )
        raise _placed(error, file, ("teacher", idle[0]), lines)


def _named(place: Place) -> str:
    return ".".join(map(str, place))


@contextmanager
def _at(file: Path, place: Place, lines: Mapping[Place, int]) -> Iterator[None]:
    """Add the line and the key to errors inside the block: of the key that the message names, or else of ``place``."""
    try:
        yield
    except GradistillError as error:
        inside = [p for p in lines if p[: len(place)] == place and len(p) > len(place)]
        named = next((p for p in inside if _is_about(error.what, p)), place)
        raise _placed(error, file, named, lines) from error


def _is_about(message: str, place: Place) -> bool:
    """Whether a message names a key, by the name in the recipe or in the project file."""
    key = str(place[-1])
    return any(f"{part}{key} " in f"{message} " for part in (".", "--", "'s ")) or message.startswith(
        f"{key} "
    )


def _placed(error: GradistillError, file: Path, place: Place, lines: Mapping[Place, int]) -> RecipeError:
    known = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    where = f"{file}, line {lines[known]}" if known is not None else str(file)
    key = f" ({_named(place)})" if place and _named(place) not in error.what else ""
    return RecipeError(f"{where}{key}: {error.what}", expected=error.expected, remedy=error.remedy)
