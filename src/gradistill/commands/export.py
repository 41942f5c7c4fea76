"""``gradistill export``: a student as an ONNX model, checked against its PyTorch model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradistill.auditing.onnx_predictor import GRAPHS, MODEL, QUANTIZED, OnnxPredictor, onnx_session
from gradistill.auditing.predictor import ClassifierPredictor
from gradistill.auditing.trained_figures import trained_by_record, with_trained_on
from gradistill.commands.audit_model import AuditModel, other_kind, text_length
from gradistill.commands.export_choice import TO_TEACHER, ExportChoice
from gradistill.commands.export_cost import CostedModel, measured_costs
from gradistill.commands.export_figures import ExportRows, ModelFigures, row_logits
from gradistill.commands.export_quantization import QuantizationTexts, quantized_export
from gradistill.commands.figure_limits import figure_of
from gradistill.commands.given_models import AnyModel, source_name
from gradistill.commands.identity import recipes_of
from gradistill.commands.output_folder import (
    FolderKind,
    check_output,
    draft_folder,
    locked_output,
    put_in_place,
)
from gradistill.commands.recorded_data import TRAINED, data_record
from gradistill.commands.run_folder import EXPORT_RECORD
from gradistill.commands.run_record import described, utc_now, versions
from gradistill.commands.text_lengths import task_length, trained_windows
from gradistill.data import DataChoice
from gradistill.data.data_source import Source
from gradistill.errors import ModelError, RecipeError
from gradistill.export.model_files import check_tokenizer, write_model_files
from gradistill.export.onnx_export import OUTPUT, write_onnx
from gradistill.export.packages import PACKAGES, check_packages
from gradistill.export.parity import check_batches, compared, made_batches
from gradistill.export.vocabulary import trim_vocabulary
from gradistill.io import checksum_of, path_of
from gradistill.models.factorized_embedding import with_factors
from gradistill.models.facts import thresholds_of
from gradistill.models.loaded_model import LoadedModel
from gradistill.models.model_source import ModelSource
from gradistill.package_versions import package_versions
from gradistill.report.export_card import export_card
from gradistill.report.number_text import decimal_below

logger = logging.getLogger(__name__)

CARD = "README.md"
EXPORT = FolderKind("export", finished=EXPORT_RECORD)
DEFAULT_CHOICE = ExportChoice()


def export_model(
    student: ModelSource,
    output: str | Path,
    choice: ExportChoice = DEFAULT_CHOICE,
    *,
    data: DataChoice | Source = None,
    teacher: AnyModel | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a classifier as an ONNX model, in float32 and optionally in INT8; returns what ``export.json`` holds.

    Parameters:
        ``student``: a PyTorch classifier: folder, hub id, or a pair ``(model, tokenizer)``.
        ``output``: a folder for ``onnx/model.onnx``, ``onnx/model_quantized.onnx``, configuration, tokenizer, card
            and ``export.json``.
        ``choice``: what is written and measured, and limits.
        ``data``: rows that the models are compared and timed on. Without them parity is checked on generated token ids
            only, and the INT8 model is not compared.
        ``teacher``: another model to compare with, as an audit takes it; it needs ``data``.
        ``overwrite``: replace an earlier export in that folder.

    Raises GradistillError for a student that cannot be exported, or whose ONNX model computes other logits; no file is
    left then. A figure below its limit is no error: it is listed under ``failed``.

    Example: ``export_model("runs/student", "runs/onnx", ExportChoice(quantize="int8"), data="DATA/mrpc")["costs"]``
    """
    output = path_of(output)
    check_packages()
    check_output(output, EXPORT, overwrite=overwrite)
    job = _Job.of(student, choice, None if data is None else DataChoice.of(data), teacher)
    with locked_output(output, EXPORT), draft_folder(output) as draft:
        check_output(output, EXPORT, overwrite=overwrite)  # another process may have finished meanwhile
        record = job.export(draft)
        for warning in record["warnings"]:
            logger.warning(warning)
        (draft / EXPORT_RECORD).write_text(
            json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (draft / CARD).write_text(export_card(record, job.tokenizer), encoding="utf-8")
        put_in_place(draft, output, EXPORT)
    return record


@dataclass(frozen=True)
class _Job:
    """An export with all its inputs, checked.

    ``original`` is the given student, and ``own`` is the one that is exported: its vocabulary may be trimmed, and
    ``vocabulary`` then has the counts.
    """

    choice: ExportChoice
    original: AuditModel
    own: AuditModel
    teacher: AuditModel | None
    rows: ExportRows | None
    texts: QuantizationTexts
    max_length: int
    vocabulary: dict[str, int] | None

    @classmethod
    def of(
        cls, student: ModelSource, choice: ExportChoice, data: DataChoice | None, teacher: AnyModel | None
    ) -> _Job:
        """Load and check everything. Raises GradistillError for what cannot be exported or compared."""
        _check_choice(choice, data, teacher)
        original, max_length = _loaded_student(student, choice)
        loaded_teacher = None if teacher is None else _loaded_teacher(teacher, original)
        rows = None if data is None else ExportRows.read(data, choice, original)
        if loaded_teacher is not None and rows is not None:
            loaded_teacher = loaded_teacher.reading(rows.task.text_columns)
        texts = QuantizationTexts.read(choice, rows, data)
        exported, vocabulary = _with_vocabulary(original, choice, texts.counted)
        return cls(choice, original, exported, loaded_teacher, rows, texts, max_length, vocabulary)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model that is exported."""
        return self.own.tokenizer

    def export(self, draft: Path) -> dict[str, Any]:
        """Write graphs and model files into ``draft``; returns the content of ``export.json``."""
        file = draft / GRAPHS / MODEL
        logger.info(f"exporting {self.own.name}, texts of at most {self.max_length} tokens")
        graph = write_onnx(with_factors(_model(self.own)), self.tokenizer, file)
        write_model_files(_model(self.own), self.tokenizer, draft, self.max_length)
        predictors, logits = self._predictors(file), dict[str, np.ndarray]()
        parity = _parity(self.own, predictors["onnx"], self.rows, graph["inputs"], logits)
        if self.own is self.original and "source" in logits:
            logits["student"] = logits["source"]
        int8 = None
        if self.choice.quantize:
            onnx = predictors["onnx"]
            predictors["int8"], int8 = quantized_export(onnx, self.rows, self.choice, self.texts, logits)
        about = _described(self.original)
        record = {
            "student": about,
            TRAINED: data_record(self.original.folder),
            "vocabulary": self.vocabulary,
            **self._about_models(),
            "data": None if self.rows is None else self.rows.about(self.choice.split),
            "onnx": graph | _identity(file),
            "int8": int8 and int8 | _identity(file.with_name(QUANTIZED)),
            "parity": parity,
            **_compared(predictors, self.rows, self.choice, logits, trained_by_record(about or {})),
            "costs": self._costs(predictors),
            "max_length": self.max_length,
            **self._windows(),
            "versions": versions() | package_versions(*PACKAGES),
            "created": utc_now(),
        }
        record["failed"] = _below_limits(record, self.choice)
        record["warnings"] = _warnings(record, self.choice)
        return record

    def _predictors(self, file: Path) -> dict[str, Any]:
        """The predictors of the teacher, the student and the graph, by their names in ``export.json``."""
        predictors: dict[str, Any] = {}
        if self.teacher is not None:
            predictors["teacher"] = self.teacher.predicting(
                _length_of(self.teacher, self.max_length), _ignore
            )
        predictors["student"] = self.original.predicting(self.max_length, _ignore)
        predictors["onnx"] = _predictor(file, self.own, self.max_length)
        return predictors

    def _about_models(self) -> dict[str, Any]:
        limits, teacher = thresholds_of(_model(self.own)), self.teacher
        named = teacher and {"name": Path(teacher.name).name, "kind": teacher.kind.split(" ", 1)[1]}
        return {
            "teacher": named,
            "labels": list(self.own.labels) if self.own.labels else None,
            "multi_label": self.own.multi_label,
            "thresholds": None if limits is None else [float(limit) for limit in limits],
        }

    def _costs(self, predictors: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes, and times on the rows, of all models."""
        costed = []
        if self.teacher is not None:
            costed.append(CostedModel.of("teacher", self.teacher, _length_of(self.teacher, self.max_length)))
        costed.append(CostedModel.of("student", self.original, self.max_length))
        graphs = [name for name in ("onnx", "int8") if name in predictors]
        costed += [
            CostedModel(name, self.tokenizer, self.max_length, file=predictors[name].file) for name in graphs
        ]
        texts = self.rows.texts if self.rows and self.choice.timing else ()
        return measured_costs([model for model in costed if model], texts)

    def _windows(self) -> dict[str, Any]:
        """The student's windows for long texts, if it was trained with windows."""
        pairs = self.rows is not None and len(self.rows.task.text_columns) > 1
        windows = None if pairs else trained_windows(self.original.folder)
        return {} if windows is None else {"texts": windows.as_dict()}


def _check_choice(choice: ExportChoice, data: DataChoice | None, teacher: AnyModel | None) -> None:
    """Raise RecipeError for an option that would have no effect."""
    idle = {
        "a teacher": (teacher is not None and data is None, "data"),
        "a limit": (bool(choice.limits) and data is None, "data"),
        "a limit that compares with the teacher": (
            teacher is None and any(name.startswith(TO_TEACHER) for name in choice.limits), "teacher",
        ),
    }  # fmt: skip
    for what, (given, needed) in idle.items():
        if given:
            raise RecipeError(
                f"{what} was given, and no {needed}, so there is nothing to compare",
                expected="rows to compare models on" if needed == "data" else "a teacher",
                remedy=f"give --{needed}, or leave it out",
            )


def _loaded_student(source: ModelSource, choice: ExportChoice) -> tuple[AuditModel, int]:
    """The student on the CPU, and the number of tokens at which texts are cut."""
    student = AuditModel.load(source, "student", source_name(source))
    if student.reader is None or student.tokenizer is None:
        raise ModelError(
            f"{student.name} is {student.kind}",
            expected="a PyTorch classifier",
            remedy="name the run folder that the ONNX model was exported from",
        )
    check_tokenizer(student.tokenizer)
    _model(student).to("cpu").eval()
    return student, task_length(choice.max_length, student.tokenizer, [student.reader])


def _with_vocabulary(
    own: AuditModel, choice: ExportChoice, texts: Sequence[str]
) -> tuple[AuditModel, dict[str, int] | None]:
    """The student with only the tokens of the texts, and their counts; or the student itself if it keeps all."""
    if choice.trim_vocabulary is None:
        return own, None
    assert own.tokenizer is not None
    trimmed = trim_vocabulary(_model(own), own.tokenizer, texts, choice.vocabulary_size)
    logger.info(f"vocabulary: {len(trimmed.kept)} of {trimmed.before} tokens, for {len(texts)} texts")
    smaller = replace(
        own, predictor=ClassifierPredictor(trimmed.model, trimmed.tokenizer),
        reader=LoadedModel(own.owner, own.folder, trimmed.model),
    )  # fmt: skip
    return smaller, trimmed.as_dict() | {"texts": len(texts)}


def _loaded_teacher(source: AnyModel, student: AuditModel) -> AuditModel:
    """The teacher on the CPU, its outputs in the order of the student's labels."""
    loaded = AuditModel.load(source, "teacher", source_name(source))
    if loaded.multi_label != student.multi_label:
        raise other_kind(student, loaded)
    loaded = loaded.ordered(student.labels)
    if loaded.model is not None:
        loaded.model.to("cpu").eval()  # pyright: ignore[reportArgumentType]
    return loaded


def _length_of(teacher: AuditModel, max_length: int) -> int:
    """The text length of the teacher: the student's, but with a prompt the one that the teacher was trained with."""
    return max_length if teacher.template is None else text_length([teacher], None)


def _parity(
    own: AuditModel,
    onnx: OnnxPredictor,
    rows: ExportRows | None,
    inputs: list[str],
    logits: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Compare the PyTorch model and its ONNX graph on generated token ids and on the rows. ``logits`` gets both models'
    logits of the rows, as ``source`` and ``onnx``. Raises ModelError if they differ."""
    batches = made_batches(_model(own), onnx.tokenizer, onnx.max_length, inputs)
    parity = {"made": check_batches(_model(own), lambda c: onnx.session.run([OUTPUT], dict(c))[0], batches)}
    if rows is not None:
        logits["source"] = row_logits(own.predicting(onnx.max_length, _ignore), rows)
        logits["onnx"] = row_logits(onnx, rows)
        texts = [" | ".join(parts) for parts in rows.texts]
        parity["data"] = compared(logits["onnx"], logits["source"], "the data", texts)
    shown = ", ".join(
        f"{part['largest_difference']:.1e} on {part['rows']} rows ({of})" for of, part in parity.items()
    )
    logger.info(f"parity: logits differ by at most {shown}")
    return parity


def _compared(
    predictors: Mapping[str, Any],
    rows: ExportRows | None,
    choice: ExportChoice,
    logits: Mapping[str, np.ndarray],
    trained: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Metrics of all models, and loyalties to the student and to the teacher. ``logits``: those already computed."""
    if rows is None:
        return {"metrics": {}, "loyalty": {}}
    every = {
        name: logits[name] if name in logits else row_logits(predictor, rows)
        for name, predictor in predictors.items()
    }
    figures = ModelFigures(predictors, rows, every, choice.seed)
    exported = [name for name in ("onnx", "int8") if name in predictors]
    loyalties = {"student": figures.loyalties("student", exported)}
    if "teacher" in predictors:
        to_teacher = figures.loyalties("teacher", ["student", *exported])
        loyalties["teacher"] = {name: with_trained_on(own, trained) for name, own in to_teacher.items()}
    return {"metrics": figures.metrics(), "loyalty": loyalties}


def _below_limits(found: Mapping[str, Any], choice: ExportChoice) -> list[str]:
    """A sentence for each figure below its limit, or not defined on the rows. The INT8 model is checked, if any."""
    name = "onnx" if choice.quantize is None else "int8"
    failed = []
    for limit, least in choice.limits.items():
        figure = figure_of(limit)
        reference = "teacher" if figure.startswith(TO_TEACHER) else "student"
        value = found["loyalty"][reference][name].get(figure.removeprefix(TO_TEACHER), {}).get("value")
        if value is None or value < least:
            shown = decimal_below(value, least)
            shown = "not defined on these rows" if shown is None else f"{shown}, below {least:g}"
            failed.append(f"{limit} of {name}: {shown}")
    return failed


def _warnings(found: Mapping[str, Any], choice: ExportChoice) -> list[str]:
    """Warnings about what was not compared, and about limits of quantization that were not reached."""
    cut = [f"figures are of texts cut at {found['max_length']} tokens; predict and audit read windows of it"]
    whole = cut if found["data"] is not None and "texts" in found else []
    if found["int8"] is None:
        return whole
    if found["data"] is None:
        return ["the INT8 model was not compared with the student: give --data"]
    layers, short = found["int8"]["layers"], whole
    if found["int8"]["embedding_bits"] > choice.embedding_bits:
        short.append(
            "embeddings have eight bits: with four, loyalty to the student was below --least-loyalty"
        )
    if layers["loyalty"] < choice.least_loyalty:
        short.append(
            f"the INT8 model's loyalty to the student is {layers['loyalty']:.3f}, below {choice.least_loyalty:g}, with "
            "every layer in float that could be"
        )
    return [*short, *_lost_reasons(found["loyalty"])]


def _lost_reasons(loyalty: Mapping[str, Any]) -> list[str]:
    """A warning where the INT8 model's response loyalty to the teacher lies below the student's interval."""
    of_teacher = loyalty.get("teacher") or {}
    own, int8 = ((of_teacher.get(name) or {}).get("response") or {} for name in ("student", "int8"))
    low, value = own.get("low"), int8.get("value")
    if low is None or value is None or value >= low:
        return []
    return [
        "the INT8 model reacts to changed words less like the teacher than the student does: its response loyalty is "
        f"{value:.3f}, the student's {own['value']:.3f} ({low:.3f} to {own['high']:.3f}). More layers in float may "
        "help: raise --least-loyalty"
    ]


def _identity(file: Path) -> dict[str, Any]:
    return {"file": f"{GRAPHS}/{file.name}", "sha256": checksum_of(file)}


def _predictor(file: Path, own: AuditModel, max_length: int) -> OnnxPredictor:
    assert own.tokenizer is not None
    return OnnxPredictor(
        onnx_session(file), own.tokenizer, own.labels, max_length, file=file, multi_label=own.multi_label,
        saved_thresholds=thresholds_of(_model(own)),
    )  # fmt: skip


def _described(own: AuditModel) -> dict[str, Any] | None:
    """The student, with the recipe of its run, from which an audit of the export finds what it was trained on."""
    if own.reader is None:
        return None
    known = described(_model(own), own.name, own.reader.probe)
    return known | (recipes_of(Path(own.folder)) if own.folder else {})


def _model(own: AuditModel) -> Any:
    return own.model


def _ignore(_: int) -> None:
    """No progress is shown."""
