"""What a recipe holds. The schema of its objectives is the objectives' own fields."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gradistill.batch import MOST_SEED
from gradistill.data.prompt_template import named_fields
from gradistill.data.windows import Windows
from gradistill.errors import RecipeError, check_type, nearest
from gradistill.models.layer_map import LayerMap
from gradistill.models.student import Dropout, Embeddings
from gradistill.models.student_size import Budget
from gradistill.objectives import Term, all_objectives
from gradistill.objectives.term import refuse_idle_steps, refuse_no_conflict, refuse_weightless
from gradistill.recipe.recipe_files import shipped, shipped_methods
from gradistill.recipe.secrets import redacted, refuse_redacted

MOST_EPOCHS, MOST_ROWS, MOST_COPIES = 100_000, 1_000_000, 1000
"""Of a run, a step and a training row. More are a slip of the pen: no run would end, and no memory hold the rows."""


OneOrMany = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
"""One text, or a list of them."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StudentSettings(Strict):
    """How the student is made: from the teacher's layers, or from a checkpoint of its own."""

    layers: int | None = Field(
        default=None,
        ge=1,
        description="blocks taken from the teacher (by default as many as layer_map lists, or half of them)",
    )
    width: int | None = Field(
        default=None, ge=1, description="a narrower student with random weights (pre-train it first)"
    )
    checkpoint: str | None = Field(
        default=None, description="a pre-trained model instead, in a folder or by hub id"
    )
    layer_map: LayerMap = Field(
        default="uniform", description="which teacher layers: uniform, skip, first, last, or a list"
    )
    embeddings: Embeddings = Field(
        default="own", description="own, copied from the teacher, or frozen (copied and fixed)"
    )
    embedding_rank: int | None = Field(
        default=None,
        ge=1,
        description="rank of the embedding matrix, which is learnt as two factors; an export keeps them apart",
    )
    dropout: Dropout = Field(default="keep", description="keep, none, or not_in_embeddings")
    size: str | None = Field(
        default=None,
        description="a budget: 60MB of model.safetensors, or 9.5M parameters; layers, rank and width are found",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _as_many_layers_as_are_listed(cls, given: Any) -> Any:
        listed = given.get("layer_map") if isinstance(given, Mapping) else None
        if isinstance(listed, list | tuple) and given.get("layers") is None:
            return {**given, "layers": len(listed)}
        return given

    @pydantic.field_validator("size", mode="before")
    @classmethod
    def _is_a_size(cls, given: Any) -> Any:
        if given is not None:
            Budget.of(str(given))  # YAML reads a size without its unit as a number
        return given

    @property
    def budget(self) -> Budget | None:
        """What ``size`` means; None without one."""
        return None if self.size is None else Budget.of(self.size)


class TeacherSettings(Strict):
    """How the teacher reads the texts. A recipe does not name the teacher."""

    template: str | None = Field(
        default=None,
        description='a prompt that the teacher reads each row in, text columns in braces: "Review: {text}\\nGood?"',
    )

    @pydantic.field_validator("template")
    @classmethod
    def _is_a_template(cls, given: str | None) -> str | None:
        if given is not None:
            named_fields(given)
        return given


Pooling = Annotated[
    Literal["off", "mean", "max"],
    BeforeValidator(lambda value: "off" if value is False else value),  # as YAML reads a bare off
]


class TrainingSettings(Strict):
    """What goes to ``TrainingArguments``, under the names that the papers use, and how much data."""

    learning_rate: float = Field(default=5e-5, gt=0, description="peak of the linear schedule")
    epochs: float = Field(default=4, gt=0, le=MOST_EPOCHS, description="passes over the training data")
    batch_size: int = Field(default=32, ge=1, le=MOST_ROWS, description="rows a device and step")
    max_length: int | None = Field(
        default=None,
        ge=4,
        description="tokens after which a text is truncated; unset: as the teacher (or the model itself) was trained",
    )
    windows: Pooling | None = Field(
        default=None,
        description="texts longer than max_length in windows, whose probabilities are pooled: mean, max, or off (cut); "
        "unset: as the teacher was trained",
    )
    window_overlap: int | None = Field(
        default=None, ge=0, description="tokens that two windows share; unset: 64, or a quarter of max_length"
    )
    seed: int = Field(
        default=0, ge=0, le=MOST_SEED, description="of initialisation, order, dropout and subset"
    )
    max_train_rows: int | None = Field(
        default=None, ge=1, description="train on a subset of so many rows, drawn by the seed"
    )
    augment: int = Field(
        default=0,
        ge=0,
        le=MOST_COPIES,
        description="changed copies of each training row, which the teacher alone answers",
    )
    checkpoint_minutes: float | None = Field(
        default=15.0,
        gt=0,
        description="a checkpoint after so many minutes within an epoch, beside that at its end",
    )
    average_weights: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the training at whose end the student becomes the mean of its weights; 0 is off",
    )
    thresholds: Literal["validation", "half"] = Field(
        default="validation",
        description="of several labels a row, from which probability a label is predicted: the one with its highest "
        "F1 on the validation rows, or ½",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="anything else of transformers.TrainingArguments, by its own name"
    )


Conflict = Annotated[
    Literal["off", "auto", "log", "project", "cap"],
    BeforeValidator(lambda value: "off" if value is False else value),  # as YAML reads a bare off
]


class ComputeSettings(Strict):
    """How what a recipe wants is computed.

    It costs more or less; what is learned differs by rounding. ``gradient_conflict`` alone changes what is learned.
    """

    trim_last_block: bool = Field(
        default=True,
        description="compute of the last block only the row that the head reads, where that is exact",
    )
    share_views: bool = Field(
        default=True, description="serve the views of C labels by C - 1 inner gradients, not by one each"
    )
    pad_to_max_length: bool = Field(
        default=False, description="pad every batch to max_length, not to its longest text"
    )
    gradient_conflict: Conflict = Field(
        default="off",
        description="answers first: off, log (their gradient's cosine with the rest), project (take out of the rest "
        "what goes against it), cap (project, and limit the rest), or auto (cap once a gradient objective drowns them)",
    )
    gradient_cap: float = Field(
        default=1.0,
        gt=0,
        description="of cap and auto: how many times as long as that of the answers the rest may be",
    )

    @property
    def splits_gradients(self) -> bool:
        """Whether every step has a backward pass for each of the two gradients; under ``auto`` it may come to that."""
        return self.gradient_conflict not in ("off", "auto")

    @pydantic.model_validator(mode="after")
    def _cap_of_cap(self) -> ComputeSettings:
        if self.gradient_conflict not in ("cap", "auto") and self.gradient_cap != 1.0:
            raise ValueError(
                f"gradient_conflict: cap or auto, or no gradient_cap: {self.gradient_conflict} limits nothing"
            )
        return self


LATER = {
    "teacher": ("template",),
    "student": ("size",),
    "training": ("augment", "average_weights", "thresholds", "windows", "window_overlap"),
    "compute": ("gradient_conflict", "gradient_cap"),
}
"""Settings that earlier versions did not have. At their defaults recipes leave them out: runs and benches of those
versions, which are known by their recipes, go on."""

SETTLED_BY_SIZE = ("layers", "width", "embedding_rank")
"""Settings of the student that a budget settles where they are left open."""

BESIDE = tuple(field.name for field in dataclasses.fields(Term) if field.name != "objective")
"""Keys that stand beside the fields of every objective."""


class Recipe(Strict):
    """A resolved recipe. ``objectives`` are terms of the loss, by name."""

    method: str
    title: str = ""
    summary: str = ""
    source: str = ""
    task: str | None = None
    teacher: TeacherSettings = TeacherSettings()
    student: StudentSettings = StudentSettings()
    training: TrainingSettings = TrainingSettings()
    compute: ComputeSettings = ComputeSettings()
    objectives: dict[str, Term]

    @property
    def needs_teacher(self) -> bool:
        return any(entry.objective.needs_teacher for entry in self.objectives.values())

    def as_dict(self) -> dict[str, Any]:
        """The recipe as YAML holds it; an objective of the method that was left out stands as null."""
        flat = self.model_dump(mode="json", exclude={"objectives"})
        for part, names in LATER.items():
            for name in names:
                if flat[part][name] == type(getattr(self, part)).model_fields[name].default:
                    del flat[part][name]
        if not flat["teacher"]:
            del flat["teacher"]
        whole = shipped(self.method)["objectives"] if self.method in shipped_methods() else {}
        left_out = dict.fromkeys(name for name in whole if name not in self.objectives)
        flat["objectives"] = left_out | {
            name: {key: getattr(term, key) for key in BESIDE}
            | pydantic.TypeAdapter(type(term.objective)).dump_python(term.objective, mode="json")
            for name, term in self.objectives.items()
        }
        return flat

    def as_written(self) -> dict[str, Any]:
        """The recipe as it is written to files, cards and messages: plain values, secrets left out."""
        return redacted(self.as_dict())

    def with_student_fields(self, **fields: Any) -> Recipe:
        """The same recipe with other fields of the student, which are not checked: they were settled by us."""
        return self.model_copy(update={"student": self.student.model_copy(update=fields)})

    def with_template(self, template: str | None) -> Recipe:
        """The same recipe with the prompt that the teacher reads each row in; None for none."""
        return self.model_copy(update={"teacher": TeacherSettings(template=template)})

    def with_length(self, max_length: int) -> Recipe:
        """The same recipe with the length at which texts are cut."""
        return self.model_copy(
            update={"training": self.training.model_copy(update={"max_length": max_length})}
        )

    @property
    def windows(self) -> Windows | None:
        """The windows of texts that are longer than the length; None where these are cut."""
        return Windows.of(self.training.model_dump())

    def with_windows(self, windows: Windows | None) -> Recipe:
        """The same recipe with these windows; without any it stays as it is."""
        if windows is None:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update=windows.as_dict())})

    def settled_by(self, written: Any) -> Recipe:
        """The same recipe with what a run's written recipe holds where this one leaves it to the models: the length of
        texts, their windows, and what a student on a budget is made of."""
        student, training = (_part(written, name) for name in ("student", "training"))
        found, length = self, training.get("max_length")
        if self.training.max_length is None and isinstance(length, int):
            found = self.with_length(length)
        if self.training.windows in (None, training.get("windows")) and self.training.window_overlap in (
            None, training.get("window_overlap"),
        ):  # fmt: skip
            found = found.with_windows(Windows.of(training))
        if self.student.size is None or student.get("size") != self.student.size:
            return found
        left_open = [name for name in SETTLED_BY_SIZE if getattr(self.student, name) is None]
        settled = {name: n for name in left_open if isinstance(n := student.get(name), int)}
        return found.with_student_fields(**settled)

    def as_yaml(self) -> str:
        return yaml.safe_dump(self.as_written(), sort_keys=False, allow_unicode=True)


def _part(written: Any, name: str) -> Mapping[str, Any]:
    """A part of a written recipe; an empty one where there is none."""
    part = written.get(name) if isinstance(written, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def check_recipe(recipe: Recipe) -> None:
    """Raise RecipeError for anything but a recipe, such as a method's name."""
    check_type("recipe", recipe, Recipe, "a recipe, such as load_recipe('kd')")


def validated(raw: dict[str, Any]) -> Recipe:
    entries = raw.get("objectives") or {}
    if not isinstance(entries, Mapping) or all(fields is None for fields in entries.values()):
        raise RecipeError(
            "the recipe has no objectives",
            expected=f"at least one of {', '.join(all_objectives())}",
            remedy="add objectives: {hard_label: {weight: 1}}",
        )
    built = {name: term_of(name, fields) for name, fields in entries.items() if fields is not None}
    refuse_idle_steps(built.values())
    refuse_weightless(built.values())
    try:
        recipe = Recipe.model_validate({**raw, "objectives": built})
    except pydantic.ValidationError as error:
        raise refusal(error, Recipe) from error
    refuse_truth_values(raw, recipe)
    if recipe.compute.splits_gradients:
        refuse_no_conflict(built.values(), recipe.compute.gradient_conflict)
    refuse_redacted(recipe.training.arguments, "training.arguments")
    _refuse_unanswered_copies(recipe)
    if recipe.teacher.template is not None and not recipe.needs_teacher:
        raise RecipeError(
            f"teacher.template is set, and {recipe.method!r} learns from labels alone: there is no teacher",
            expected="a method with a teacher",
            remedy="leave teacher.template out, or see gradistill methods",
        )
    return recipe


def _refuse_unanswered_copies(recipe: Recipe) -> None:
    if recipe.training.augment and not recipe.needs_teacher:
        raise RecipeError(
            f"training.augment is {recipe.training.augment}, and {recipe.method!r} learns from labels alone: "
            "changed copies have none",
            expected="a method with a teacher, which answers the copies",
            remedy="leave --augment out, or see gradistill methods",
        )


def term_of(name: str, fields: Any) -> Term:
    """An objective with its weight, as a recipe writes it. Raises RecipeError for what is not one."""
    known = all_objectives()
    if name not in known:
        raise RecipeError(f"there is no objective {name!r}", remedy=nearest(name, known))
    if not isinstance(fields, Mapping):
        raise RecipeError(
            f"objectives.{name} is {fields!r}",
            expected="its fields, such as {weight: 1}",
            remedy="write them so",
        )
    own = {key: value for key, value in fields.items() if key not in BESIDE}
    beside = {key: value for key, value in fields.items() if key in BESIDE}
    try:
        term = Term(pydantic.TypeAdapter(known[name]).validate_python(own), **beside)
    except pydantic.ValidationError as error:
        raise refusal(error, known[name], f"objectives.{name}.") from error
    refuse_truth_values(own, term.objective, f"objectives.{name}.")
    refuse_truth_values(beside, term, f"objectives.{name}.")
    return term


def refuse_truth_values(written: Any, made: Any, prefix: str = "", kind: str = "recipe") -> None:
    """Raise RecipeError for a truth value of which a number was made: pydantic takes true for 1.

    Parameters:
        ``written``: a part of what a file holds.
        ``made``: what pydantic made of it.
        ``prefix``: the keys that lead to it.
        ``kind``: of the file.
    """
    if (path := truth_value(written, made)) is not None:
        raise not_a_number(prefix + ".".join(map(str, path)), kind)


def truth_value(written: Any, made: Any) -> tuple[int | str, ...] | None:
    """The keys that lead to the first truth value of which a number was made; None where there is none.

    Example: ``truth_value({"layers": True}, StudentSettings(layers=1))``
    """
    if isinstance(written, bool):
        return () if isinstance(made, int | float) and not isinstance(made, bool) else None
    if isinstance(written, Mapping):
        pairs = [
            (key, value, made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None))
            for key, value in written.items()
        ]
    elif isinstance(written, list) and isinstance(made, list | tuple) and len(written) == len(made):
        pairs = [(place, *both) for place, both in enumerate(zip(written, made, strict=True))]
    else:
        return None
    found = ((key, truth_value(value, result)) for key, value, result in pairs)
    return next(((key, *rest) for key, rest in found if rest is not None), None)


def not_a_number(path: str, kind: str) -> RecipeError:
    """The error for a truth value in the place of a number."""
    return RecipeError(
        f"the {kind}'s {path} is a truth value",
        expected="a number; YAML reads yes and no, on and off as true and false",
        remedy=f"change {path}",
    )


def refusal(
    error: pydantic.ValidationError, schema: Any, prefix: str = "", kind: str = "recipe"
) -> RecipeError:
    """The first fault that pydantic found, as an error of ours: which key, its value, what was expected."""
    found = [(*_followed(schema, fault["loc"]), fault) for fault in error.errors()]
    own, holder, first = found[0]
    if not own and first["type"] == "value_error":  # of several keys together
        fault = first["msg"].removeprefix("Value error, ")
        return RecipeError(f"{prefix.rstrip('.') or f'the {kind}'}: {fault}", remedy="change one of them")
    path = prefix + ".".join(str(part) for part in own)
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return RecipeError(
            f"the {kind} has an unknown key {path!r}", remedy=nearest(str(own[-1]), _fields(holder))
        )
    if first["type"] == "missing":
        return RecipeError(f"the {kind} lacks {path!r}", remedy=f"add {path}")
    if isinstance(first["input"], bool) and first["type"].startswith(("greater_than", "less_than", "finite")):
        return not_a_number(path, kind)
    # The members of a union each list what they would have taken.
    expected = dict.fromkeys(fault["msg"] for other, _, fault in found if other == own)
    shown = " or ".join(
        message.removeprefix("Input should be ").removeprefix("Value error, ") for message in expected
    )
    choices = re.findall(r"'([^']+)'", shown)
    hint = f"; {nearest(first['input'], choices)}" if choices and isinstance(first["input"], str) else ""
    return RecipeError(
        f"the {kind}'s {path} is {redacted(first['input'])!r}", expected=shown, remedy=f"change {path}{hint}"
    )


def _followed(schema: Any, loc: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """The part of pydantic's path that the user wrote, without its names for members of a union; and what holds its
    last key."""
    path: list[int | str] = []
    holder = schema
    for part in loc:
        holder = schema
        fields = _fields(schema)
        if part in fields:
            field = fields[part]
            schema = field.annotation if field is not None else None
        elif isinstance(part, int) or get_origin(_plain(schema)) is dict:
            schema = next(iter(get_args(_plain(schema))[-1:]), None)
        elif fields:  # a key that there is not: the last of the path
            path.append(part)
            break
        else:
            break
        path.append(part)
    return tuple(path), holder


def _plain(annotation: Any) -> Any:
    """A type without what is annotated about it, and without the None beside it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        some = [member for member in get_args(annotation) if member is not type(None)]
        return _plain(some[0]) if len(some) == 1 else annotation
    return annotation


def _fields(schema: Any) -> dict[str, Any]:
    """The keys that a model or an objective has, with what is known of each."""
    plain = _plain(schema)
    if hasattr(plain, "model_fields"):
        return dict(plain.model_fields)
    own = getattr(
        plain, "__pydantic_fields__", None
    )  # an objective without fields of its own has an empty one
    return {} if own is None else dict(own) | dict.fromkeys(BESIDE)
