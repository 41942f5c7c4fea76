"""The audit: does a student decide as its teacher does, and for the same reasons? Figures, examples, a page."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradistill.auditing.evaluate import FLOOR_SEEDS, Examiner, has_head, in_blocks
from gradistill.auditing.methods import Method
from gradistill.auditing.methods.gradient_x_input import GradientXInput
from gradistill.auditing.per_example import GROUPS, Columns, joined
from gradistill.auditing.perturbations import PERTURBATIONS, perturbed
from gradistill.auditing.response import COPIES, word_pool
from gradistill.auditing.shown_examples import chosen_examples
from gradistill.auditing.summary import Audited, Changed, summed_up
from gradistill.auditing.verdict import judged
from gradistill.auditing.word_maps import row_texts
from gradistill.commands.data_warnings import (
    log_splits,
    overlap_with_training,
    teacher_warning,
    with_positive,
)
from gradistill.commands.output_folder import FolderKind, check_output, draft_folder, held, put_in_place
from gradistill.commands.run_record import described, versions
from gradistill.commands.text_lengths import LoadedModel, task_length
from gradistill.data import Cut, DataChoice, Splits, Task, align_labels, encode, read_splits
from gradistill.data.data_source import Source
from gradistill.data.labels import match_names, match_numbers, numbers_of
from gradistill.data.overlap import overlap_line
from gradistill.data.splits import CARRIED, Marks
from gradistill.data.tasks import metrics_of
from gradistill.errors import DataError, RecipeError, nearest
from gradistill.io import read_object
from gradistill.models.loading import label_names, load_classifier, load_tokenizer, set_padding
from gradistill.models.model_source import ModelSource, model_folder, model_name
from gradistill.models.student import pair_warnings, same_weights
from gradistill.models.tokenizers import check_same_rows, check_same_tokens
from gradistill.printing import NO_PREFIX, progress_bars
from gradistill.report.audit_markdown import audit_table
from gradistill.report.audit_page import audit_page
from gradistill.store.fingerprint import digest

logger = logging.getLogger(__name__)

POOL_ROWS = 1000
"""Rows whose words stand in for others: so many keep memory small, and do not depend on how many rows are compared."""

LIMIT_NAMES = {"response_loyalty": "response", "response_masked_loyalty": "response_masked"}
"""Names of limits that differ from those of their figures."""

PAGE, FIGURES, TABLE, EXAMPLES = "audit.html", "audit.json", "audit.md", "examples.jsonl"


def _is_audit(output: Path) -> bool:
    """Whether an earlier version wrote the folder: by its figures, with nothing of others beside them."""
    try:
        figures = read_object(output / FIGURES)
    except (OSError, ValueError):
        return False
    return figures.keys() >= {"data", "teacher", "students", "settings", "versions"}


AUDIT = FolderKind(
    "audit", _is_audit, re.compile("|".join(map(re.escape, (PAGE, FIGURES, TABLE, EXAMPLES)))), FIGURES
)


@dataclass(frozen=True)
class AuditChoice:
    """What is looked at. ``rationale`` is a column of spans (``data.marked_spans``), in ``rationale_units``.

    ``slices`` are columns of the data: the figures are measured for each of their values too.

    Without a ``max_length`` texts are cut at the length that the teacher was trained with (``commands.text_lengths``).

    Faithfulness, perturbations and response loyalty run the models many times a text: they look at
    ``faithfulness_rows``, ``perturbed_rows`` and ``response_rows`` rows, drawn by ``seed``; 0 leaves a part out. The
    page shows ``examples`` of the examples, half of them those on which the models disagree most.
    """

    split: str = "validation"
    method: Method = GradientXInput()  # noqa: RUF009 (frozen)
    max_rows: int | None = None
    max_length: int | None = None
    rationale: str | None = None
    rationale_units: str = "characters"
    challenge: str | None = None
    watched: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    faithfulness_rows: int = 50
    perturbed_rows: int = 200
    response_rows: int = 50
    examples: int = 400
    limits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def audit(
    teacher: ModelSource,
    students: Sequence[ModelSource],
    data: DataChoice | Source,
    output: str | Path,
    choice: AuditChoice = AuditChoice(),
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare students with their teacher on data neither was fitted to; returns what ``audit.json`` holds.

    Parameters:
        ``teacher``: a folder, a hub id, or a pair ``(model, tokenizer)``.
        ``students``: one or more, given alike; any classifiers over the same labels and tokens.
        ``data``: a ``DataChoice``, or what its ``source`` may be. Of a split without labels, the figures that need
            them are left out.
        ``output``: a folder for ``audit.html``, ``audit.json``, ``audit.md`` and ``examples.jsonl``.
        ``choice``: the split, the attribution method, limits and sizes.
        ``overwrite``: replace an earlier audit in that folder.

    Raises GradistillError for what does not fit together.

    Example: ``audit("runs/teacher", ["runs/student"], DataChoice("DATA/mrpc"), "runs/audit")["students"]``
    """
    output, data = Path(output), DataChoice.of(data)
    named = _named(students)
    if data.unlabelled is not None:
        raise RecipeError(
            "unlabelled was given, and an audit reads one split",
            expected="the rows to audit as the data themselves; they need no labels",
            remedy="leave unlabelled out, or pass those rows as data",
        )
    check_output(output, AUDIT, overwrite=overwrite)
    choice = replace(choice, limits=_figure_limits(choice.limits))
    seconds: dict[str, float] = {}
    with _timed(seconds, "loading"):
        models = _Models.load(teacher, students, named)
        folders = [model_folder(model) for model in (teacher, *students)]
        splits = with_positive(_rows(data, choice, models), data.positive, folders)
        length = task_length(choice.max_length, models.tokenizer, models.readers)
        choice = replace(choice, max_length=length)
        sets = _Sets.of(splits, choice)
        cut = _checked(models, sets, splits.task, length)
    log_splits(splits)
    overlap = overlap_with_training(splits, choice.split, data)
    rows = splits.rows[choice.split]
    if line := overlap_line(overlap, choice.split, rows, splits.task.text_columns):
        logger.warning(line, extra=NO_PREFIX)
    trained = ["the audited rows are those of the training split"] if choice.split == "train" else []
    warnings = [
        *trained,
        *_warnings(models),
        *(f"{name}: {part}" for name, part in cut.items() if part.truncated),
        *(_floorless(models) if len(sets.response) else ()),
    ]
    for warning in warnings:
        logger.warning(warning)
    with held(output, AUDIT), draft_folder(output) as draft:
        check_output(output, AUDIT, overwrite=overwrite)  # another process may have finished meanwhile
        audited = _examined(models, splits.task, sets, choice, draft, seconds)
        about = {
            "data": {"task": splits.task.name, "split": choice.split, "rows": len(rows),
                     "source": Path(data.name).name, "positive": splits.task.positive_label,
                     **_without_labels(splits, choice.split)},
            "teacher": described(models.teacher, model_name(teacher), models.readers[0].probe),
            "students": [
                described(reader.model, name, reader.probe)
                for reader, name in zip(models.readers[1:], named, strict=True)
            ],
            "settings": _settings(choice),
            "texts": {"max_length": length, **{name: part.as_dict() for name, part in cut.items()}},
            "versions": versions(),
            "seconds": {part: round(taken, 2) for part, taken in seconds.items()},
        }  # fmt: skip
        found = summed_up(audited, about, choice.method, splits.task, choice.limits, seed=choice.seed)
        doubts = _doubts(audited, splits)
        found |= {"overlap": overlap, **_task_metrics(audited, splits), "doubts": doubts}
        found["warnings"] = [*splits.warnings, *warnings, *doubts]
        found = judged(found, choice.limits)
        examples = chosen_examples(draft / EXAMPLES, choice.examples, seed=choice.seed)
        (draft / PAGE).write_bytes(audit_page(found, examples).encode("utf-8", "backslashreplace"))
        (draft / TABLE).write_bytes(audit_table(found).encode("utf-8", "backslashreplace"))
        (draft / FIGURES).write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        put_in_place(draft, output, AUDIT)
    return found


def _task_metrics(audited: Audited, splits: Splits) -> dict[str, Any]:
    """The task's own metrics of every model, on the rows that have a label."""
    gold = audited.columns[0].get("gold")
    if gold is None:
        return {"metrics": {}}
    students = {name: _predicted(audited, k, "student") for k, name in enumerate(audited.names)}
    models = students | {"teacher": _predicted(audited, 0, "teacher")}
    known = np.isfinite(gold) if splits.task.labels is None else gold >= 0
    if not known.any():
        return {"metrics": {}}
    order = dict.fromkeys(("teacher", *models))
    return {"metrics": {name: metrics_of(splits.task, models[name][known], gold[known]) for name in order}}


def _predicted(audited: Audited, k: int, role: str) -> np.ndarray:
    columns = audited.columns[k]
    return columns[f"{role}_label"] if f"{role}_label" in columns else columns[f"{role}_prediction"]


def _doubts(audited: Audited, splits: Splits) -> list[str]:
    gold = audited.columns[0].get("gold")
    if gold is None:
        return []
    warning = teacher_warning(splits.task, _predicted(audited, 0, "teacher"), gold)
    return [warning] if warning else []


@dataclass(frozen=True)
class _Models:
    teacher: PreTrainedModel
    students: list[PreTrainedModel]
    names: list[str]
    tokenizer: PreTrainedTokenizerBase
    student_tokenizers: list[PreTrainedTokenizerBase]
    readers: list[LoadedModel]

    @classmethod
    def load(cls, teacher: ModelSource, students: Sequence[ModelSource], named: Sequence[str]) -> _Models:
        tokenizer, *own = (load_tokenizer(name) for name in (teacher, *students))
        for student in own:
            check_same_tokens(student, tokenizer)
        loaded = [load_classifier(name)[0] for name in (teacher, *students)]
        for model, name in zip(loaded[1:], named, strict=True):
            _in_order(loaded[0], model, name)
        device: Any = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        for model in loaded:
            model.to(device)
            set_padding(model, tokenizer)
        names = _names(named)
        owners = ["teacher", *(f"student {name}" for name in names)]
        folders = map(model_folder, (teacher, *students))
        readers = [LoadedModel(*each) for each in zip(owners, folders, loaded, strict=True)]
        return cls(loaded[0], loaded[1:], names, tokenizer, own, readers)


def _named(students: Any) -> list[str]:
    """The names of the students. Raises RecipeError where they are no list."""
    if isinstance(students, str | bytes | os.PathLike | tuple) or not isinstance(students, Sequence):
        raise RecipeError(
            f"students is of the type {type(students).__name__}",
            expected="a list of models, each a path, a hub id or a pair (model, tokenizer)",
            remedy="put the student into a list: [student]",
        )
    return [model_name(student) for student in students]


def _names(named: Sequence[str]) -> list[str]:
    """The last part of each path; the whole of it where two end alike, and its number where that does not help."""
    short = [Path(name).name for name in named]
    found = [name if short.count(name) == 1 else full for name, full in zip(short, named, strict=True)]
    return [name if found.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(found, start=1)]


def _without_labels(splits: Splits, split: str) -> dict[str, str]:
    return (
        {"labels": "none, so figures that need them are left out"} if split in splits.without_labels else {}
    )


def _in_order(teacher: PreTrainedModel, student: PreTrainedModel, name: str) -> None:
    """Have the student give its outputs in the teacher's order. Raises DataError for other labels."""
    ours, theirs = list(label_names(teacher).values()), list(label_names(student).values())
    match = match_names(ours, theirs) if len(ours) == len(theirs) else None
    if match is None and len(ours) == len(theirs):
        match = match_numbers(numbers_of(ours), numbers_of(theirs))
    if match is None:
        raise DataError(
            f"The labels of the teacher and of {name} differ.\n"
            f"  teacher: {', '.join(ours)}\n  {name}: {', '.join(theirs)}",
            expected="the same names, in any order",
            remedy="take two models of one task, or correct id2label in config.json",
        )
    if not match.is_identity:
        order = list(match.positions)

        def reordered(_model: Any, _inputs: Any, outputs: Any) -> Any:
            outputs["logits"] = outputs["logits"][:, order]
            return outputs

        student.register_forward_hook(reordered)


def _rows(data: DataChoice, choice: AuditChoice, models: _Models) -> Splits:
    """The splits that are looked at, with class ids in the teacher's order."""
    wanted = (choice.split, *((choice.challenge,) if choice.challenge else ()))
    units: Any = choice.rationale_units
    marks = Marks(choice.rationale, units) if choice.rationale else None
    names = label_names(models.teacher)
    splits = read_splits(data, wanted, marks=marks, outputs=tuple(names.values()), carried=choice.slices)
    splits = align_labels(splits, names, label_map=data.label_map)
    rows = {name: _drawn(rows, choice.max_rows, choice.seed) for name, rows in splits.rows.items()}
    return replace(splits, rows=rows)


def _drawn(rows: Dataset, count: int | None, seed: int) -> Dataset:
    """So many rows, in their order. Whether one is drawn depends on its number and the seed, and how many others come
    before it: of a larger draw every smaller one is a part, whichever rows stood beside it."""
    if count is None or count >= len(rows):
        return rows
    lots = [digest([seed, index]) for index in rows["index"][:]]
    return rows.select(sorted(sorted(range(len(rows)), key=lots.__getitem__)[:count]))


@dataclass(frozen=True)
class _Sets:
    """The rows that each part of an audit looks at, by the names of their splits and of their perturbations."""

    splits: Mapping[str, Dataset]
    rows: Dataset
    few: Dataset
    perturbed: dict[str, Dataset]
    response: Dataset
    pool: list[str]

    @classmethod
    def of(cls, splits: Splits, choice: AuditChoice) -> _Sets:
        rows = splits.rows[choice.split]
        some = _drawn(rows, choice.perturbed_rows, choice.seed)
        changed = {
            p.name: perturbed(some, splits.task.text_columns, p, choice.seed)
            for p in PERTURBATIONS if len(some)
        }  # fmt: skip
        few, response = (
            _drawn(rows, count, choice.seed) for count in (choice.faithfulness_rows, choice.response_rows)
        )
        source = _drawn(rows, POOL_ROWS if len(response) else 0, choice.seed)
        pool = word_pool(row_texts(source, splits.task))
        return cls(splits.rows, rows, few, changed, response, pool)


def _checked(models: _Models, sets: _Sets, task: Task, max_length: int) -> dict[str, Cut]:
    """How many texts of each split are cut. Raises ModelError for rows that a model cannot read, and for tokenizers
    that read them differently."""
    found: dict[str, Cut] = {}
    limits = [(reader.owner, reader.limits) for reader in models.readers]
    for name, rows in {**sets.splits, **sets.perturbed}.items():
        for tokenizer in models.student_tokenizers if name in sets.splits else ():
            check_same_rows(tokenizer, models.tokenizer, rows, task, max_length=max_length)
        for block in in_blocks(rows):
            encoded = encode(block, models.tokenizer, task, max_length=max_length)
            for owner, of_one in limits:
                of_one.check(encoded.dataset, models.tokenizer, owner=owner)
            if name in sets.splits:
                found[name] = found.get(name, Cut(max_length)) + encoded.cut
    return found


def _warnings(models: _Models) -> list[str]:
    """What makes the figures of a pair mean less than they seem to."""
    named = list(zip(models.names, models.students, strict=True))
    alike = [
        f"the students {a} and {b} hold the same weights"
        for (a, one), (b, other) in combinations(named, 2) if same_weights(one, other)
    ]  # fmt: skip
    depth, *depths = (reader.probe.layers for reader in models.readers)
    pairs = [
        pair_warnings(models.teacher, student, f"student {name}", layers=(depth, own))
        for (name, student), own in zip(named, depths, strict=True)
    ]
    return [*(warning for found in pairs for warning in found), *alike]


def _floorless(models: _Models) -> list[str]:
    """The students whose head cannot be randomised."""
    return [
        f"the response loyalty of {name} has no floor: its head cannot be told from the rest of the model"
        for name, student in zip(models.names, models.students, strict=True)
        if not has_head(student)
    ]


def _examined(
    models: _Models, task: Task, sets: _Sets, choice: AuditChoice, output: Path, seconds: dict[str, float]
) -> Audited:
    rows, few = sets.rows, sets.few
    challenge = sets.splits[choice.challenge] if choice.challenge else None
    length = choice.max_length
    assert length is not None  # settled before
    with progress_bars() as progress:

        def bar(name: str, count: int, passes: int = len(models.students) + 1) -> Examiner:
            shown = progress.add_task(name, total=count * passes)
            return Examiner(
                models.teacher, models.students, models.tokenizer, task, choice.method, length,
                choice.watched, lambda done: progress.advance(shown, done),
            )  # fmt: skip

        with _timed(seconds, "predictions and attributions"):
            columns = _all_blocks(bar("predictions and attributions", len(rows)), rows, output)
        with _timed(seconds, "faithfulness"):
            faithful = bar("faithfulness", len(few)).faithfulness(few) if len(few) else None
        changed = None
        if challenge:
            with _timed(seconds, "challenge"):
                changed = bar("challenge", len(challenge)).agreement(challenge)
        with _timed(seconds, "perturbations"):
            perturbations = [
                Changed(p.name, p.description, bar(p.name, len(changed_rows)).agreement(changed_rows))
                for p in PERTURBATIONS if (changed_rows := sets.perturbed.get(p.name)) is not None
            ]  # fmt: skip
        response = None
        if len(sets.response):
            with _timed(seconds, "response loyalty"):
                texts = 2 * len(sets.response) * (1 + COPIES)  # in two forms
                examiner = bar("response loyalty", texts, 1 + len(models.students) * (1 + FLOOR_SEEDS))
                response = examiner.response(sets.response, sets.pool, seed=choice.seed)
    slices = {name: rows[CARRIED + name][:] for name in choice.slices}
    return Audited(models.names, columns, faithful, changed, perturbations, response, slices)


def _all_blocks(examiner: Examiner, rows: Dataset, output: Path) -> list[Columns]:
    """The columns of each student; every example goes to a file as soon as it is there."""
    parts: list[list[Columns]] = []
    with (output / EXAMPLES).open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for block in examiner.blocks(rows):
            parts.append(block.columns)
            stream.writelines(json.dumps(example) + "\n" for example in block.examples)
    return [joined(of_one) for of_one in zip(*parts, strict=True)]


def _settings(choice: AuditChoice) -> dict[str, Any]:
    named = {
        "split": choice.split, "seed": choice.seed, "max_length": choice.max_length, "rationale": choice.rationale,
        "challenge": choice.challenge, "watched words": ", ".join(choice.watched) or None,
        "slices": ", ".join(choice.slices) or None,
        "rows for faithfulness": choice.faithfulness_rows, "rows for perturbations": choice.perturbed_rows,
        "rows for response loyalty": choice.response_rows,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def _figure_limits(limits: Mapping[str, float]) -> dict[str, float]:
    """The limits by figure. Raises RecipeError for a name that is none."""
    known = [*(name for names in GROUPS.values() for name in names), *LIMIT_NAMES]
    for name in limits:
        if name not in known:
            raise RecipeError(
                f"a limit for {name!r}", expected="a figure of the audit", remedy=nearest(name, known)
            )
    return {LIMIT_NAMES.get(name, name): limit for name, limit in limits.items()}


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[part] = perf_counter() - start
