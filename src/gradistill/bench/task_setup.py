"""What the students of one task share: rows, the teacher that is best on validation rows, and a store of signals."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from gradistill.bench.plan import BenchPlan, Cell
from gradistill.bench.process_pool import Command
from gradistill.commands.content_hashes import file_hashes, reading_options, weights_hash
from gradistill.commands.data_warnings import NewWarnings, refuse_words
from gradistill.commands.recorded_data import with_positive
from gradistill.commands.run_folder import finished_run, recorded_metrics
from gradistill.commands.signal_stores import delete
from gradistill.commands.store_signals import store_signals
from gradistill.commands.text_lengths import DEFAULT_LENGTH, task_length
from gradistill.data import TASKS, DataChoice, Splits, Task, read_splits
from gradistill.data.data_source import path_text
from gradistill.errors import GradistillError, TrainingError, UnusableStoreError
from gradistill.io import digest, discard, read_object, write_whole
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.loading import load_classifier, load_tokenizer
from gradistill.printing import log_filter
from gradistill.recipe import Recipe, load_recipe
from gradistill.store.fingerprint import model_hash

logger = logging.getLogger(__name__)

ROWS_DRAWN_BY = 0
"""The seed of every subset, so that all students of a task read the same rows."""


@dataclass(frozen=True)
class Rows:
    """The rows of a task for its students: where and how to read them, their numbers by split, and a hash."""

    choice: DataChoice
    task: Task
    counts: Mapping[str, int]
    fingerprint: str

    @property
    def options(self) -> list[str]:
        """The command-line options that read these rows."""
        return self.choice.options()


@dataclass(frozen=True)
class TaskWithTeacher:
    """A task with its teacher. ``tried`` has the selecting metric of each fine-tuned teacher, by learning rate."""

    rows: Rows
    teacher: str
    fingerprint: str
    tried: Mapping[str, float]
    max_length: int = DEFAULT_LENGTH
    """Tokens at which texts are cut for the teacher, and for students whose recipe sets no length."""


def prepared_rows(plan: BenchPlan, name: str, output: Path) -> Rows:
    """Write the rows of a task below ``output``, or a sample of them if the plan limits their number."""
    task = plan.tasks[name]
    assert task.data is not None  # read_plan has set it
    splits = with_positive(read_splits(task.choice), task.positive, [task.teacher] if task.teacher else [])
    refuse_words(splits.task, "gradistill bench")
    limits = {
        "train": task.train_rows or plan.train_rows,
        "validation": task.validation_rows or plan.validation_rows,
    }
    kept = {split: _drawn(splits.rows[split], limit) for split, limit in limits.items()}
    folder = output / name / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in kept.items():
        _written(rows, splits, folder / f"{split}.parquet")
    kind = splits.task.kind
    columns = splits.task.text_columns if task.task is None or task.text_columns else None
    choice = DataChoice(
        str(folder), task.task, "label", columns, kind=kind,
        label_map=task.label_map, positive=splits.task.positive_label,
    )  # fmt: skip
    # The positive class of a known task is not part of the hash, so benches of earlier versions resume.
    usual = splits.task.name in TASKS and TASKS[splits.task.name].positive_label == choice.positive
    about = {
        "positive": None if usual else choice.positive,
        "label_map": task.label_map and dict(task.label_map),
    }
    about = {name: value for name, value in about.items() if value is not None}
    fingerprint = digest({**{split: rows.to_dict() for split, rows in kept.items()}, **about})
    return Rows(choice, splits.task, {split: len(rows) for split, rows in kept.items()}, fingerprint)


def _drawn(rows: Dataset, limit: int | None) -> Dataset:
    if limit is None or limit >= len(rows):
        return rows
    return rows.shuffle(seed=ROWS_DRAWN_BY).select(range(limit))


def _written(rows: Dataset, splits: Splits, file: Path) -> None:
    """Write rows as Parquet, with labels by name: numbers would need inference again."""
    labels = splits.task.labels
    content = {name: rows[name][:] for name in splits.task.text_columns}
    if splits.task.multi_label and labels:
        content["label"] = [
            [name for name, flag in zip(labels, flags, strict=True) if flag == 1]
            for flags in rows["label"][:]
        ]
    else:
        content["label"] = [labels[k] for k in rows["label"][:]] if labels else rows["label"][:]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(content), sink)
    write_whole(file, memoryview(sink.getvalue()))


def teacher_runs(plan: BenchPlan, name: str, output: Path) -> dict[str, tuple[Path, Recipe]]:
    """The fine-tuning runs among which the teacher is chosen: folder and recipe, by learning rate. Empty if a teacher
    is given."""
    task = plan.tasks[name]
    if task.teacher is not None:
        return {}
    limit = [f"training.max_train_rows={plan.teacher.train_rows}"] if plan.teacher.train_rows else []
    runs = {}
    for rate in task.learning_rates or plan.teacher.learning_rates:
        changes = (*limit, *plan.teacher.set, *task.teacher_set, f"training.learning_rate={rate}")
        recipe = load_recipe("finetune", task=task.task, changes=changes, authors_settings=False)
        runs[f"{rate:g}"] = output / name / "teachers" / f"{rate:g}", recipe
    return runs


def teacher_commands(plan: BenchPlan, name: str, output: Path, rows: Rows) -> list[Command]:
    """The commands that fine-tune the missing teachers of a task, on all of its training rows.

    A file next to a teacher's folder records its model, its data and how they were read. A teacher with another record
    is trained again.
    """
    runs, task = teacher_runs(plan, name, output), plan.tasks[name]
    if not runs:
        return []
    commands = []
    source = Path(path_text(task.choice.source))
    read = replace(task.choice, positive=task.positive or rows.choice.positive)
    made_from = {
        "model": weights_hash(plan.teacher.model),
        "data": digest(file_hashes(source)),
        "read": digest(reading_options(read)),
    }
    for rate, (folder, recipe) in runs.items():
        mark = sibling_file(folder, ".json")
        # Entries that earlier versions did not record count as unchanged.
        known = {**made_from, **(read_object(mark) if mark.is_file() else {})}
        finished = finished_run(folder, recipe)
        if finished and known != made_from:
            logger.info(
                f"{name}: the teacher {folder} was made from another model or other data, or read them otherwise: "
                "it is made again"
            )
            discard(folder)
            finished = False
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            mark, json.dumps(made_from).encode()
        )  # after the old teacher is gone: it has another record
        if not finished:
            file = written_recipe(recipe, sibling_file(folder, ".yaml"))
            arguments = [
                "finetune", "--model", plan.teacher.model, *read.options(), "--recipe", str(file),
                "--settings", "default", "--output", str(folder), "--overwrite",
            ]  # fmt: skip
            title = f"{name}, teacher, learning rate {rate}"
            inputs = digest([recipe.as_dict(), made_from])
            commands.append(Command(title, arguments, sibling_file(folder, ".log"), inputs_digest=inputs))
    return commands


def task_with_best_teacher(plan: BenchPlan, name: str, output: Path, rows: Rows) -> TaskWithTeacher:
    """The task with its best teacher. Raises TrainingError if none could be trained."""
    given = plan.tasks[name].teacher
    tried: dict[str, float] = {}
    folders: dict[str, Path] = {}
    for rate, (folder, recipe) in teacher_runs(plan, name, output).items():
        metrics = recorded_metrics(folder) if finished_run(folder, recipe) else None
        if metrics is not None:
            tried[rate], folders[rate] = metrics["eval"][rows.task.select], folder
    if given is None and not tried:
        raise TrainingError(
            f"No teacher of {name} could be trained.", remedy=f"see the logs in {output / name / 'teachers'}"
        )
    teacher = given or str(folders[max(tried, key=lambda rate: tried[rate])])
    model, _ = load_classifier(teacher)
    length = task_length(None, load_tokenizer(teacher), [LoadedModel(f"teacher of {name}", teacher, model)])
    return TaskWithTeacher(rows, teacher, model_hash(model), tried, length)


def store_of(task: TaskWithTeacher, cells: Sequence[Cell], folder: Path) -> str:
    """The folder of one store for all of these cells, which read the same texts (``by_texts``); ``auto`` if none can be
    written.

    A cell that does not fit this teacher is ignored here, and its own run reports the reason.
    """
    needing = {digest(c.recipe.as_dict()): c.recipe for c in cells if c.recipe.needs_teacher}
    if not needing:
        return "auto"
    training = cells[0].recipe.training
    changes = [f"training.{name}={getattr(training, name)}" for name in ("max_length", "augment", "seed")]
    for name in ("windows", "window_overlap"):
        if (value := getattr(training, name)) is not None:
            changes.append(f"training.{name}={value}")
    if training.max_train_rows is not None:
        changes.append(f"training.max_train_rows={training.max_train_rows}")
    first = load_recipe("kd", changes=changes)  # needs logits, which every teacher has

    def write() -> Path:
        choice, others = task.rows.choice, list(needing.values())
        with log_filter(NewWarnings()):
            return store_signals(task.teacher, choice, folder, first, others=others)

    try:
        try:
            return str(write())
        except UnusableStoreError:  # damaged, or of another teacher
            delete(folder)
            return str(write())
    except GradistillError as error:
        logger.info(f"{cells[0].task}: every student has its own store: {error}")
        return "auto"


def sibling_file(folder: Path, ending: str) -> Path:
    """The file next to a run's folder. ``with_suffix`` would give 0.0001 and 0.0002 the same file."""
    return folder.with_name(f"{folder.name}{ending}")


def written_recipe(recipe: Recipe, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, recipe.as_yaml().encode())
    return file


def variant_of(cell: Cell) -> str:
    """A name for the texts that a cell reads: the length and windows, the copies of a row, and for a sample of rows
    their number and seed."""
    training = cell.recipe.training
    parts = [str(training.max_length)]
    if training.windows is not None:
        parts.append(f"{training.windows}-{training.window_overlap}")
    if training.augment:
        parts.append(f"augment-{training.augment}")
    if training.max_train_rows is not None:
        parts.append(f"rows-{training.max_train_rows}-{training.seed}")
    return "-".join(parts)


def by_texts(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Cells by the texts that they read (``variant_of``). Cells with the same texts share a store."""
    cells_by_texts: dict[str, list[Cell]] = {}
    for cell in cells:
        cells_by_texts.setdefault(variant_of(cell), []).append(cell)
    return cells_by_texts


def with_lengths(cells: Iterable[Cell], tasks: Mapping[str, TaskWithTeacher]) -> list[Cell]:
    """The cells with a text length in their recipes: the teacher's length if they had none."""
    return [
        replace(
            cell,
            recipe=cell.recipe.with_length(cell.recipe.training.max_length or tasks[cell.task].max_length),
        )
        for cell in cells
    ]
