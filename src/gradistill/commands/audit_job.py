"""An audit after its models are loaded: it reads the rows, measures, and builds the content of ``audit.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from datasets import Dataset

from gradistill.auditing.map_checks import random_map_warnings
from gradistill.auditing.onnx_predictor import OnnxPredictor, model_folder_of
from gradistill.auditing.summary import Audited, summed_up
from gradistill.auditing.trained_figures import trained_by_record
from gradistill.auditing.verdict import ROWS_ASKED, judged
from gradistill.commands.audit_choice import AuditChoice
from gradistill.commands.audit_measurements import AuditMeasurements, AuditRows
from gradistill.commands.audit_metrics import (
    flip_warnings,
    scale_warnings,
    task_metrics,
    teacher_doubts,
    weak_model_warnings,
)
from gradistill.commands.audit_model import AuditModel
from gradistill.commands.audit_models import AuditModels
from gradistill.commands.data_warnings import (
    log_overlap,
    log_splits,
    overlap_with_training,
    refuse_other_kind_of_model,
)
from gradistill.commands.export_cost import audit_costs
from gradistill.commands.identity import data_files, model_identity, recipes_of
from gradistill.commands.recorded_data import read_as_trained, with_positive
from gradistill.commands.row_sample import drawn_rows
from gradistill.commands.run_record import described, utc_now, versions
from gradistill.commands.token_audit_measurements import TokenAuditMeasurements
from gradistill.data import DataChoice, Splits, align_labels, read_splits
from gradistill.data.checked_rows import CARRIED, Marks
from gradistill.data.label_matching import Outputs
from gradistill.data.overlap import overlap_line
from gradistill.data.raw_words import row_texts
from gradistill.errors import RecipeError
from gradistill.io import checksum_of

logger = logging.getLogger(__name__)

IN_WINDOWS = (
    "saliency loyalty, expected gradients and other figures of maps are left out: "
    "texts of several windows have no map"
)


@dataclass(frozen=True)
class AuditJob:
    """Models, rows and settings of an audit, all checked.

    ``texts`` counts cut texts by split, and ``overlap`` the audited rows that are training rows. ``warnings`` are those
    known before anything is measured.
    """

    models: AuditModels
    data: DataChoice
    splits: Splits
    choice: AuditChoice
    measurements: AuditMeasurements | TokenAuditMeasurements
    texts: Mapping[str, Any]
    overlap: Mapping[str, Any] | None
    warnings: list[str]

    @classmethod
    def prepared(cls, models: AuditModels, data: DataChoice, choice: AuditChoice, start: float) -> AuditJob:
        """Read the rows, and check that models and rows fit together. ``start`` is when loading began.

        Raises GradistillError where they do not.
        """
        folders = [model.folder for model in (models.teacher, *models.students)]
        of_words = models.token_labels
        length = models.text_length(choice.max_length)
        choice = replace(choice, max_length=length)
        splits = with_positive(_splits(data, choice, models), data.positive, folders)
        models = models.ordered(splits.task).sharing_tokens(splits.rows, splits.task, length)
        if of_words:
            measurements = TokenAuditMeasurements(models, splits.task, splits, choice)
        else:
            windows = None if len(splits.task.text_columns) > 1 else models.windows
            rows = AuditRows.of(splits, choice)
            measurements = AuditMeasurements(models, splits.task, rows, choice, windows=windows)
        cut = measurements.check()
        long = any(part.windowed for part in cut.values())
        if isinstance(measurements, AuditMeasurements):
            measurements = replace(measurements, long_texts=long)
        measurements.seconds["loading"] = perf_counter() - start
        log_splits(splits)
        overlap = overlap_with_training(splits, choice.split, data)
        if line := overlap_line(overlap, choice.split, splits.rows[choice.split], splits.task.text_columns):
            log_overlap(line)
        texts = {name: part for name, part in cut.items() if name in splits.rows}
        warnings = [
            *(["the audited rows are those of the training split"] if choice.split == "train" else []),
            *models.warnings(),
            *measurements.warnings(),
            *(models.cascade_warnings() if choice.cascade else ()),
            *(f"{name}: {part}" for name, part in texts.items() if part.truncated or part.windowed),
            *([IN_WINDOWS] if long else ()),
        ]
        for warning in warnings:
            logger.warning(warning)
        return cls(models, data, splits, choice, measurements, texts, overlap, warnings)

    @property
    def rows(self) -> Dataset:
        """The audited rows."""
        return self.splits.rows[self.choice.split]

    def measured(self, draft: Path) -> dict[str, Any]:
        """The content of ``audit.json``. The examples are written into the folder ``draft``."""
        slices = {name: self.rows[CARRIED + name][:] for name in self.choice.slices}
        students = [_described(student) for student in self.models.students]
        trained = [trained_by_record(student, self.choice.method.name) for student in students]
        audited = replace(self.measurements.audited(draft), slices=slices, trained=trained)
        about, choice, task = self._about(students), self.choice, self.splits.task
        figures = summed_up(audited, about, choice.method, task, choice.limits, seed=choice.seed)
        figures |= {"created": utc_now(), "reason": choice.reason}
        if choice.costs and not task.token_labels:
            assert choice.max_length is not None
            figures["costs"] = audit_costs(self.models, row_texts(self.rows, task), choice.max_length)
        if task.token_labels:
            del figures["attribution"]
        figures |= {"overlap": self.overlap, **task_metrics(audited, self.splits)}
        figures |= self._doubts(audited, figures)
        return judged(figures, choice.limits)

    def _doubts(self, audited: Audited, found: Mapping[str, Any]) -> dict[str, list[str]]:
        """Doubts about the teacher, and all warnings."""
        random = random_map_warnings(audited.when_random, self.choice.method)
        for warning in random:
            logger.warning(warning)
        doubts = teacher_doubts(audited, self.splits)
        weak = [] if doubts else weak_model_warnings(audited, self.splits)
        unflipped = flip_warnings(found, self.splits, self.choice)
        rescaled = scale_warnings(audited, self.splits)
        warnings = [*self.splits.warnings, *self.warnings, *random, *doubts, *weak, *rescaled, *unflipped]
        return {"doubts": doubts, "warnings": warnings}

    def _about(self, students: list[dict[str, Any]]) -> dict[str, Any]:
        """The entries of ``audit.json`` about data, models and settings."""
        splits, choice, reference = self.splits, self.choice, self.models.reference
        return {
            "data": {"task": splits.task.name, "split": choice.split, "rows": len(self.rows),
                     "source": Path(self.data.name).name, "positive": splits.task.positive_label,
                     "text_columns": list(splits.task.text_columns),
                     "files": data_files(self.data.source, choice.split, splits.task),
                     **_without_labels(splits, choice.split)},
            "teacher": _described(self.models.teacher),
            "students": students,
            "reference": None if reference is None else _described(reference),
            "settings": _settings(choice, self.models),
            "texts": {"max_length": choice.max_length, **_windows(self.measurements),
                      **{name: part.as_dict() for name, part in self.texts.items()}},
            "versions": versions(),
            "seconds": {part: round(taken, 2) for part, taken in self.measurements.seconds.items()},
        }  # fmt: skip


def _splits(data: DataChoice, choice: AuditChoice, models: AuditModels) -> Splits:
    """The splits that the audit reads, with class ids in the teacher's order."""
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
    read = partial(read_splits, splits=wanted, marks=marks, outputs=outputs, carried=choice.slices)
    folders = [model.folder for model in (*models.students, models.teacher)]
    splits = read_as_trained(data, folders, read)
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


def _described(model: AuditModel) -> dict[str, Any]:
    if model.reader is not None:
        reader = model.reader
        prompt = {} if model.template is None else {"template": model.template}
        known = described(reader.model, model.name, reader.probe) | model_identity(reader.model, reader.name)
        return known | prompt
    file = model.predictor.file if isinstance(model.predictor, OnnxPredictor) else None
    entry = {"name": Path(model.name).name, "kind": model.kind.split(" ", 1)[1]}
    if model.members:
        return entry | {"models": [_described(member) for member in model.members]}
    if file is None:
        return entry
    exported = {"file": file.name, "sha256": checksum_of(file)}
    return entry | exported | recipes_of(model_folder_of(file))


def _settings(choice: AuditChoice, models: AuditModels) -> dict[str, Any]:
    settings = {
        "prompt of the teacher": models.teacher.template,
        "split": choice.split, "seed": choice.seed, "max_length": choice.max_length, "rationale": choice.rationale,
        "challenge": choice.challenge, "watched words": ", ".join(choice.watched) or None,
        "slices": ", ".join(choice.slices) or None, "rows for floors": choice.floor_rows,
    }  # fmt: skip
    if not models.teacher.token_labels:  # taggers have none of these parts
        settings |= {
            "rows for faithfulness": choice.faithfulness_rows, "beam for faithfulness": choice.beam,
            "rows for perturbations": choice.perturbed_rows,
            "rows for response loyalty and flips": choice.response_rows,
            "rows for Shapley values": choice.shapley_rows,
            "pairs of permutations for Shapley values": choice.shapley_pairs,
            ROWS_ASKED: choice.expected_gradients_rows,
        }  # fmt: skip
    return {name: value for name, value in settings.items() if value is not None}


def _without_labels(splits: Splits, split: str) -> dict[str, str]:
    return (
        {"labels": "none, so figures that need them are left out"} if split in splits.without_labels else {}
    )


def _windows(measurements: Any) -> dict[str, Any]:
    windows = getattr(measurements, "windows", None)
    return {} if windows is None else windows.as_dict()
