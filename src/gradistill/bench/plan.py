"""The plan of a bench: its YAML file, and the cells (students to train) that follow from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field

from gradistill.batch import MOST_SEED
from gradistill.commands.content_hashes import content_hash
from gradistill.data import TASKS, DataChoice
from gradistill.data.data_choice import LabelKind
from gradistill.errors import RecipeError, nearest
from gradistill.io import digest
from gradistill.recipe import Recipe, load_recipe
from gradistill.recipe.recipe_files import read_keys
from gradistill.recipe.schema import DESCRIPTIONS, Label, OneOrMany, Strict, refusal, refuse_truth_values
from gradistill.recipe.secrets import without_secrets

KEEP_LAST = (
    "training.arguments.eval_strategy=no",
    "training.arguments.save_strategy=no",
    "training.arguments.load_best_model_at_end=false",
)
"""With our settings a student of a bench is the model after its last epoch. To choose an epoch on the rows of the
figures would make them too good. With the authors' settings an epoch is chosen so, as the authors did."""

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
_NAME = re.compile(r"[^\x00-\x1f/\\]{1,80}")
Columns = Annotated[
    tuple[str, ...],
    BeforeValidator(
        lambda given: [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    ),
    Field(min_length=1, max_length=2),
]


class TeacherPlan(Strict):
    """How a task's teacher is made: fine-tuned at each learning rate; the best on validation rows is kept."""

    model: str = Field(
        default="minilm-l6", description="the pre-trained model: a folder, a hub id, or minilm-l6"
    )
    learning_rates: tuple[float, ...] = Field(default=(2e-5, 5e-5, 1e-4), min_length=1)
    train_rows: int | None = Field(
        default=None, ge=1, description="number of the task's training rows to train on; all by default"
    )
    set: OneOrMany = Field(default=(), description="changes of the recipe finetune")


class MethodPlan(Strict):
    """One column of the comparison: a shipped method, with changes of its recipe."""

    method: str
    set: OneOrMany = ()
    tasks: tuple[str, ...] | None = Field(default=None, description="run it on these tasks only")
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="seeds of this method, instead of the bench's seeds"
    )


class TaskPlan(Strict):
    """One task. The bench's own keys apply where a key is absent here."""

    data: str | None = Field(
        default=None, description="folder or hub id; else the folder of that name in data"
    )
    task: str | None = Field(default=None, description="the known task, if its name here is another one")
    label_column: str | None = Field(
        default=None, description="the column of labels; body.text names a field"
    )
    text_columns: Columns | None = Field(default=None, description="one or two columns of text")
    kind: LabelKind | None = Field(default=None, description="classes or scores, where labels are numbers")
    label_columns: tuple[str, ...] | None = Field(
        default=None, description="columns of 0 or 1, each for the label of its name"
    )
    label_separator: str | None = Field(
        default=None, description="the separator between several labels in one column"
    )
    skip_incomplete: bool = Field(default=False, description="leave out rows that lack a text or a label")
    validation_share: float | None = Field(
        default=None, gt=0, lt=1, description="share of the training rows to use without a validation split"
    )
    validation_seed: int = Field(default=0, description="random seed of validation_share")
    teacher: str | None = Field(default=None, description="an existing fine-tuned teacher")
    positive: Label | None = Field(default=None, description="the positive class for F1, with two classes")
    label_map: dict[Label, Label] | None = Field(
        default=None, description="the given teacher's output for each label of the data"
    )
    layers: tuple[int, ...] | None = None
    train_rows: int | None = Field(default=None, ge=1)
    validation_rows: int | None = Field(default=None, ge=1)
    set: OneOrMany = ()
    teacher_set: OneOrMany = Field(default=(), description="changes of its teacher's recipe")
    learning_rates: tuple[float, ...] | None = Field(
        default=None,
        min_length=1,
        description="learning rates of this task's teacher, instead of the bench's",
    )
    method_set: dict[str, OneOrMany] = Field(
        default_factory=dict, description="changes of single methods on this task, by their names"
    )

    @property
    def choice(self) -> DataChoice:
        """The data choice of the task's rows at their source."""
        return DataChoice(
            self.data, self.task, self.label_column, self.text_columns, kind=self.kind,
            validation_share=self.validation_share, validation_seed=self.validation_seed,
            label_columns=self.label_columns, label_separator=self.label_separator,
            skip_incomplete=self.skip_incomplete,
        )  # fmt: skip


def _by_name(given: Any) -> Any:
    """A list of names as a dictionary of names without settings."""
    return dict.fromkeys(given) if isinstance(given, list) else given


def _tasks(given: Any) -> Any:
    named = _by_name(given)
    return {name: plan or {} for name, plan in named.items()} if isinstance(named, dict) else named


def _methods(given: Any) -> Any:
    named = _by_name(given)
    if not isinstance(named, dict):
        return named
    return {
        name: {"method": name, **(plan or {})} if isinstance(plan, dict | None) else plan
        for name, plan in named.items()
    }


class BenchPlan(Strict):
    """A bench file. ``set`` changes every student's recipe. Changes of a task, and then of a method, follow it."""

    title: str = ""
    data: str | None = Field(default=None, description="a folder with a folder for each task")
    tasks: Annotated[dict[str, TaskPlan], BeforeValidator(_tasks), Field(min_length=1)]
    methods: Annotated[dict[str, MethodPlan], BeforeValidator(_methods), Field(min_length=1)]
    baseline: str = Field(default="kd", description="the method that the others are compared with")
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    layers: tuple[int, ...] = Field(default=(3,), min_length=1, description="depths of the students")
    teacher: TeacherPlan = TeacherPlan()
    train_rows: int | None = Field(
        default=None, ge=1, description="number of training rows of students; drawn once, by seed 0"
    )
    validation_rows: int | None = Field(
        default=None, ge=1, description="number of rows; drawn once, by seed 0"
    )
    settings: Literal["authors", "default"] = "default"
    set: OneOrMany = ()
    predictions: bool = Field(default=False, description="write test predictions in GLUE's format")
    keep_models: bool = Field(default=True, description="keep the students, not only their figures")


@dataclass(frozen=True)
class Cell:
    """One student to train. Its recipe is complete, with seed and depth."""

    task: str
    method: str
    layers: int
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """The display name."""
        return f"{self.task}, {self.layers} layers, {self.method}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.task, self.layers, self.method, self.seed

    @property
    def folder(self) -> Path:
        """The run folder, relative to the bench's folder."""
        return Path(self.task) / f"{self.layers}-layers" / f"{_slug(self.method)}-{self.seed}"


def read_plan(file: Path, data: str | None = None) -> BenchPlan:
    """The plan in a file. ``data`` replaces the file's own.

    Its paths (``data``, ``teacher``, ``teacher.model``, ``student.checkpoint`` in ``set``) are relative to the file's
    folder. A name that does not exist there is kept as it is: a hub id, or a path relative to the current folder.

    Raises RecipeError, with the nearest name for an unknown key, method or baseline.
    """
    raw = read_keys(file, "bench", "keys such as tasks, methods, seeds, layers")
    try:
        plan = BenchPlan.model_validate(raw)
    except pydantic.ValidationError as error:
        raise refusal(error, BenchPlan, kind="bench") from error
    refuse_truth_values(raw, plan, kind="bench")
    home = file.resolve().parent
    tasks = {name: _settled(name, task, plan, home, data) for name, task in plan.tasks.items()}
    methods = {
        name: method.model_copy(update={"set": _changes_from(home, method.set)})
        for name, method in plan.methods.items()
    }
    teacher = plan.teacher.model_copy(update={"model": _from(home, plan.teacher.model)})
    _check_names(plan)
    _check_teachers(plan)
    known = any((task.task or name) in TASKS for name, task in plan.tasks.items())
    if plan.predictions and known and not plan.keep_models:
        raise RecipeError(
            "predictions is true and keep_models false: test rows are predicted by the students that are kept",
            remedy="leave one of them out",
        )
    _refuse_secrets(plan)
    return plan.model_copy(
        update={
            "tasks": tasks,
            "methods": methods,
            "teacher": teacher,
            "set": _changes_from(home, plan.set),
            "data": data or plan.data,
        }
    )


def suite(name: str) -> Path:
    """The file of a shipped suite."""
    folder = Path(str(resources.files("gradistill.bench") / "suites"))
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise RecipeError(f"there is no suite {name!r}", remedy=nearest(name, known))
    return folder / f"{name}.yaml"


def cells(plan: BenchPlan) -> Iterator[Cell]:
    """All cells, seed by seed, so that a bench that stops early has whole seeds of every task instead of whole tasks.

    If tasks have several depths, the first depth of every task comes before the second.
    """
    depths = {name: list(dict.fromkeys(task.layers or plan.layers)) for name, task in plan.tasks.items()}
    seeds = dict.fromkeys((*plan.seeds, *(s for method in plan.methods.values() for s in method.seeds or ())))
    for rank in range(max(map(len, depths.values()))):
        for seed, (name, layers) in product(seeds, depths.items()):
            for method, chosen in plan.methods.items():
                here = rank < len(layers) and (chosen.tasks is None or name in chosen.tasks)
                if here and seed in (chosen.seeds or plan.seeds):
                    recipe = recipe_of(plan, name, method, layers[rank], seed)
                    yield Cell(name, method, layers[rank], seed, recipe)


def recipe_of(plan: BenchPlan, task_name: str, method_name: str, layers: int, seed: int) -> Recipe:
    task, method, authors = plan.tasks[task_name], plan.methods[method_name], plan.settings == "authors"
    defaults = (*(() if authors else KEEP_LAST), f"training.seed={seed}", f"student.layers={layers}")
    changes = (*defaults, *plan.set, *task.set, *method.set, *task.method_set.get(method_name, ()))
    try:
        recipe = load_recipe(method.method, task=task.task, changes=changes, authors_settings=authors)
    except RecipeError as error:
        what = f"the method {method_name!r} on {task_name!r}: {error.what}"
        raise RecipeError(what, expected=error.expected, remedy=error.remedy) from error
    if recipe.training.seed != seed or recipe.student.layers not in (layers, None):
        raise RecipeError(
            f"the changes of {method.method!r} on {task_name!r} set its seed or its depth",
            expected="seeds and layers of the bench, or student.layers=null for a checkpoint",
            remedy="leave training.seed and student.layers out of set",
        )
    return recipe


def fingerprint(cell: Cell, rows: Mapping[str, Any], content: Callable[[str], str] = content_hash) -> str:
    """A hash of the inputs of a cell's figures: its recipe, and the rows and teacher that ``rows`` describes.

    Descriptions do not count, and a checkpoint counts by the hash of its ``content``.
    """
    recipe = {name: value for name, value in cell.recipe.as_dict().items() if name not in DESCRIPTIONS}
    if checkpoint := cell.recipe.student.checkpoint:
        recipe["student"] = {**recipe["student"], "checkpoint": content(checkpoint)}
    return digest({"recipe": recipe, **rows})[:16]


def earlier_fingerprint(cell: Cell, rows: Mapping[str, Any]) -> str:
    """The ``fingerprint`` of earlier versions, with descriptions, and with the path of a checkpoint."""
    return digest({"recipe": cell.recipe.as_dict(), **rows})[:16]


def _settled(name: str, task: TaskPlan, plan: BenchPlan, home: Path, data: str | None) -> TaskPlan:
    """The task with the source of its rows and the name of the known task. Paths are resolved from the file's
    folder."""
    below = data or plan.data
    source = task.data or (f"{below.rstrip('/')}/{name}" if below else None)
    if source is None:
        raise RecipeError(
            f"The bench names no place for the rows of {name!r}.",
            expected="data: FOLDER with a folder for each task, or data for the task itself",
            remedy="add it, or give --data FOLDER",
        )
    from_command_line = (
        data is not None and task.data is None
    )  # a path from the command line is relative to the current folder
    place = source if from_command_line else _from(home, source)
    teacher = None if task.teacher is None else _from(home, task.teacher)
    return task.model_copy(
        update={
            "data": place,
            "teacher": teacher,
            "task": task.task or (name if name in TASKS else None),
            "set": _changes_from(home, task.set),
            "method_set": {of: _changes_from(home, changes) for of, changes in task.method_set.items()},
        }
    )


def _changes_from(home: Path, changes: tuple[str, ...]) -> tuple[str, ...]:
    """Changes of a recipe, with the path of a student's checkpoint resolved from the file's folder."""
    resolved = []
    for change in changes:
        name, _, source = change.partition("=")
        checkpoint = name.strip() == "student.checkpoint"
        resolved.append(f"{name}={_from(home, source.strip())}" if checkpoint else change)
    return tuple(resolved)


def _from(home: Path, source: str) -> str:
    """A path that exists in the file's folder, resolved; any other name, such as a hub id, as it is."""
    return str(home / source) if (home / source).exists() else source


def _slug(method: str) -> str:
    return method.replace(", ", "-").replace(" ", "-")


def _refuse_secrets(plan: BenchPlan) -> None:
    """Raise RecipeError for a secret in a change: a bench writes its students' recipes into files."""
    of_tasks = [(task.set, task.teacher_set, *task.method_set.values()) for task in plan.tasks.values()]
    of_methods = [method.set for method in plan.methods.values()]
    for change in chain(plan.set, plan.teacher.set, *of_methods, *chain(*of_tasks)):
        if without_secrets(change) != change:
            raise RecipeError(
                f"the bench sets a secret: {without_secrets(change)}",
                expected="no tokens or passwords: a bench writes its recipes into files",
                remedy="leave it out, and set it in the environment (HF_TOKEN)",
            )


def _check_teachers(plan: BenchPlan) -> None:
    """Raise RecipeError for settings that would have no effect on a teacher."""
    owners = {"teacher.set": plan.teacher.set}
    owners |= {f"tasks.{name}.teacher_set": task.teacher_set for name, task in plan.tasks.items()}
    for owner, changes in owners.items():
        if rate := [c for c in changes if c.partition("=")[0].strip() == "training.learning_rate"]:
            raise RecipeError(
                f"the bench's {owner} has {rate[0]}, and teachers are fine-tuned at each of learning_rates",
                expected="learning_rates, of the teacher or of a task",
                remedy=f"write learning_rates: [{rate[0].partition('=')[2].strip()}] instead",
            )
    for name, task in plan.tasks.items():
        idle = [key for key in ("teacher_set", "learning_rates") if getattr(task, key)]
        if task.teacher is not None and idle:
            raise RecipeError(
                f"the bench's tasks.{name} has {idle[0]}, and its teacher is there already: {task.teacher}",
                expected="a teacher, or how it is fine-tuned",
                remedy=f"leave {idle[0]} or teacher out",
            )


def _check_names(plan: BenchPlan) -> None:
    if len({_slug(name) for name in plan.methods}) < len(plan.methods):
        raise RecipeError(
            f"two of the bench's methods would share a folder: {', '.join(plan.methods)}",
            remedy="give them names that differ in more than commas and spaces",
        )
    for name in (*plan.tasks, *plan.methods):
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise RecipeError(f"the bench calls something {name!r}", expected="a name that can be a folder's")
    if plan.baseline not in plan.methods:
        raise RecipeError(
            f"the bench's baseline is {plan.baseline!r}, which it does not run",
            remedy=nearest(plan.baseline, plan.methods),
        )
    for name in dict.fromkeys(name for task in plan.tasks.values() for name in task.method_set):
        if name not in plan.methods:
            raise RecipeError(f"a task changes the method {name!r}", remedy=nearest(name, plan.methods))
    unknown = [t for method in plan.methods.values() for t in method.tasks or () if t not in plan.tasks]
    if unknown:
        raise RecipeError(f"a method names the task {unknown[0]!r}", remedy=nearest(unknown[0], plan.tasks))
