"""The schema of a recipe. The schema of its objectives are the objectives' own fields."""

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
"""Largest numbers of epochs, rows in a batch, and copies of a row. Larger ones are typing errors: no run would end, and
no memory would hold the rows."""


OneOrMany = Annotated[
    tuple[str, ...], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
"""One text, or a list of them."""
Label = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""The name of a label, which may be a number."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StudentSettings(Strict):
    """How the student is built: from the teacher's layers, or from its own checkpoint."""

    layers: int | None = Field(
        default=None,
        ge=1,
        description="blocks taken from the teacher (default: the number that layer_map lists, or half of them)",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        description="hidden size of a narrower student with random weights (pre-train it first)",
    )
    checkpoint: str | None = Field(
        default=None, description="a pre-trained student instead: a folder or a hub id"
    )
    layer_map: LayerMap = Field(
        default="uniform", description="teacher layers that are copied: uniform, skip, first, last, or a list"
    )
    embeddings: Embeddings = Field(
        default="own", description="embeddings: own, copied from the teacher, or frozen (copied and fixed)"
    )
    embedding_rank: int | None = Field(
        default=None,
        ge=1,
        description="rank of the embedding matrix, which is learnt as two factors; an export keeps both factors",
    )
    dropout: Dropout = Field(
        default="keep", description="dropout of the student: keep, none, or not_in_embeddings"
    )
    size: str | None = Field(
        default=None,
        description="a budget: 60MB of model.safetensors, or 9.5M parameters; it sets layers, rank and width",
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
        """``size`` as a budget; None without a size."""
        return None if self.size is None else Budget.of(self.size)


class TeacherSettings(Strict):
    """How the teacher reads the texts. A recipe does not name the teacher."""

    template: str | None = Field(
        default=None,
        description='a prompt for the teacher, with text columns in braces: "Review: {text}\\nGood?"',
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
    """Training arguments, under the names that the papers use, and settings of the training data."""

    learning_rate: float = Field(default=5e-5, gt=0, description="peak of the linear schedule")
    epochs: float = Field(default=4, gt=0, le=MOST_EPOCHS, description="passes over the training data")
    batch_size: int = Field(default=32, ge=1, le=MOST_ROWS, description="rows per device and step")
    max_length: int | None = Field(
        default=None,
        ge=4,
        description="tokens after which a text is cut; unset: as the teacher (or the model itself) was trained",
    )
    windows: Pooling | None = Field(
        default=None,
        description="how probabilities of windows of texts longer than max_length are pooled: mean, max, or off (texts "
        "are cut); unset: as the teacher was trained",
    )
    window_overlap: int | None = Field(
        default=None, ge=0, description="tokens that two windows share; unset: 64, or a quarter of max_length"
    )
    seed: int = Field(
        default=0, ge=0, le=MOST_SEED, description="random seed of initialisation, order, dropout and subset"
    )
    max_train_rows: int | None = Field(
        default=None, ge=1, description="train on a random subset of this many rows"
    )
    augment: int = Field(
        default=0,
        ge=0,
        le=MOST_COPIES,
        description="changed copies of each training row, which have the teacher's predictions only, no labels",
    )
    checkpoint_minutes: float | None = Field(
        default=15.0,
        gt=0,
        description="minutes after which a checkpoint is written within an epoch; there is always one at its end",
    )
    average_weights: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the training, at its end, over which the student's weights are averaged; 0 is off",
    )
    thresholds: Literal["validation", "half"] = Field(
        default="validation",
        description="with several labels a row, the probability from which a label is predicted: the one with the "
        "highest F1 on the validation rows (validation), or ½ (half)",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="anything else of transformers.TrainingArguments, by its own name"
    )


Conflict = Annotated[
    Literal["off", "auto", "log", "project", "cap"],
    BeforeValidator(lambda value: "off" if value is False else value),  # as YAML reads a bare off
]


class ComputeSettings(Strict):
    """Settings that affect speed and memory. Results differ by rounding only, except with ``gradient_conflict``."""

    trim_last_block: bool = Field(
        default=True,
        description="compute only the row of the last block that the head reads, where this is exact",
    )
    share_views: bool = Field(
        default=True,
        description="compute the views of C labels from C - 1 inner gradients, not from one for each",
    )
    pad_to_max_length: bool = Field(
        default=False, description="pad every batch to max_length, not to its longest text"
    )
    gradient_conflict: Conflict = Field(
        default="off",
        description="priority of the prediction losses: off, log (their gradient's cosine with the rest), project "
        "(remove conflicting parts of the rest), cap (project, and limit the rest), or auto (cap once a gradient "
        "objective drowns them)",
    )
    gradient_cap: float = Field(
        default=1.0,
        gt=0,
        description="for cap and auto: largest length of the other gradient relative to that of the prediction losses",
    )

    @property
    def splits_gradients(self) -> bool:
        """Whether every step has one backward pass for each of the two gradients. Under ``auto`` it may start later."""
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
"""Settings that earlier versions did not have. Recipes leave them out at their defaults, so that runs and benches of
those versions, which are identified by their recipes, can be resumed."""

DESCRIPTIONS = ("title", "summary", "source")
"""Texts about a recipe. Recipes that differ in these alone train the same student."""

SETTLED_BY_SIZE = ("layers", "width", "embedding_rank")
"""Settings of the student that a budget determines if they are not set."""

TERM_FIELDS = tuple(field.name for field in dataclasses.fields(Term) if field.name != "objective")
"""Keys of an objective in a recipe that are fields of ``Term``, not of the objective."""


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
        """The recipe as a mapping for YAML. Objectives of the method that were left out are null."""
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
            name: {key: getattr(term, key) for key in TERM_FIELDS}
            | pydantic.TypeAdapter(type(term.objective)).dump_python(term.objective, mode="json")
            for name, term in self.objectives.items()
        }
        return flat

    def as_written(self) -> dict[str, Any]:
        """The recipe for files, cards and messages: plain values, without secrets."""
        return redacted(self.as_dict())

    def with_student_fields(self, **fields: Any) -> Recipe:
        """A copy with other fields of the student. They are not validated, as they do not come from the user."""
        return self.model_copy(update={"student": self.student.model_copy(update=fields)})

    def with_template(self, template: str | None) -> Recipe:
        """A copy with a prompt template for the teacher; None for no prompt."""
        return self.model_copy(update={"teacher": TeacherSettings(template=template)})

    def with_length(self, max_length: int) -> Recipe:
        """A copy with the length at which texts are cut."""
        return self.model_copy(
            update={"training": self.training.model_copy(update={"max_length": max_length})}
        )

    @property
    def windows(self) -> Windows | None:
        """The windows of texts that are longer than ``max_length``; None if such texts are cut."""
        return Windows.of(self.training.model_dump())

    def with_windows(self, windows: Windows | None) -> Recipe:
        """A copy with these windows; the recipe itself if ``windows`` is None."""
        if windows is None:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update=windows.as_dict())})

    def settled_by(self, written: Any) -> Recipe:
        """A copy with values from the ``written`` recipe of a run for settings that this one leaves open: the length of
        texts, their windows, and layers, width and rank of a student on a budget. Its descriptions are those of
        ``written``, because they change nothing."""
        student, training = (recipe_part(written, name) for name in ("student", "training"))
        settled, length = self._described_as(written), training.get("max_length")
        if self.training.max_length is None and isinstance(length, int):
            settled = settled.with_length(length)
        if self.training.windows in (None, training.get("windows")) and self.training.window_overlap in (
            None, training.get("window_overlap"),
        ):  # fmt: skip
            settled = settled.with_windows(Windows.of(training))
        if self.student.size is None or student.get("size") != self.student.size:
            return settled
        left_open = [name for name in SETTLED_BY_SIZE if getattr(self.student, name) is None]
        fields = {name: n for name in left_open if isinstance(n := student.get(name), int)}
        return settled.with_student_fields(**fields)

    def _described_as(self, written: Any) -> Recipe:
        given = {name: written.get(name) for name in DESCRIPTIONS} if isinstance(written, Mapping) else {}
        return self.model_copy(update={name: text for name, text in given.items() if isinstance(text, str)})

    def as_yaml(self) -> str:
        return yaml.safe_dump(self.as_written(), sort_keys=False, allow_unicode=True)


def recipe_part(written: Any, name: str) -> Mapping[str, Any]:
    """A part of a written recipe; empty if it is missing, or the recipe is none.

    Example: ``recipe_part({"training": {"epochs": 3}}, "training")["epochs"]``
    """
    part = written.get(name) if isinstance(written, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def check_recipe(recipe: Recipe) -> None:
    """Raise RecipeError unless ``recipe`` is a Recipe: a method's name is not."""
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
            expected="a method with a teacher, which predicts the copies",
            remedy="leave --augment out, or see gradistill methods",
        )


def term_of(name: str, fields: Any) -> Term:
    """The term of an objective's entry in a recipe. Raises RecipeError for an unknown objective or invalid fields."""
    known = all_objectives()
    if name not in known:
        raise RecipeError(f"there is no objective {name!r}", remedy=nearest(name, known))
    if not isinstance(fields, Mapping):
        raise RecipeError(
            f"objectives.{name} is {fields!r}",
            expected="its fields, such as {weight: 1}",
            remedy="write the fields in this form",
        )
    of_objective = {key: value for key, value in fields.items() if key not in TERM_FIELDS}
    of_term = {key: value for key, value in fields.items() if key in TERM_FIELDS}
    try:
        term = Term(pydantic.TypeAdapter(known[name]).validate_python(of_objective), **of_term)
    except pydantic.ValidationError as error:
        raise refusal(error, known[name], f"objectives.{name}.") from error
    refuse_truth_values(of_objective, term.objective, f"objectives.{name}.")
    refuse_truth_values(of_term, term, f"objectives.{name}.")
    return term


def refuse_truth_values(written: Any, made: Any, prefix: str = "", kind: str = "recipe") -> None:
    """Raise RecipeError for a truth value that was converted to a number: pydantic reads true as 1.

    Parameters:
        ``written``: a part of a file's content.
        ``made``: pydantic's result for it.
        ``prefix``: the keys that lead to it.
        ``kind``: the kind of the file, for the message.
    """
    if (path := truth_value(written, made)) is not None:
        raise not_a_number(prefix + ".".join(map(str, path)), kind)


def truth_value(written: Any, made: Any) -> tuple[int | str, ...] | None:
    """The keys that lead to the first truth value that was converted to a number; None if there is none.

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
    paths = ((key, truth_value(value, result)) for key, value, result in pairs)
    return next(((key, *rest) for key, rest in paths if rest is not None), None)


def not_a_number(path: str, kind: str) -> RecipeError:
    """The error for a truth value where a number is expected."""
    return RecipeError(
        f"the {kind}'s {path} is a truth value",
        expected="a number; YAML reads yes and no, on and off as true and false",
        remedy=f"change {path}",
    )


def refusal(
    error: pydantic.ValidationError, schema: Any, prefix: str = "", kind: str = "recipe"
) -> RecipeError:
    """A RecipeError for pydantic's first fault: the key, its value, and what was expected."""
    faults = [(*_followed(schema, fault["loc"]), fault) for fault in error.errors()]
    keys, holder, first = faults[0]
    if not keys and first["type"] == "value_error":  # of several keys together
        fault = first["msg"].removeprefix("Value error, ")
        return RecipeError(f"{prefix.rstrip('.') or f'the {kind}'}: {fault}", remedy="change one of them")
    path = prefix + ".".join(str(part) for part in keys)
    if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return RecipeError(
            f"the {kind} has an unknown key {path!r}", remedy=nearest(str(keys[-1]), _fields(holder))
        )
    if first["type"] == "missing":
        return RecipeError(f"the {kind} lacks {path!r}", remedy=f"add {path}")
    if isinstance(first["input"], bool) and first["type"].startswith(("greater_than", "less_than", "finite")):
        return not_a_number(path, kind)
    # Each member of a union has its own message of what it accepts.
    expected = dict.fromkeys(fault["msg"] for other, _, fault in faults if other == keys)
    shown = " or ".join(
        message.removeprefix("Input should be ").removeprefix("Value error, ") for message in expected
    )
    choices = re.findall(r"'([^']+)'", shown)
    hint = f"; {nearest(first['input'], choices)}" if choices and isinstance(first["input"], str) else ""
    return RecipeError(
        f"the {kind}'s {path} is {redacted(first['input'])!r}", expected=shown, remedy=f"change {path}{hint}"
    )


def _followed(schema: Any, loc: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], Any]:
    """The part of pydantic's path that the user wrote, without the names of union members, and the schema that holds
    its last key."""
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
        elif fields:  # an unknown key, which ends the path
            path.append(part)
            break
        else:
            break
        path.append(part)
    return tuple(path), holder


def _plain(annotation: Any) -> Any:
    """A type without its annotations, and without an optional None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _plain(members[0]) if len(members) == 1 else annotation
    return annotation


def _fields(schema: Any) -> dict[str, Any]:
    """The keys of a model or an objective, each with its field."""
    plain = _plain(schema)
    if hasattr(plain, "model_fields"):
        return dict(plain.model_fields)
    own = getattr(
        plain, "__pydantic_fields__", None
    )  # an objective without fields of its own has an empty one
    return {} if own is None else dict(own) | dict.fromkeys(TERM_FIELDS)
