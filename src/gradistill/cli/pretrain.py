"""``gradistill pretrain``: a smaller encoder from texts without labels."""

from __future__ import annotations

from typing import Annotated

import typer

from gradistill.cli.options import (
    Changes,
    Epochs,
    LayerMap,
    Output,
    Overwrite,
    RecipeFile,
    Rows,
    Seed,
    StudentLayers,
    TextColumns,
    listed,
    resolved_recipe,
    say,
    student_changes,
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
Width = Annotated[
    int | None, typer.Option("--student-width", help="A narrower student with random weights to start from.")
]


def pretrain(
    teacher: Encoder,
    texts: Texts,
    output: Output,
    student_layers: StudentLayers = None,
    student_width: Width = None,
    layer_map: LayerMap = None,
    recipe: RecipeFile = None,
    change: Changes = None,
    epochs: Epochs = None,
    seed: Seed = None,
    max_train_rows: Rows = None,
    text_columns: TextColumns = None,
    overwrite: Overwrite = False,
) -> None:
    """Distil an encoder into a smaller one on unlabelled texts: a checkpoint for distill --student."""
    from gradistill.jobs.pretraining import pretrain as pretrained
    from gradistill.report.summary import pretraining_table

    changes = student_changes(None, student_layers, layer_map)
    resolved = resolved_recipe(
        "pretrain" if recipe is None else None, None, recipe, change, "default", epochs=epochs, seed=seed,
        max_train_rows=max_train_rows, **changes, **{"student.width": student_width},
    )  # fmt: skip
    metrics = pretrained(
        teacher, texts, output, resolved,
        text_columns=listed(text_columns), overwrite=overwrite, say=say,
    )  # fmt: skip
    if metrics:  # of several processes the first one has them
        show(pretraining_table(metrics))
        say(f"written to {output}")
