"""``gradistill run``: the stages of a project file in order: teacher, student, audit, export, one page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from gradistill.commands.audit import FIGURES as AUDIT_FIGURES
from gradistill.commands.audit import PAGE as AUDIT_PAGE
from gradistill.commands.audit import audit, judged_again
from gradistill.commands.content_hashes import (
    LABELLED_SPLITS,
    UNLABELLED_SPLITS,
    config_and_tokenizer_hash,
    file_hashes,
    meaning_name,
    reading_options,
    weights_hash,
)
from gradistill.commands.data_warnings import NewLines
from gradistill.commands.defaults import PROJECT_FILE, tags_words
from gradistill.commands.distill import distill
from gradistill.commands.export import CARD as EXPORT_CARD
from gradistill.commands.export import DEFAULT_CHOICE as DEFAULT_EXPORT
from gradistill.commands.export import export_model
from gradistill.commands.finetune import finetune
from gradistill.commands.given_models import AnyTeacher, is_several
from gradistill.commands.identity import recipes_of
from gradistill.commands.output_folder import FolderKind, locked_output
from gradistill.commands.project_file import Project, read_project
from gradistill.commands.run_folder import CARD, EXPORT_RECORD, METRICS, record_of
from gradistill.commands.teacher_prompt import prompted
from gradistill.data import DataChoice
from gradistill.data.data_source import path_text
from gradistill.errors import ModelError, first_line
from gradistill.export.packages import check_packages
from gradistill.io import differences, digest, read_object, write_whole
from gradistill.printing import log_filter
from gradistill.recipe import Recipe
from gradistill.recipe.schema import DESCRIPTIONS
from gradistill.report.audit_tables import failures
from gradistill.report.project_page import project_page
from gradistill.report.trackers import known_trackers

logger = logging.getLogger(__name__)

STAGES, SUMMARY = "stages.json", "summary.html"
TEACHER, STUDENT, REFERENCE, AUDIT, EXPORT = "teacher", "student", "reference", "audit", "export"
PROJECT = FolderKind("project")
MODEL, CHECKPOINT = "model", "checkpoint"
NEWER = {meaning_name(role) for role in (TEACHER, STUDENT, REFERENCE, MODEL, CHECKPOINT)}
"""Entries that ledgers of earlier versions do not have. A missing entry counts as unchanged."""
SHOWN = 5
"""The number of differences that a message lists."""


@dataclass(frozen=True)
class Stage:
    """A stage of a project. It is up to date while ``needs`` equals its ledger entry and the ``result`` file exists.

    ``result`` is the file that only a finished stage has. ``make`` replaces an earlier result, and resumes an
    unfinished one. ``judge`` is enough where only the limits (``fail_under``) have changed.
    """

    name: str
    result: Path
    needs: Mapping[str, Any]
    make: Callable[[], Any]
    judge: Callable[[], Any] | None = None


@dataclass
class Ledger:
    """A file that records what each finished stage was made from. A stage is entered when it ends."""

    file: Path
    stages: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Ledger:
        """The ledger in a file; an empty one if the file is missing or damaged, so that stages are made again."""
        try:
            entries = read_object(file)
        except (OSError, ValueError):
            entries = {}
        return cls(file, {name: entry for name, entry in entries.items() if isinstance(entry, dict)})

    def enter(self, stage: Stage, seconds: float) -> None:
        self.stages[stage.name] = {"needs": stage.needs, "seconds": round(seconds, 1)}
        self._write()

    def strike(self, stage: Stage) -> None:
        """Remove a stage's entry before it is made again: a mix of old and new files must not count as finished."""
        if self.stages.pop(stage.name, None) is not None:
            self._write()

    def _write(self) -> None:
        write_whole(self.file, (json.dumps(self.stages, indent=1) + "\n").encode())


def run(project: str | Path = PROJECT_FILE) -> dict[str, Any]:
    """Run all stages of a project file: fine-tune, distil, audit, export, and one page ``summary.html`` about them.
    With ``audit.reference: yes`` a second teacher is fine-tuned before the audit.

    The same call resumes what was stopped. A finished stage is kept unless one of its inputs has changed: a setting, a
    row, or the weights of an earlier stage. Without the packages for it the export is left out, and the result shows
    that.

    Parameters:
        ``project``: the file that ``init`` writes.

    Returns ``teacher`` and ``student`` (as ``metrics.json``), ``audit`` and ``export`` (as their JSON files, None where
    left out), ``stages`` (outcome and seconds of each), ``failed`` (sentences about figures below their limits), and
    ``page``, the path of the page.

    Raises RecipeError for a file that cannot be carried out, with its line and key, and what the stages raise.

    Example: ``gradistill.run("gradistill.yaml")["student"]["loyalty"]["response"]``
    """
    plan = read_project(Path(project))
    with locked_output(plan.output, PROJECT), log_filter(NewLines()):  # all stages read the same rows
        logger.info(f"stages: {', '.join(_titles(plan))}")
        return _run_stages(plan)


def _titles(plan: Project) -> list[str]:
    """The names of the stages in order, with a note on long or skipped ones."""
    missing = "" if plan.export is None else _missing_packages()
    return [
        *([] if plan.teachers else [TEACHER]),
        STUDENT,
        *([f"{REFERENCE} (a second teacher, which takes as long as the first)"] if plan.reference else []),
        *([AUDIT] if plan.audit else []),
        *([f"{EXPORT} (will be left out: {missing})" if missing else EXPORT] if plan.export else []),
    ]


def _run_stages(plan: Project) -> dict[str, Any]:
    ledger = Ledger.read(plan.output / STAGES)
    data, labelled = _data_needs(plan.data), _data_needs(replace(plan.data, unlabelled=None))
    stages: dict[str, Any] = {}

    if not plan.teachers:
        _run_stage(_teacher_stage(TEACHER, plan, plan.finetuning, labelled), ledger, stages)
    teachers = list(plan.teachers) or [str(plan.output / TEACHER)]
    weights = "+".join(map(weights_hash, teachers))
    teacher: Any = teachers if len(teachers) > 1 else teachers[0]
    of_teacher = {
        TEACHER: weights,
        meaning_name(TEACHER): digest([*map(config_and_tokenizer_hash, teachers)]),
    }
    _run_stage(_student_stage(plan, data, teacher, of_teacher), ledger, stages)
    student = str(plan.output / STUDENT)
    both = {**of_teacher, **_marks(STUDENT, student)}
    if plan.reference is not None:
        _run_stage(_teacher_stage(REFERENCE, plan, plan.reference, labelled), ledger, stages)
    if plan.audit is not None:
        _run_stage(_audit_stage(plan, both, teacher), ledger, stages)
    if plan.export is not None:
        if reason := _no_export_of(student) or _missing_packages():
            stages[EXPORT] = {"outcome": "left out", "reason": reason}
            logger.warning(f"export: left out: {reason}")
        else:
            _run_stage(_export_stage(plan, labelled, both, teacher), ledger, stages)

    result = {
        "stages": stages,
        TEACHER: None if is_several(teacher) else record_of(teacher) or None,
        STUDENT: record_of(student),
        AUDIT: read_object(plan.output / AUDIT / AUDIT_FIGURES) if AUDIT in stages else None,
        EXPORT: _export_figures(plan, stages),
    }
    below = [
        f"{f['figure']} is {f['value']}, below {f['limit']}"
        if f["value"] is not None
        else f"{f['figure']} was not measured, its limit is {f['limit']}"
        for f in failures(result[AUDIT] or {})
    ]
    result["failed"] = [*below, *((result[EXPORT] or {}).get("failed") or ())]
    page = plan.output / SUMMARY
    found = {**result, "recipe": recipes_of(Path(student)).get("recipe")}
    content = project_page(found, plan.output.name, _links(stages), _settings(plan))
    write_whole(page, content.encode("utf-8", "backslashreplace"))
    return {**result, "page": str(page)}


def _run_stage(stage: Stage, ledger: Ledger, stages: dict[str, Any]) -> None:
    """Make a stage, or keep it if it is up to date; log which, and why."""
    before = ledger.stages.get(stage.name)
    finished = stage.result.is_file()
    if before is not None and isinstance(known := before.get("needs"), dict):
        for name in stage.needs.keys() & NEWER:
            known.setdefault(name, stage.needs[name])
        if isinstance(recipe := known.get("recipe"), dict):
            recipe.update({name: stage.needs["recipe"][name] for name in DESCRIPTIONS})
    changed = [path for path, _, _ in differences((before or {}).get("needs"), dict(stage.needs))]
    limits_alone = stage.judge is not None and all(p.startswith(f"{stage.name}.fail_under") for p in changed)
    if before is not None and finished and (limits_alone or not changed):
        logger.info(f"{stage.name}: finished, {'judged by other limits' if changed else 'kept'}")
        if changed and stage.judge is not None:
            stage.judge()
        ledger.enter(stage, before.get("seconds") or 0.0)
        stages[stage.name] = {"outcome": "kept", "seconds": before.get("seconds")}
        return
    logger.info(f"{stage.name}: {_why(before, finished, stage)}")
    ledger.strike(stage)
    start = perf_counter()
    stage.make()
    seconds = perf_counter() - start
    ledger.enter(stage, seconds)
    stages[stage.name] = {"outcome": "made", "seconds": round(seconds, 1)}


def _why(before: Mapping[str, Any] | None, finished: bool, stage: Stage) -> str:
    if before is None:
        return f"made again: {STAGES} has no entry for it" if finished else "begins, or resumes"
    if not finished:
        return f"made again: {stage.result.name} is gone"
    changed = list(differences(before.get("needs"), dict(stage.needs)))
    shown = [
        f"{path} changed" if _is_hash(old) or _is_hash(new) else f"{path} was {old!r}, is {new!r}"
        for path, old, new in changed[:SHOWN]
    ]
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"made again: {'; '.join(shown)}{more}"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _teacher_stage(name: str, plan: Project, recipe: Recipe, data: Mapping[str, Any]) -> Stage:
    """The stage of the teacher, or of the second teacher for the audit."""
    folder, rows = plan.output / name, replace(plan.data, unlabelled=None)
    needs = {"recipe": recipe.as_written(), **_marks(MODEL, plan.model), "data": data}
    return Stage(
        name, folder / METRICS, needs, lambda: finetune(plan.model, rows, folder, recipe, overwrite=True)
    )


def _student_stage(
    plan: Project, data: Mapping[str, Any], teacher: AnyTeacher, of_teacher: Mapping[str, Any]
) -> Stage:
    folder, recipe = plan.output / STUDENT, plan.distillation
    needs = {"recipe": recipe.as_written(), **of_teacher, "data": data}
    if recipe.student.checkpoint:
        needs |= _marks(CHECKPOINT, recipe.student.checkpoint)
    return Stage(
        STUDENT, folder / METRICS, needs, lambda: distill(teacher, plan.data, folder, recipe, overwrite=True)
    )


def _audit_stage(plan: Project, both: Mapping[str, Any], teacher: AnyTeacher) -> Stage:
    assert plan.audit is not None
    folder, choice, rows = plan.output / AUDIT, plan.audit, replace(plan.data, unlabelled=None)
    if plan.reference is not None:
        choice = replace(choice, reference=str(plan.output / REFERENCE))
    settings = {"split": choice.split, "max_rows": choice.max_rows, "fail_under": dict(choice.limits)}
    needs = {
        AUDIT: {**settings, "seed": choice.seed},
        **both,
        **_prompt_of(plan),
        "data": _data_needs(rows, choice.split),
    }
    if isinstance(choice.reference, str):  # only then, so that the ledgers of earlier versions stay valid
        needs |= _marks(REFERENCE, choice.reference)

    def make() -> None:
        model = prompted(teacher, plan.distillation.teacher.template)
        result = audit(model, [str(plan.output / STUDENT)], rows, folder, choice, overwrite=True)
        for tracker in known_trackers(plan.distillation.training.arguments.get("report_to")):
            try:
                result.send_to(tracker)
            except Exception as error:  # whatever a tracker raises, the audit is complete
                logger.warning(f"audit: not sent to {tracker}: {first_line(error)}")

    return Stage(AUDIT, folder / AUDIT_FIGURES, needs, make, partial(judged_again, folder, choice))


def _export_stage(
    plan: Project, data: Mapping[str, Any], both: Mapping[str, Any], teacher: AnyTeacher
) -> Stage:
    assert plan.export is not None
    folder, choice, rows = plan.output / EXPORT, plan.export, replace(plan.data, unlabelled=None)
    settings = {
        "quantize": choice.quantize, "max_rows": choice.max_rows, "fail_under": dict(choice.limits),
        "seed": choice.seed,
    }  # fmt: skip
    if choice.trim_vocabulary is not None:
        settings["trim_vocabulary"] = True
    # Only what is changed, so that the ledgers of earlier versions stay valid.
    for name in ("embedding_bits", "vocabulary_size"):
        if (value := getattr(choice, name)) != getattr(DEFAULT_EXPORT, name):
            settings[name] = value
    needs = {EXPORT: settings, **both, **_prompt_of(plan), "data": data}

    def make() -> None:
        student, model = str(plan.output / STUDENT), prompted(teacher, plan.distillation.teacher.template)
        export_model(student, folder, choice, data=rows, teacher=model, overwrite=True)

    return Stage(EXPORT, folder / EXPORT_RECORD, needs, make)


def _marks(role: str, model: str) -> dict[str, Any]:
    """The ledger entries of a model: hashes of its weights, and of its labels, thresholds and tokenizer."""
    return {role: weights_hash(model), meaning_name(role): config_and_tokenizer_hash(model)}


def _prompt_of(plan: Project) -> dict[str, str]:
    """The ledger entry of the prompt around the teacher's texts, if there is one."""
    template = plan.distillation.teacher.template
    return {} if template is None else {"template": template}


def _data_needs(choice: DataChoice, split: str | None = None) -> dict[str, Any]:
    """The options for reading rows, and the hashes of their files; a hub id stands for itself.

    ``split``: one that is read, too, next to those of training.
    """
    splits = (*LABELLED_SPLITS, split) if split is not None else LABELLED_SPLITS
    needs = {**reading_options(choice), "files": file_hashes(Path(path_text(choice.source)), splits)}
    if choice.unlabelled is not None:
        needs["unlabelled"] = file_hashes(Path(path_text(choice.unlabelled)), UNLABELLED_SPLITS)
    return needs


def _no_export_of(student: str) -> str:
    """The reason why a student is not exported; blank if it can be."""
    return "students that tag words are not exported yet. Write export: no" if tags_words(student) else ""


def _missing_packages() -> str:
    """The message about packages that an export lacks; blank if they are installed."""
    try:
        check_packages()
    except ModelError as error:
        return f"{error.what}. {error.remedy}"
    return ""


def _export_figures(plan: Project, stages: Mapping[str, Any]) -> dict[str, Any] | None:
    made = stages.get(EXPORT, {}).get("outcome") in ("made", "kept")
    return read_object(plan.output / EXPORT / EXPORT_RECORD) if made else None


def _links(stages: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The titles and relative paths of the page's links."""
    parts = {
        "Audit: examples, figures, change report": f"{AUDIT}/{AUDIT_PAGE}",
        "Model card of the student": f"{STUDENT}/{CARD}",
        "Model card of the teacher": f"{TEACHER}/{CARD}",
        "Model card of the second teacher": f"{REFERENCE}/{CARD}",
        "Card of the export": f"{EXPORT}/{EXPORT_CARD}",
    }
    left_out = {
        name
        for name in (AUDIT, EXPORT, TEACHER, REFERENCE)
        if stages.get(name, {}).get("outcome") not in ("made", "kept")
    }
    return [(title, link) for title, link in parts.items() if link.partition("/")[0] not in left_out]


def _settings(plan: Project) -> dict[str, Any]:
    return {
        "data": plan.data.name,
        "columns of text": ", ".join(plan.data.columns or ()),
        "label": plan.data.label,
        "teacher made from": ", ".join(plan.teachers) or plan.model,
        "prompt of the teacher": plan.distillation.teacher.template,
        "method": plan.distillation.method,
        "student's layers": plan.distillation.student.layers,
        "epochs of the teacher": None if plan.teachers else plan.finetuning.training.epochs,
        "epochs of the student": plan.distillation.training.epochs,
        "seed": plan.distillation.training.seed,
    }
