"""The command line: parse, call a job, print. Errors of ours end with exit code 2 and one message."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``gradistill``."""
    from rich.console import Console

    from gradistill.cli.app import app
    from gradistill.errors import GradistillError
    from gradistill.report.words import printable

    try:
        app()
    except GradistillError as error:
        message = "\n".join(printable(line) for line in str(error).splitlines())
        Console(stderr=True, highlight=False).print(f"error: {message}", markup=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as ended:
        if _interrupted(ended):
            Console(stderr=True).print("stopped. The same command goes on from the last checkpoint.")
            sys.exit(130)
        raise


def _interrupted(ended: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt stands behind it: typer turns one into an exit, by ways that its versions change."""
    while ended is not None and not isinstance(ended, KeyboardInterrupt):
        ended = ended.__cause__ or ended.__context__
    return ended is not None
