"""``gradistill push``: send a finished model folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradistill.cli.options import write_result
from gradistill.printing import confirmed, write


def push(
    folder: Annotated[Path, typer.Argument(help="A run folder, or an export.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the hub; created if it does not exist.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public (default: private).")
    ] = False,
    license: Annotated[
        str | None, typer.Option("--license", help="License id for the card, such as apache-2.0.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send model, tokenizer, recipe and card to the Hugging Face hub."""
    from gradistill.commands.push import push as pushed

    planned = pushed(folder, repo, private=not public, license=license, dry_run=True)
    write(f"{len(planned['files'])} files, {planned['bytes'] / 1e6:.1f} MB: {', '.join(planned['files'])}")
    if dry_run:
        return
    if not (yes or confirmed(f"Send them to {repo}? {_visibility(public)}")):
        write("nothing was sent")
        raise typer.Exit(1)
    sent = pushed(folder, repo, private=not public, license=license)
    write_result(f"sent to {sent['url']}")


def _visibility(public: bool) -> str:
    kind = "public" if public else "private"
    return f"A new repository will be {kind}; one that exists stays public or private as it is."
