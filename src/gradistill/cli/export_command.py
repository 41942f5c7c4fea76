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

if TYPE_CHECKING:  # what is loaded when the command runs
    from gradistill.commands.export_choice import ExportChoice
    from gradistill.data import DataChoice


@dataclass(frozen=True, kw_only=True)
class ExportFolder:
    """Where an export is written."""

    output: Annotated[Path, output_option("Where onnx/, the tokenizer, the card and export.json go.")]
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class ExportData(TableOptions):
    """The rows that an export is checked on; an export without any is possible."""

    data: Annotated[str | None, DATA] = None
    positive: Positive = None
    label_map: LabelMap = None

    def given(self) -> DataChoice | None:
        """The data, None without any. Raises RecipeError for options of data that are not named."""
        from gradistill.errors import RecipeError

        if self.data is not None:
            return self.choice()
        if named := [field.name for field in fields(self) if getattr(self, field.name) != field.default]:
            raise RecipeError(
                f"--{named[0].replace('_', '-')} was given, and no --data",
                expected="the data that it is about",
                remedy="give --data, or leave it out",
            )
        return None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is written and measured. Fields have the names that ``ExportChoice`` has for them."""

    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            help="Also write onnx/model_quantized.onnx: int8, or int8-static, whose ranges training texts set.",
        ),
    ] = None
    split: Annotated[str, typer.Option("--split", help="The split to check on.")] = "validation"
    max_rows: Annotated[
        int, typer.Option("--max-rows", min=1, help="Check on so many rows at most, drawn by the seed.")
    ] = 1000
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=3, help="Tokens of a text at most (default: as the student was trained)."
        ),
    ] = None
    response_rows: Annotated[
        int,
        typer.Option("--response-rows", min=0, help="Rows for response loyalty, each predicted 17 times."),
    ] = 60
    least_loyalty: Annotated[
        float,
        typer.Option(
            "--least-loyalty", help="Label loyalty of INT8 to the student below which layers stay in float."
        ),
    ] = 0.98
    fail_under: Annotated[
        str | None,
        typer.Option(
            "--fail-under",
            help="Exit 1 below any of these: label_loyalty=0.98 (to the student), teacher_response_loyalty=0.8.",
        ),
    ] = None
    trim_vocabulary: Annotated[
        str | None,
        typer.Option(
            "--trim-vocabulary",
            help="Texts, such as the training data: tokens that do not occur in them go (WordPiece only).",
        ),
    ] = None
    vocabulary_size: Annotated[
        int | None,
        typer.Option(
            "--vocabulary-size", min=1, help="With --trim-vocabulary: tokens that stay, frequent ones first."
        ),
    ] = None
    embedding_bits: Annotated[
        int,
        typer.Option(
            "--embedding-bits",
            help="Of embeddings in INT8: 8, or 4, where the 1,000 tokens most frequent in training texts keep 8.",
        ),
    ] = 8
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Time the models on the rows, and measure memory.")
    ] = True
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of drawn rows, replaced words and bootstrap.")
    ] = 0

    def choice(self) -> ExportChoice:
        """What ``commands.export`` takes. Raises RecipeError for values that cannot be."""
        from gradistill.commands.export_choice import ExportChoice

        given = asdict(self)
        return ExportChoice(limits=parse_fail_under(given.pop("fail_under")), **given)


@dataclass(frozen=True, kw_only=True)
class ComparedTeacher:
    """A model that the results are compared with, too."""

    teacher: Annotated[
        list[str] | None,
        typer.Option("--teacher", help=f"Also compare with this model: {NAMED}. Several are averaged."),
    ] = None
    teacher_template: TeacherTemplate = None

    def choice(self) -> Any:
        """The teacher, None without one. Raises RecipeError for a prompt of none."""
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
    """Write a student as an ONNX model, checked against what it was made from."""
    log.set_up()
    from gradistill.commands.export import export_model
    from gradistill.report.export_tables import export_view

    found = export_model(
        student, folder.output, options.choice(),
        data=data.given(), teacher=compared.choice(), overwrite=folder.overwrite,
    )  # fmt: skip
    log.report(export_view(found), f"written to {folder.output}: its README.md shows how to run it", found)
