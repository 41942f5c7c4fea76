"""``gradistill explain``: the words that one prediction rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from gradistill.cli.options import PrintOptions, one_of


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Which prediction is explained, and how."""

    label: Annotated[
        str | None, typer.Option("--label", help="Explain this label, not the predicted one.")
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Steps of Integrated Gradients (default: as many as needed, to 400)."
        ),
    ] = None
    baseline: Annotated[
        str, typer.Option("--baseline", help="Where the path starts: padding, mask or zero.")
    ] = "padding"
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=3, help="Most tokens of a text (default: as the model was trained)."
        ),
    ] = None


def explain(
    texts: Annotated[list[str], typer.Argument(help="One text, or the two of a pair.")],
    model: Annotated[str, typer.Option("--model", help="A fine-tuned classifier: folder or hub id.")],
    options: ExplainOptions,
    log: PrintOptions,
) -> None:
    """Show which words a prediction rests on."""
    log.set_up()
    from gradistill.commands.explain import explain as explained
    from gradistill.report.terminal import render
    from gradistill.signals.baselines import IN_ONE_TEXT

    given: dict[str, Any] = asdict(options)
    one_of("--baseline", options.baseline, IN_ONE_TEXT)
    explanation = explained(model, texts, **given)
    log.report(render(explanation), None, asdict(explanation))
