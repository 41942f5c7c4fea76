"""The audit: does a student decide like its teacher, and for the same reasons? Figures, examples, a page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from gradistill.auditing.shown_examples import chosen_examples
from gradistill.auditing.summary import with_limits
from gradistill.auditing.verdict import judged
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_job import AuditJob
from gradistill.commands.audit_measurements import EXAMPLES
from gradistill.commands.audit_models import AuditModels, check_students
from gradistill.commands.figure_limits import figure_of
from gradistill.commands.given_models import AnyModel
from gradistill.commands.output_folder import (
    FolderKind,
    check_output,
    draft_folder,
    locked_output,
    put_in_place,
)
from gradistill.commands.run_result import AuditResult
from gradistill.commands.teacher_prompt import refuse_other_columns
from gradistill.data import DataChoice
from gradistill.data.data_source import Source
from gradistill.errors import RecipeError
from gradistill.io import path_of, read_object
from gradistill.report.audit_markdown import audit_table
from gradistill.report.audit_page import audit_page

PAGE, FIGURES, TABLE = "audit.html", "audit.json", "audit.md"


def _is_audit(output: Path) -> bool:
    """Whether an earlier version wrote the folder: its ``audit.json`` has the keys of an audit."""
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
    """Compare students with their teacher on data that neither was fitted to; returns what ``audit.json`` holds.

    Parameters:
        ``teacher``: a folder, a hub id, a pair ``(model, tokenizer)``, an ONNX model (folder or file), a function, or a
            ``PromptedTeacher``. Several teachers are a list, whose probabilities are averaged, or a dictionary with
            one a label (docs/teachers.md). A function takes a list of texts (or of pairs) and returns probabilities
            ``(row, label)``, or scores ``(row,)``. Its columns are in the order of its attribute ``labels``, of the
            teacher's labels, or of the data's.
        ``students``: a list of models, each in one of these forms, with the same labels. Figures that need gradients
            exist for PyTorch classifiers only. With different tokenizers they are measured on words.
        ``data``: a ``DataChoice``, or what its ``source`` may be. Without labels, the figures that need them are left
            out.
        ``output``: a folder for ``audit.html``, ``audit.json``, ``audit.md`` and ``examples.jsonl``.
        ``choice``: the split, the attribution method, limits and sizes.
        ``overwrite``: replace an earlier audit in that folder.

    Raises GradistillError where models and data do not fit together.

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
    choice = replace(choice, limits=_by_figure(choice.limits))
    refuse_other_columns(teacher, data)
    start = perf_counter()
    models = AuditModels.load(teacher, students, choice.reference, choice.loading)
    job = AuditJob.prepared(models, data, choice, start)
    with locked_output(output, AUDIT), draft_folder(output) as draft:
        check_output(output, AUDIT, overwrite=overwrite)  # another process may have finished meanwhile
        figures = job.measured(draft)
        _put_in_place(draft, output, figures, choice)
    return AuditResult(figures, output, PAGE)


def judged_again(output: str | Path, choice: AuditChoice) -> AuditResult:
    """An audit that was made before, with the limits of ``choice``: its verdict, files and page change, no figure.

    Raises RecipeError for a folder in which another process works.
    """
    output = path_of(output)
    with locked_output(output, AUDIT), draft_folder(output) as draft:
        limits = _by_figure(choice.limits)
        figures = judged(with_limits(read_object(output / FIGURES), limits), limits)
        shutil.copyfile(output / EXAMPLES, draft / EXAMPLES)
        _put_in_place(draft, output, figures, choice)
    return AuditResult(figures, output, PAGE)


def _by_figure(limits: Mapping[str, float]) -> dict[str, float]:
    """The limits by the names of their figures in ``audit.json``."""
    return {figure_of(name): limit for name, limit in limits.items()}


def _put_in_place(draft: Path, output: Path, figures: Mapping[str, Any], choice: AuditChoice) -> None:
    """Write figures, page and table next to the examples in ``draft``, and move all into ``output``."""
    examples = chosen_examples(draft / EXAMPLES, choice.examples, seed=choice.seed)
    (draft / PAGE).write_bytes(audit_page(figures, examples).encode("utf-8", "backslashreplace"))
    (draft / TABLE).write_bytes(audit_table(figures).encode("utf-8", "backslashreplace"))
    (draft / FIGURES).write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    put_in_place(draft, output, AUDIT)
