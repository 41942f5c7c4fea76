"""The audit: does a student decide as its teacher does, and for the same reasons? Figures, examples, a page."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gradistill.auditing.map_checks import random_map_warnings
from gradistill.auditing.onnx_predictor import OnnxPredictor, model_folder_of
from gradistill.auditing.per_example import value_of
from gradistill.auditing.shown_examples import chosen_examples
from gradistill.auditing.summary import Audited, summed_up
from gradistill.auditing.trained_figures import trained_by_recipe
from gradistill.auditing.verdict import judged
from gradistill.auditing.word_maps import row_texts
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_model import AnyModel, AuditModel
from gradistill.commands.audit_models import AuditModels, check_students
from gradistill.commands.data_warnings import (
    constant_answer_warning,
    log_splits,
    overlap_with_training,
    refuse_other_kind_of_model,
    with_positive,
)
from gradistill.commands.examination import EXAMPLES, AuditRows, Examination
from gradistill.commands.export_cost import audit_costs
from gradistill.commands.figure_limits import figure_of
from gradistill.commands.identity import data_files, model_identity, recipe_text
from gradistill.commands.output_folder import FolderKind, check_output, draft_folder, held, put_in_place
from gradistill.commands.row_sample import drawn_rows
from gradistill.commands.run_record import described, versions
from gradistill.commands.run_result import AuditResult
from gradistill.commands.teacher_prompt import refuse_other_columns
from gradistill.commands.token_examination import NOT_DEFINED, TokenExamination
from gradistill.data import DataChoice, Splits, align_labels, read_splits
from gradistill.data.constant_answer import constant_metrics
from gradistill.data.data_source import Source
from gradistill.data.label_metrics import MULTI_LABEL_METRICS
from gradistill.data.label_names import Outputs
from gradistill.data.overlap import overlap_line
from gradistill.data.span_metrics import without_spans
from gradistill.data.splits import CARRIED, Marks
from gradistill.data.tasks import Task, metrics_of
from gradistill.errors import RecipeError
from gradistill.io import checksum_of, path_of, read_object
from gradistill.printing import NO_PREFIX
from gradistill.report.audit_markdown import audit_table
from gradistill.report.audit_page import audit_page

logger = logging.getLogger(__name__)

PAGE, FIGURES, TABLE = "audit.html", "audit.json", "audit.md"


IN_WINDOWS = "saliency loyalty and other figures of maps are left out: texts of several windows have no map"


def _windows(examination: Any) -> dict[str, Any]:
    windows = getattr(examination, "windows", None)
    return {} if windows is None else windows.as_dict()


def _is_audit(output: Path) -> bool:
    """Whether an earlier version wrote the folder: by its figures, with nothing of others beside them."""
    try:
        figures = read_object(output / FIGURES)
    except (OSError, ValueError):
        return False
    return figures.keys() >= {"data", "teacher", "students", "settings", "versions"}


DEFAULT_CHOICE = AuditChoice()

AUDIT = FolderKind(
    "audit", _is_audit, re.compile("|".join(map(re.escape, (PAGE, FIGURES, TABLE, EXAMPLES)))), FIGURES
)


def audit(
    teacher: AnyModel,
    students: Sequence[AnyModel],
    data: DataChoice | Source,
    output: str | Path,
    choice: AuditChoice = DEFAULT_CHOICE,
    *,
    overwrite: bool = False,
) -> AuditResult:
    """Compare students with their teacher on data neither was fitted to; returns what ``audit.json`` holds.

    Parameters:
        ``teacher``: a folder, a hub id, a pair ``(model, tokenizer)``, an ONNX model (folder or file), a function, or a
            ``PromptedTeacher``; or several:
            a list, whose probabilities are averaged, or a dictionary with one a label (docs/teachers.md). A function
            takes a list of texts (or of pairs) and returns probabilities ``(row, label)``, or scores ``(row,)``. Its
            columns are in the order of its attribute ``labels``, of the teacher's labels, or of the data's.
        ``students``: one or more, given alike; any classifiers over the same labels. What needs gradients is measured
            between PyTorch classifiers only, and on words where they read different tokens.
        ``data``: a ``DataChoice``, or what its ``source`` may be. Of a split without labels, the figures that need
            them are left out.
        ``output``: a folder for ``audit.html``, ``audit.json``, ``audit.md`` and ``examples.jsonl``.
        ``choice``: the split, the attribution method, limits and sizes.
        ``overwrite``: replace an earlier audit in that folder.

    Raises GradistillError for what does not fit together.

    Example: ``audit("runs/teacher", ["runs/student"], DataChoice("DATA/mrpc"), "runs/audit")["students"]``
    """
    output, data = path_of(output), DataChoice.of(data)
    check_students(students)
    if data.unlabelled is not None:
        raise RecipeError(
            "unlabelled was given, and an audit reads one split",
            expected="the rows to audit as the data themselves; they need no labels",
            remedy="leave unlabelled out, or pass those rows as data",
        )
    check_output(output, AUDIT, overwrite=overwrite)
    choice = replace(choice, limits={figure_of(name): limit for name, limit in choice.limits.items()})
    refuse_other_columns(teacher, data)
    start = perf_counter()
    models = AuditModels.load(teacher, students, choice.reference, choice.loading)
    folders = [model.folder for model in (models.teacher, *models.students)]
    of_words = models.token_labels
    length = models.text_length(choice.max_length)
    choice = replace(choice, max_length=length)
    splits = with_positive(_splits(data, choice, models), data.positive, folders)
    models = models.ordered(splits.task).sharing_tokens(splits.rows, splits.task, length)
    if of_words:
        examination = TokenExamination(models, splits.task, splits, choice)
    else:
        windows = None if len(splits.task.text_columns) > 1 else models.windows
        examination = Examination(models, splits.task, AuditRows.of(splits, choice), choice, windows=windows)
    cut = examination.check()
    long = any(part.windowed for part in cut.values())
    cut = {name: part for name, part in cut.items() if name in splits.rows}
    if isinstance(examination, Examination):
        examination = replace(examination, long_texts=long)
    examination.seconds["loading"] = perf_counter() - start
    log_splits(splits)
    overlap = overlap_with_training(splits, choice.split, data)
    rows = splits.rows[choice.split]
    if line := overlap_line(overlap, choice.split, rows, splits.task.text_columns):
        logger.warning(line, extra=NO_PREFIX)
    trained = ["the audited rows are those of the training split"] if choice.split == "train" else []
    warnings = [
        *trained,
        *models.warnings(),
        *_left_out(splits.task, choice),
        *(models.without_cascade() if choice.cascade else ()),
        *(f"{name}: {part}" for name, part in cut.items() if part.truncated or part.windowed),
        *([IN_WINDOWS] if long else ()),
    ]
    for warning in warnings:
        logger.warning(warning)
    with held(output, AUDIT), draft_folder(output) as draft:
        check_output(output, AUDIT, overwrite=overwrite)  # another process may have finished meanwhile
        slices = {name: rows[CARRIED + name][:] for name in choice.slices}
        students = [_described(student) for student in models.students]
        marks = [_trained(student, choice.method.name) for student in students]
        audited = replace(examination.audited(draft), slices=slices, trained=marks)
        about = {
            "data": {"task": splits.task.name, "split": choice.split, "rows": len(rows),
                     "source": Path(data.name).name, "positive": splits.task.positive_label,
                     "files": data_files(data.source, choice.split, splits.task),
                     **_without_labels(splits, choice.split)},
            "teacher": _described(models.teacher),
            "students": students,
            "reference": None if models.reference is None else _described(models.reference),
            "settings": _settings(choice, models),
            "texts": {"max_length": length, **_windows(examination),
                      **{name: part.as_dict() for name, part in cut.items()}},
            "versions": versions(),
            "seconds": {part: round(taken, 2) for part, taken in examination.seconds.items()},
        }  # fmt: skip
        found = summed_up(audited, about, choice.method, splits.task, choice.limits, seed=choice.seed)
        doubts = _doubts(audited, splits)
        random = random_map_warnings(audited.when_random, choice.method)
        for warning in random:
            logger.warning(warning)
        found |= {"created": _now(), "reason": choice.reason}
        if choice.costs and not of_words:
            found["costs"] = audit_costs(models, row_texts(rows, splits.task), length)
        if of_words:
            del found["attribution"]
        found |= {"overlap": overlap, **_task_metrics(audited, splits), "doubts": doubts}
        weak = [] if doubts else _weak_students(audited, splits)
        unflipped = _unflipped(found, splits, choice)
        found["warnings"] = [*splits.warnings, *warnings, *random, *doubts, *weak, *unflipped]
        found = judged(found, choice.limits)
        examples = chosen_examples(draft / EXAMPLES, choice.examples, seed=choice.seed)
        (draft / PAGE).write_bytes(audit_page(found, examples).encode("utf-8", "backslashreplace"))
        (draft / TABLE).write_bytes(audit_table(found).encode("utf-8", "backslashreplace"))
        (draft / FIGURES).write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        put_in_place(draft, output, AUDIT)
    return AuditResult(found, output, PAGE)


def _task_metrics(audited: Audited, splits: Splits) -> dict[str, Any]:
    """The task's own metrics of every model, on the rows that have a label."""
    if splits.task.token_labels:
        return {"metrics": _metrics_of_words(audited, splits.task)}
    gold = audited.columns[0].get("gold")
    if gold is None:
        return {"metrics": {}}
    constant = {"constant_metrics": constant_metrics(splits.task, gold)}
    if splits.task.multi_label:
        return constant | {"metrics": _metrics_of_several(audited, splits, gold)}
    students = {name: _predicted(audited, k, "student") for k, name in enumerate(audited.names)}
    models = students | {"teacher": _predicted(audited, 0, "teacher")}
    known = splits.task.labelled(gold)
    if not known.any():
        return {"metrics": {}}
    order = dict.fromkeys(("teacher", *models))
    metrics = {name: metrics_of(splits.task, models[name][known], gold[known]) for name in order}
    return constant | {"metrics": metrics}


def _metrics_of_words(audited: Audited, task: Task) -> dict[str, dict[str, float]]:
    """The metrics of words and spans of every model, from the sums of the rows; none without labels."""
    if not any(name.startswith("teacher_") for name in audited.columns[0]):
        return {}
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    return {
        name: {m: _or_zero(value_of(audited.columns[k], f"{role}_{m}")) for m in task.metrics}
        for name, (k, role) in owners.items()
    }


def _or_zero(value: float) -> float:
    """A figure of spans of which there are none is 0."""
    return value if isfinite(value) else 0.0


def _metrics_of_several(audited: Audited, splits: Splits, gold: np.ndarray) -> dict[str, dict[str, float]]:
    """The task's metrics of every model from its flags and logits, on the rows whose labels are known."""
    known = splits.task.labelled(gold)
    owners = {"teacher": (0, "teacher")} | {name: (k, "student") for k, name in enumerate(audited.names)}
    found = {}
    for name, (k, role) in owners.items() if known.any() else ():
        flags, logits = (audited.columns[k][f"{role}_{part}"][known] for part in ("flags", "logits"))
        values = {metric: MULTI_LABEL_METRICS[metric] for metric in splits.task.metrics}
        found[name] = {metric: of(gold[known] > 0, flags, logits) for metric, of in values.items()}
    return found


def _left_out(task: Task, choice: AuditChoice) -> list[str]:
    """What an audit of several labels a row, or of words, does not measure, in a sentence."""
    if task.token_labels:
        return [NOT_DEFINED, *(["costs of token classifiers are not measured"] if choice.costs else ())]
    if not task.multi_label or not choice.response_rows:
        return []
    return ["flips are not measured where a row may have several labels"]


def _predicted(audited: Audited, k: int, role: str) -> np.ndarray:
    columns = audited.columns[k]
    if f"{role}_flags" in columns:
        return columns[f"{role}_flags"]
    return columns[f"{role}_label"] if f"{role}_label" in columns else columns[f"{role}_prediction"]


def _doubts(audited: Audited, splits: Splits) -> list[str]:
    if splits.task.token_labels:
        metrics = _metrics_of_words(audited, splits.task).get("teacher")
        problem = metrics and without_spans(metrics)
        return [f"the teacher finds nothing: {problem}. Check the tags and the data"] if problem else []
    gold = audited.columns[0].get("gold")
    if gold is None:
        return []
    warning = constant_answer_warning(splits.task, _predicted(audited, 0, "teacher"), gold)
    return [warning] if warning else []


def _weak_students(audited: Audited, splits: Splits) -> list[str]:
    """Students that are no better than a constant answer, where their teacher is better."""
    gold = audited.columns[0].get("gold")
    if gold is None or splits.task.token_labels:
        return []
    found = [
        constant_answer_warning(splits.task, _predicted(audited, k, "student"), gold, f"student {name!r}")
        for k, name in enumerate(audited.names)
    ]
    return [*filter(None, found)]


def _unflipped(found: Mapping[str, Any], splits: Splits, choice: AuditChoice) -> list[str]:
    """That flips are left out where no change of words turned the teacher's label, so that there was nothing to see."""
    task = splits.task
    if task.labels is None or task.multi_label or task.token_labels or not choice.response_rows:
        return []
    there = {name for student in found["students"] for name in student["figures"].get("loyalty", {})}
    if "flips" in there:
        return []
    return [
        "flips and kept labels are left out: replaced words turn the label of the teacher on none of the rows for "
        "response loyalty, or only where no student had that label"
    ]


def _now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _described(model: AuditModel) -> dict[str, Any]:
    if model.reader is not None:
        reader = model.reader
        prompt = {} if model.template is None else {"template": model.template}
        known = described(reader.model, model.name, reader.probe) | model_identity(reader.model, reader.name)
        return known | prompt
    file = model.predictor.file if isinstance(model.predictor, OnnxPredictor) else None
    found = {"name": Path(model.name).name, "kind": model.kind.split(" ", 1)[1]}
    if model.members:
        return found | {"models": [_described(member) for member in model.members]}
    if file is None:
        return found
    exported = {"file": file.name, "sha256": checksum_of(file)}
    recipe = recipe_text(model_folder_of(file))
    return found | exported | ({"recipe": recipe} if recipe else {})


def _trained(student: Mapping[str, Any], method: str) -> dict[str, list[str]]:
    """The figures on which a student was trained; of several models as one, those of any."""
    found = trained_by_recipe(student.get("recipe"), method)
    for part in (_trained(member, method) for member in student.get("models", ())):
        found |= {figure: list(dict.fromkeys([*found.get(figure, ()), *own])) for figure, own in part.items()}
    return found


def _without_labels(splits: Splits, split: str) -> dict[str, str]:
    return (
        {"labels": "none, so figures that need them are left out"} if split in splits.without_labels else {}
    )


def _splits(data: DataChoice, choice: AuditChoice, models: AuditModels) -> Splits:
    """The splits that are looked at, with class ids in the teacher's order."""
    wanted = (choice.split, *((choice.challenge,) if choice.challenge else ()))
    marks = Marks(choice.rationale, choice.rationale_units) if choice.rationale else None
    labels = models.teacher.labels
    names = None if labels == () else labels or ("LABEL_0",)
    models.refuse_other_kinds()
    models.refuse_other_labels()
    if models.teacher.multi_label:
        data = replace(data, kind=data.kind or "multi_label")
    elif models.teacher.token_labels:
        data = replace(data, kind=data.kind or "tokens")
    outputs = None if names is None else Outputs(names, data.label_map or {})
    splits = read_splits(data, wanted, marks=marks, outputs=outputs, carried=choice.slices)
    refuse_other_kind_of_model(
        splits.task, models.teacher.multi_label, "teacher", models.teacher.token_labels
    )
    if names is not None:
        splits = align_labels(splits, dict(enumerate(names)), label_map=data.label_map)
    elif data.label_map:
        raise RecipeError(
            "a label map was given, and the teacher is a function without labels",
            expected="names of its columns",
            remedy="give the function an attribute labels, with one name a column",
        )
    rows = {name: drawn_rows(rows, choice.max_rows, choice.seed) for name, rows in splits.rows.items()}
    return replace(splits, rows=rows)


def _settings(choice: AuditChoice, models: AuditModels) -> dict[str, Any]:
    named = {
        "prompt of the teacher": models.teacher.template,
        "split": choice.split, "seed": choice.seed, "max_length": choice.max_length, "rationale": choice.rationale,
        "challenge": choice.challenge, "watched words": ", ".join(choice.watched) or None,
        "slices": ", ".join(choice.slices) or None,
        "rows for faithfulness": choice.faithfulness_rows, "beam for faithfulness": choice.beam,
        "rows for perturbations": choice.perturbed_rows,
        "rows for response loyalty and flips": choice.response_rows, "rows for Shapley values": choice.shapley_rows,
        "pairs of permutations for Shapley values": choice.shapley_pairs, "rows for floors": choice.floor_rows,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}
