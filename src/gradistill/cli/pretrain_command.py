"""``gradistill pretrain``: a smaller encoder from texts without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from gradistill.cli.options import (
    Epochs,
    LayerMap,
    LogOptions,
    RecipeOptions,
    RunFolder,
    StudentLayers,
    StudentWidth,
    TextColumns,
    listed,
    write_result,
)
from gradistill.printing import show

Encoder = Annotated[
    str, typer.Option("--teacher", help="A pre-trained or fine-tuned model: folder, hub id, or minilm-l6.")
]
Texts = Annotated[
    list[str],
    typer.Option(
        "--texts", help="Texts: .txt (one a line), a table, a folder with train, a hub id; repeatable."
    ),
]


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(RecipeOptions):
    """The recipe of an encoder."""

    student_layers: StudentLayers = None
    student_width: StudentWidth = None
    layer_map: LayerMap = None
    epochs: Epochs = None


def pretrain(
    teacher: Encoder,
    texts: Texts,
    recipe: PretrainingRecipe,
    folder: RunFolder,
    log: LogOptions,
    text_columns: TextColumns = None,
) -> None:
    """Distil an encoder into a smaller one on unlabelled texts: a checkpoint for distill --student."""
    log.set_up()
    from gradistill.commands.pretrain import pretrain as pretrained
    from gradistill.report.run_summary import pretraining_table

    resolved = recipe.load(None if recipe.recipe else "pretrain")
    metrics = pretrained(
        teacher, texts, folder.output, resolved,
        text_columns=listed(text_columns), overwrite=folder.overwrite,
    )  # fmt: skip
    if metrics:  # only the first process has metrics
        show(pretraining_table(metrics))
        write_result(f"written to {folder.output}")
