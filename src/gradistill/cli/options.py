"""Groups of options that several commands share, and their conversion into arguments of commands."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from gradistill.cli.cpu_load import settle_openmp
from gradistill.commands.defaults import DEFAULT_METHOD, OUTPUTS_METHOD, TOKEN_METHOD
from gradistill.printing import LOGGER, show, write

if TYPE_CHECKING:  # imported only when a command runs
    from rich.console import RenderableType

    from gradistill.commands.signal_stores import StoreChoice
    from gradistill.data import DataChoice
    from gradistill.models.teacher_loading import TeacherLoading
    from gradistill.recipe import Recipe

RECIPE_FIELDS = {
    "epochs": "training.epochs",
    "windows": "training.windows",
    "window_overlap": "training.window_overlap",
    "seed": "training.seed",
    "max_train_rows": "training.max_train_rows",
    "augment": "training.augment",
    "student": "student.checkpoint",
    "student_layers": "student.layers",
    "layer_map": "student.layer_map",
    "student_width": "student.width",
    "student_size": "student.size",
    "teacher_template": "teacher.template",
}
"""The field of a recipe that each option sets."""


def output_option(help: str, *, metavar: str = "FOLDER") -> Any:
    """The option ``--output``. An empty value, such as an unset shell variable, is refused: it would mean the current
    folder."""

    def folder(given: str | Path) -> Path:
        if not str(given).strip() or given == "":
            raise typer.BadParameter("it is empty; name a folder, or . for this one")
        return Path(given)

    return typer.Option("--output", help=help, parser=folder, metavar=metavar)


DATA = typer.Option(
    "--data",
    help="A folder with train and validation files (.csv, .tsv, .json, .jsonl, .parquet), one file, or a hub id.",
)
TEACHER = typer.Option("--teacher", help="A fine-tuned classifier: folder or hub id.")
Teacher = Annotated[str, TEACHER]


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """A teacher: a model, files of its answers, a function, or several models and functions."""

    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            help="A fine-tuned classifier: folder or hub id; or python:module:function. Several are averaged; "
            "as LABEL=FOLDER each predicts whether a row has that label.",
        ),
    ] = None
    teacher_answers: Annotated[
        Path | None,
        typer.Option(
            "--teacher-answers",
            help="Instead of a model, a file of the teacher's answers: probability_<label> and the texts of each row.",
        ),
    ] = None
    validation_answers: Annotated[
        Path | None,
        typer.Option(
            "--validation-answers", help="The teacher's answers to the validation rows, in a separate file."
        ),
    ] = None

    def choice(self) -> Any:
        """The teacher. A function given as ``python:module:function`` is imported here and nowhere else, so that no
        file can name code to run. Raises RecipeError if none is given, or two."""
        from gradistill.data.teacher_answers import TeacherAnswers
        from gradistill.errors import RecipeError

        if bool(self.teacher) == (self.teacher_answers is not None):
            given = "both were" if self.teacher else "neither was"
            raise RecipeError(
                f"Of --teacher and --teacher-answers {given} given.",
                expected="one of them",
                remedy="name a model (--teacher) or a file of its answers (--teacher-answers); where there is neither, "
                "gradistill init FILE proposes how to make a teacher",
            )
        if self.teacher:
            if self.validation_answers is not None:
                raise RecipeError(
                    "--validation-answers was given, and --teacher answers the validation rows itself.",
                    expected="it together with --teacher-answers only",
                    remedy="leave --validation-answers out",
                )
            return teachers_of(self.teacher)
        assert self.teacher_answers is not None
        return TeacherAnswers(self.teacher_answers, self.validation_answers)


TeacherTemplate = Annotated[
    str | None,
    typer.Option(
        "--teacher-template",
        help="A prompt around each row for the teacher, text columns in braces: 'Review: {text}\\nIs it good?'",
    ),
]
TextColumns = Annotated[
    str | None,
    typer.Option("--text-columns", help="One or two columns, with a comma between; body.text in objects."),
]
Positive = Annotated[
    str | None,
    typer.Option(
        "--positive",
        help="The positive class for F1, with two labels (default: the teacher's, else 1 or yes, else the rarer).",
    ),
]
LabelMap = Annotated[
    str | None,
    typer.Option(
        "--label-map",
        help="The teacher's output for each label, if names differ: refund=LABEL_2,login=LABEL_0",
    ),
]
Unlabelled = Annotated[
    str | None,
    typer.Option("--unlabelled", help="A file with more rows, without labels: the teacher labels them."),
]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Short for --set training.epochs=…")]
Windows = Annotated[
    str | None,
    typer.Option(
        "--windows",
        help="Read texts longer than max_length in windows, pooled by mean or max; or off (cut).",
    ),
]
WindowOverlap = Annotated[
    int | None,
    typer.Option("--window-overlap", help="Tokens that two windows share (default: 64, or max_length / 4)."),
]
Settings = Annotated[
    str, typer.Option("--settings", help="authors: the papers' settings for the task, if any; default: ours.")
]
StudentLayers = Annotated[
    int | None,
    typer.Option(
        "--student-layers", help="Blocks taken from the teacher (default: as --layer-map lists, or half)."
    ),
]
StudentWidth = Annotated[
    int | None,
    typer.Option(
        "--student-width", help="Hidden size of a narrower student, which starts from random weights."
    ),
]
LayerMap = Annotated[
    str | None, typer.Option("--layer-map", help="uniform, skip, first, last, or a list such as 1,3,6.")
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="How a store writes vectors: int8 (default), float16 or float32."),
]
Signals = Annotated[
    str,
    typer.Option("--signals", help="Teacher signals: auto (kept in a cache), online, or a store's folder."),
]
Verify = Annotated[
    str, typer.Option("--verify", help="On opening a store: full (checksums) or fast (sizes).")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier command wrote at --output.")
]


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a run is written."""

    output: Annotated[Path, output_option("The run folder: a model folder with metrics and recipe.")]
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How the rows of a task are read. Fields have the names of ``DataChoice``."""

    task: Annotated[
        str | None, typer.Option("--task", help="A known task (gradistill tasks); else inferred.")
    ] = None
    label_column: Annotated[
        str | None,
        typer.Option("--label-column", help="The column of labels, if not obvious; meta.label in objects."),
    ] = None
    text_columns: TextColumns = None
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="What labels are: classes, scores, multi_label (any number a row), or tokens (a tag a word).",
        ),
    ] = None
    label_columns: Annotated[
        str | None,
        typer.Option("--label-columns", help="Columns that hold 0 or 1 for the label of their name: a,b,c."),
    ] = None
    label_separator: Annotated[
        str | None,
        typer.Option(
            "--label-separator", help="The separator between several labels of a row in one column."
        ),
    ] = None
    validation_share: Annotated[
        float | None,
        typer.Option(
            "--validation-share", help="Draw this share of the training rows for validation, e.g. 0.1."
        ),
    ] = None
    validation_seed: Annotated[
        int,
        typer.Option(
            "--validation-seed",
            help="Random seed of --validation-share. Use the same for teacher, students and audit.",
        ),
    ] = 0
    skip_incomplete: Annotated[
        bool,
        typer.Option(
            "--skip-incomplete", help="Leave out rows that lack a text or a label (default: refuse them)."
        ),
    ] = False

    def choice(self) -> DataChoice:
        """The data choice of a command. Raises RecipeError for invalid values."""
        from gradistill.data import DataChoice

        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given["text_columns"] = listed(self.text_columns)
        given["label_columns"] = listed(self.label_columns)
        given["label_map"] = label_pairs(given.get("label_map"))
        return DataChoice(given.pop("data"), **given)


@dataclass(frozen=True, kw_only=True)
class FinetuningData(TableOptions):
    """The rows of a task."""

    data: Annotated[str, DATA]
    positive: Positive = None


@dataclass(frozen=True, kw_only=True)
class TeacherData(FinetuningData):
    """The rows of a task with a teacher."""

    label_map: LabelMap = None


@dataclass(frozen=True, kw_only=True)
class DistillationData(TeacherData):
    """The rows that a student is trained on."""

    unlabelled: Unlabelled = None


@dataclass(frozen=True, kw_only=True)
class StoreData(TableOptions):
    """The rows of a store. ``signals show``, ``list`` and ``delete`` need none."""

    data: Annotated[str | None, DATA] = None
    label_map: LabelMap = None
    unlabelled: Unlabelled = None


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """A recipe and changes of it."""

    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe in YAML, which names a method or a base.")
    ] = None
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe, e.g. objectives.soft_label.temperature=2."),
    ] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Short for --set training.seed=…")] = None
    max_train_rows: Annotated[
        int | None, typer.Option("--max-train-rows", help="Short for --set training.max_train_rows=…")
    ] = None

    def load(self, method: str | None, task: str | None = None, changes: Sequence[str] = ()) -> Recipe:
        """The recipe of the file or the ``method`` for a ``task``. Options are applied first, ``changes`` last.

        Raises RecipeError for a recipe, a method or a field that does not exist, and for a field that is set twice.
        """
        from gradistill.recipe import load_recipe

        given = [*self._short_options(), *(self.change or [])]
        _refuse_a_field_twice(given)
        settings = one_of("--settings", getattr(self, "settings", "default"), ("authors", "default"))
        return load_recipe(
            method,
            task=task,
            file=self.recipe,
            changes=[*given, *changes],
            authors_settings=settings == "authors",
        )

    def _short_options(self) -> list[str]:
        """The options that stand for a field of the recipe, as changes of it."""
        given = {name: getattr(self, name, None) for name in RECIPE_FIELDS}
        given["teacher_template"] = prompt_of(given["teacher_template"])
        for name in ("student", "student_size", "teacher_template"):
            if text := given[name]:
                given[name] = json.dumps(text)  # a folder may be called 12
        if (layers := given["layer_map"]) and layers[0].isdigit():
            given["layer_map"] = f"[{layers}]"
        given["student"] = given["student"] or None
        return [f"{RECIPE_FIELDS[name]}={value}" for name, value in given.items() if value is not None]


def _refuse_a_field_twice(changes: Sequence[str]) -> None:
    """Raise RecipeError for a field that is set twice, by ``--set`` or its short option: one would be ignored."""
    from gradistill.errors import RecipeError

    keys = [change.partition("=")[0].strip() for change in changes if "=" in change]
    for key, times in Counter(keys).items():
        if times > 1:
            short = next(
                (name.replace("_", "-") for name, field in RECIPE_FIELDS.items() if field == key), None
            )
            raise RecipeError(
                f"{key} is set {times} times on the command line",
                expected=f"one value, by --set {key}=…" + (f" or --{short}" if short else ""),
                remedy="leave the others out",
            )


@dataclass(frozen=True, kw_only=True)
class FinetuningRecipe(RecipeOptions):
    """The recipe of a teacher."""

    epochs: Epochs = None
    windows: Windows = None
    window_overlap: WindowOverlap = None
    settings: Settings = "authors"


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(RecipeOptions):
    """The recipe of a student, as far as a store depends on it."""

    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"See gradistill methods. Default: {DEFAULT_METHOD}; {OUTPUTS_METHOD} where attention cannot be "
            f"compared; {TOKEN_METHOD} for tags of words.",
        ),
    ] = None
    student: Annotated[str | None, typer.Option("--student", help="A pre-trained student checkpoint.")] = None
    student_layers: StudentLayers = None
    student_width: StudentWidth = None
    student_size: Annotated[
        str | None,
        typer.Option(
            "--student-size",
            help="A budget for layers, rank and width: 60MB of model.safetensors, or 9.5M parameters.",
        ),
    ] = None
    layer_map: LayerMap = None
    windows: Windows = None
    window_overlap: WindowOverlap = None
    settings: Settings = "authors"
    augment: Annotated[
        int | None,
        typer.Option(
            "--augment", help="Number of changed copies of each row. They have the teacher's labels only."
        ),
    ] = None

    def load_for(self, teacher: Any, task: str | None, changes: Sequence[str] = ()) -> Recipe:
        """The recipe of the student; without a method or a file, the default one for the teacher."""
        if self.method or self.recipe:
            return self.load(self.method, task, changes)
        from gradistill.commands.default_recipe import default_recipe

        return default_recipe(teacher, lambda method: self.load(method, task, changes))


@dataclass(frozen=True, kw_only=True)
class DistillationRecipe(StudentRecipe):
    """The recipe of a student."""

    epochs: Epochs = None


@dataclass(frozen=True, kw_only=True)
class PromptedStudentRecipe(DistillationRecipe):
    """The recipe of a student, and the prompt around its teacher's texts."""

    teacher_template: TeacherTemplate = None


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How a large teacher is loaded."""

    teacher_dtype: Annotated[
        str | None,
        typer.Option(
            "--teacher-dtype",
            help="Type of the teacher's weights: float32 or bfloat16 (half the memory; no teacher gradients).",
        ),
    ] = None
    device_map: Annotated[
        str | None,
        typer.Option(
            "--device-map", help="Spread a large teacher by accelerate: auto, balanced, sequential or cpu."
        ),
    ] = None

    @property
    def held(self) -> dict[str, str | None]:
        """The given value of each option."""
        return {"--teacher-dtype": self.teacher_dtype, "--device-map": self.device_map}

    def loading(self) -> TeacherLoading:
        """The loading settings for commands. Raises RecipeError for unknown values."""
        from gradistill.models.teacher_loading import DEVICE_MAPS, TeacherLoading

        dtype: Any = one_of("--teacher-dtype", self.teacher_dtype or "float32", ("float32", "bfloat16"))
        return TeacherLoading(dtype, self.device_map and one_of("--device-map", self.device_map, DEVICE_MAPS))


@dataclass(frozen=True, kw_only=True)
class SignalOptions(LoadingOptions):
    """Where the teacher's signals come from, and how the teacher is loaded."""

    signals: Signals = "auto"
    encoding: Encoding = None
    verify: Verify = "full"

    def choice(self) -> StoreChoice:
        """The store that a run reads. Raises RecipeError for an unknown encoding or verification."""
        from gradistill.commands.signal_stores import StoreChoice

        known = known_encoding(self.encoding) if self.encoding else None
        return StoreChoice(self.signals, known, known_verification(self.verify), self.loading())


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """How much a command prints while it runs. Results are always printed."""

    quiet: Annotated[
        bool,
        typer.Option("--quiet", help="Print warnings, errors and results; no progress lines, no bars."),
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print details that help to find the cause of a problem.")
    ] = False

    def set_up(self) -> None:
        """Set the log level of the package. Only the first process of torchrun logs.

        This is the first call of every command, so it also sets how OpenMP threads wait.
        """
        from gradistill.errors import RecipeError

        if self.quiet and self.verbose:
            raise RecipeError(
                "--quiet and --verbose were both given",
                expected="at most one of them",
                remedy="leave one of them out",
            )
        level = logging.WARNING if self.quiet else logging.DEBUG if self.verbose else logging.INFO
        LOGGER.setLevel(level if is_first_process() else logging.CRITICAL + 1)
        settle_openmp()


@dataclass(frozen=True, kw_only=True)
class PrintOptions(LogOptions):
    """Log options, and the form in which the result is printed."""

    as_json: Annotated[
        bool, typer.Option("--json", help="End with the result as one line of JSON, for other programs.")
    ] = False

    def report(self, view: RenderableType, line: str | None, result: Mapping[str, Any]) -> None:
        """Print the result of a command: tables, a line if there is one, and with ``--json`` the result as JSON.

        Raises typer.Exit with code 1 if a figure is below its limit (``failed``).
        """
        show(view)
        if line is not None:
            write_result(line)
        if self.as_json:
            write_result(json.dumps(result), fold=False)
        if result.get("failed"):
            raise typer.Exit(1)


def is_first_process() -> bool:
    """Whether this is the first process of torchrun, the only one that prints."""
    return os.environ.get("RANK", "0") == "0"


def write_result(text: str, *, fold: bool = True) -> None:
    """Print a line of the result. Only the first process of torchrun prints."""
    if is_first_process():
        write(text, fold=fold)


def one_of(option: str, given: str, known: tuple[str, ...]) -> Any:
    from gradistill.errors import refuse_others

    refuse_others(f"{option} {given!r}", given, known)
    return given


def known_encoding(given: str) -> Any:
    from gradistill.store.columns import Encoding

    return one_of("--encoding", given, get_args(Encoding))


def known_verification(given: str) -> Any:
    from gradistill.store.reader import Verify

    return one_of("--verify", given, get_args(Verify))


def label_pairs(given: str | None) -> dict[str, str] | None:
    """Parse ``label=output`` pairs with commas between, or a JSON object. Raises RecipeError for anything else."""
    from gradistill.errors import RecipeError

    if given is None:
        return None
    if given.lstrip().startswith("{"):
        try:
            output_by_label = {str(key): str(value) for key, value in json.loads(given).items()}
        except ValueError:
            output_by_label = {}
    else:
        pairs = [pair.rpartition("=") for pair in given.split(",")]
        output_by_label = {label.strip(): output.strip() for label, _, output in pairs}
        output_by_label = output_by_label if len(output_by_label) == len(pairs) else {}
    if not output_by_label or not all(output_by_label) or not all(output_by_label.values()):
        raise RecipeError(
            f"--label-map {given!r} does not pair labels with outputs.",
            expected="each label of the data once, with the teacher's output: refund=LABEL_2,login=LABEL_0",
            remedy='correct it; labels with a comma or an = need JSON: \'{"a, b": "LABEL_0"}\'',
        )
    return output_by_label


def resolved(name: str) -> Any:
    """The function that ``python:module:function`` names; any other name as it is.

    The module is imported here and nowhere else, so that no file can name code to run.
    """
    from gradistill.auditing.function_predictor import PREFIX, function_at

    return function_at(name) if name.startswith(PREFIX) else name


def teachers_of(names: list[str]) -> Any:
    """One model, a list of several, or a dictionary by label for names of the form ``LABEL=FOLDER``.

    A name that is an existing path is never split at ``=``. Raises RecipeError for a label that is given twice, or if
    only some names have one.
    """
    from gradistill.errors import RecipeError

    parted = [_parted(name) for name in names]
    labels = [label for label, _ in parted]
    if not any(label is not None for label in labels):
        return resolved(names[0]) if len(names) == 1 else list(map(resolved, names))
    if not all(labels) or len({*labels}) < len(labels):
        raise RecipeError(
            f"--teacher {' --teacher '.join(names)}: not every one has a label of its own before =",
            expected="--teacher LABEL=FOLDER for each label, or folders alone, which are averaged",
            remedy="name the label of each, once",
        )
    return {label: resolved(path) for label, path in parted}


def _parted(name: str) -> tuple[str | None, str]:
    """The label before =, or None without one, and the model after it."""
    label, equals, path = name.partition("=")
    return (label.strip(), path.strip()) if equals and not Path(name).exists() else (None, name)


def prompt_of(given: str | None) -> str | None:
    """A prompt as a shell passes it: ``\\n`` in it is a new line."""
    return None if given is None else given.replace("\\n", "\n")


def listed(names: str | None) -> tuple[str, ...] | None:
    """The names between commas."""
    return tuple(name.strip() for name in names.split(",")) if names else None
