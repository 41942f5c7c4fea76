"""``gradistill export``: an ONNX folder, a table, an exit code."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradistill.cli.audit_command import NAMED, parse_fail_under, reference_of
from gradistill.cli.options import (
    DATA,
    LabelMap,
    Overwrite,
    Positive,
    PrintOptions,
    TableOptions,
    TeacherTemplate,
    output_option,
)

if TYPE_CHECKING:  # imported only when the command runs
    from gradistill.commands.export_choice import ExportChoice
    from gradistill.data import DataChoice


@dataclass(frozen=True, kw_only=True)
class ExportFolder:
    """Where an export is written."""

    output: Annotated[Path, output_option("The folder for onnx/, tokenizer, card and export.json.")]
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class ExportData(TableOptions):
    """The rows on which an export is checked. They are optional."""

    data: Annotated[str | None, DATA] = None
    positive: Positive = None
    label_map: LabelMap = None

    def given(self) -> DataChoice | None:
        """The data choice, or None without data. Raises RecipeError for options of data without ``--data``."""
        from gradistill.errors import RecipeError

        if self.data is not None:
            return self.choice()
        if named := [field.name for field in fields(self) if getattr(self, field.name) != field.default]:
            raise RecipeError(
                f"--{named[0].replace('_', '-')} was given, and no --data",
                expected="the data that it applies to",
                remedy="give --data, or leave it out",
            )
        return None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export writes and measures. Fields have the names of ``ExportChoice``."""

    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            help="Also write onnx/model_quantized.onnx: int8, or int8-static, calibrated on training texts.",
        ),
    ] = None
    split: Annotated[str, typer.Option("--split", help="The split to compare models on.")] = "validation"
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=1, help="Compare on at most this many rows, drawn by the seed.")
    ] = 1000
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=3, help="Most tokens of a text (default: as the student was trained)."
        ),
    ] = None
    response_rows: Annotated[
        int,
        typer.Option("--response-rows", min=0, help="Rows for response loyalty, each predicted 17 times."),
    ] = 60
    least_loyalty: Annotated[
        float,
        typer.Option(
            "--least-loyalty",
            help="Keep layers in float32 until the INT8 model agrees with the student on this share of labels.",
        ),
    ] = 0.98
    fail_under: Annotated[
        str | None,
        typer.Option(
            "--fail-under",
            help="Exit with code 1 if a figure is below its limit: label_loyalty=0.98 (to the student), "
            "teacher_response_loyalty=0.8.",
        ),
    ] = None
    trim_vocabulary: Annotated[
        str | None,
        typer.Option(
            "--trim-vocabulary",
            help="Texts, such as the training data: other tokens are removed from the model (WordPiece only).",
        ),
    ] = None
    vocabulary_size: Annotated[
        int | None,
        typer.Option(
            "--vocabulary-size", min=1, help="With --trim-vocabulary: number of tokens to keep, by frequency."
        ),
    ] = None
    embedding_bits: Annotated[
        int,
        typer.Option(
            "--embedding-bits",
            help="Bits of embeddings in INT8: 8; or 4, and 8 for the 1,000 most frequent tokens of training texts.",
        ),
    ] = 8
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time the models on the rows, and measure memory.")
    ] = True
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**32 - 1, help="Random seed of rows, replaced words and bootstrap."
        ),
    ] = 0

    def choice(self) -> ExportChoice:
        """The settings for ``commands.export``. Raises RecipeError for invalid values."""
        from gradistill.commands.export_choice import ExportChoice

        given = asdict(self)
        return ExportChoice(limits=parse_fail_under(given.pop("fail_under")), **given)


@dataclass(frozen=True, kw_only=True)
class ComparedTeacher:
    """A further model to compare with."""

    teacher: Annotated[
        list[str] | None,
        typer.Option("--teacher", help=f"Also compare with this model: {NAMED}. Several are averaged."),
    ] = None
    teacher_template: TeacherTemplate = None

    def choice(self) -> Any:
        """The teacher, or None. Raises RecipeError for a prompt without a teacher."""
        from gradistill.errors import RecipeError

        if self.teacher:
            return reference_of(self.teacher, self.teacher_template)
        if self.teacher_template is not None:
            raise RecipeError(
                "--teacher-template was given without --teacher", expected="both", remedy="leave it out"
            )
        return None


def export(
    student: Annotated[str, typer.Option("--student", help="The PyTorch classifier: folder or hub id.")],
    data: ExportData,
    options: ExportOptions,
    folder: ExportFolder,
    log: PrintOptions,
    compared: ComparedTeacher,
) -> None:
    """Write a student as an ONNX model, checked against the PyTorch model."""
    log.set_up()
    from gradistill.commands.export import export_model
    from gradistill.report.export_tables import export_view

    record = export_model(
        student, folder.output, options.choice(),
        data=data.given(), teacher=compared.choice(), overwrite=folder.overwrite,
    )  # fmt: skip
    log.report(export_view(record), f"written to {folder.output}: its README.md shows how to run it", record)
